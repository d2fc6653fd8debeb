"""Who keeps a process running."""

import os
import signal
import subprocess
import sys

from tests.helpers import alive

SAYS_PID = [sys.executable, "-ISc", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
KEEPER = [
    sys.executable,
    "-c",
    f"""
from dtq.processes.supervise import keep
keep({{"one": {SAYS_PID!r}}})
print("over", flush=True)
""",
]


def test_a_kept_process_is_started_again_until_the_keeper_is_stopped() -> None:
    with subprocess.Popen(KEEPER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as keeper:
        assert keeper.stdout
        first = int(keeper.stdout.readline())
        os.kill(first, signal.SIGKILL)
        second = int(keeper.stdout.readline())
        assert second != first
        keeper.send_signal(signal.SIGTERM)
        assert keeper.stdout.read() == "over\n"
    assert keeper.returncode == 0
    assert not alive(second)
