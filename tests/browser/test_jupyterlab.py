"""A learner's way in: JupyterLab, as `scripts/lab` opens it, in a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.helpers import ROOT, alive, family, wait_until

NOTEBOOK = "week1_1_first_tasks.ipynb"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`scripts/lab` on a copy of the notebooks; its address, token included, and its process."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("kernel-*"))
    log = tmp_path / "lab.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [ROOT / "scripts/lab", "--no-browser", "--port=0", f"--ServerApp.root_dir={tmp_path}"],
            env=os.environ | {"DTQ_HOME": str(tmp_path / "home")},
            stdout=said,
            stderr=said,
            text=True,
            start_new_session=True,
        )
    try:
        address = re.compile(r"(http://127\.0\.0\.1:(\d+))/lab\S*\?(token=\w+)")

        def ended() -> str:
            return "" if process.poll() is None else log.read_text()

        found = wait_until(lambda: address.search(log.read_text()), "JupyterLab says its address", ended)
        wait_until(lambda: accepts(int(found[2])), "it listens there, which comes after", ended)
        yield f"{found[1]}/lab/tree/notebooks/{NOTEBOOK}?{found[3]}", process
    finally:
        for pid in family(process.pid) if process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        process.wait()


def accepts(port: int) -> bool:
    """Whether somebody listens at this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def choose(page: Page, command: str) -> None:
    """From the menu *Run*."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(f"[role=menuitem][data-command='{command}']").click()


def test_run_all_restart_and_run_all_again(page: Page, lab: tuple[str, subprocess.Popen[str]]) -> None:
    address, process = lab
    page.goto(address)
    expect(page.get_by_role("heading", name="Week 1.1: First tasks")).to_be_visible()
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]:visible")
    expect(idle.first).to_be_visible()  # while a toolbar finds room for it, there may be several
    assert page.get_by_text("get notified about official Jupyter news").count() == 0

    audit = page.get_by_text("Audit of dtq: 0 lost of 30 acknowledged tasks")
    chart = page.locator(".jp-OutputArea-output img")
    choose(page, "runmenu:run-all")
    audit.scroll_into_view_if_needed()
    expect(chart.first).to_be_visible()
    first = family(process.pid)

    choose(page, "runmenu:restart-and-run-all")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(audit).to_have_count(0)
    audit.scroll_into_view_if_needed()
    expect(chart.first).to_be_visible()
    assert page.get_by_text("Traceback").count() == 0

    everything = set(first) | set(family(process.pid))
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not any(map(alive, everything)), what="no process is left")
