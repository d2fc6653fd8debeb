"""What a learner imports, and what a worker that needs little of it does not."""

import subprocess
import sys

import pytest

import dtq.lab


@pytest.mark.parametrize("name", dtq.lab.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from dtq.lab import {name}", namespace)
    assert callable(namespace[name]) or name in ("frames", "plot", "traces")
    assert name in dir(dtq.lab)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ImportError, match="cannot import name 'audits_'"):
        exec("from dtq.lab import audits_")


def test_a_worker_that_signs_does_not_load_the_charts() -> None:
    code = "import sys, dtq.lab.witness.ledger; print('pandas' in sys.modules, 'matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"
