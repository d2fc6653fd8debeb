"""Who keeps a process running."""

import os
import signal
import subprocess
import sys
from itertools import pairwise

from tests.helpers import PATIENCE, alive

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


ENDS_AT_ONCE = """
import logging, sys
from dtq.processes import supervise
logging.basicConfig(format="%(message)s")
supervise.TICK, supervise.LONGEST = map(float, sys.argv[1:3])
exec(sys.argv[4])
supervise.keep({"it": [sys.executable, "-ISc", sys.argv[3]]})
"""
SAYS_WHEN = "import time; print(time.monotonic(), flush=True)"


def keeper_of(code: str, tick: float, longest: float, change: str = "") -> "subprocess.Popen[str]":
    """A keeper whose process runs this code and ends. Both write into the same pipe."""
    command = [sys.executable, "-c", ENDS_AT_ONCE, str(tick), str(longest), code, change]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_pauses_before_what_ends_again_and_again_double() -> None:
    with keeper_of(SAYS_WHEN, 0.1, 0.6) as keeper:
        assert keeper.stdout
        lines = [keeper.stdout.readline().strip() for _ in range(12)]
        keeper.send_signal(signal.SIGTERM)
    starts = [float(line) for line in lines[::2]]
    again = "it ended with 0, it is started again"
    assert lines[1::2] == [again, *(f"{again} in {pause} s" for pause in (0.1, 0.2, 0.4, 0.6, 0.6))]
    pauses = [later - before for before, later in pairwise(starts)]
    assert all(pause >= least for pause, least in zip(pauses, (0, 0.1, 0.2, 0.4, 0.6), strict=True))


def test_what_ran_for_a_while_is_started_again_at_once() -> None:
    with keeper_of(f"{SAYS_WHEN}; time.sleep(0.5)", 0.1, 0.3) as keeper:
        assert keeper.stdout
        lines = [keeper.stdout.readline().strip() for _ in range(6)]
        keeper.send_signal(signal.SIGTERM)
    assert lines[1::2] == ["it ended with 0, it is started again"] * 3


def test_a_pause_does_not_delay_the_end() -> None:
    long = f"supervise.Restarts.pause = lambda self: {2 * PATIENCE}"
    with keeper_of(SAYS_WHEN, 0.1, 10.0, long) as keeper:
        assert keeper.stdout
        keeper.stdout.readline()
        assert keeper.stdout.readline() == f"it ended with 0, it is started again in {2 * PATIENCE} s\n"
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(PATIENCE) == 0
