"""A steady load beside an experiment: clients that come at even intervals and do not give up.

New clients come no matter how many still wait for an acknowledgement, as users do: an open load. A refused
client tries again after the time in the gateway's `Retry-After`, with the same idempotency key.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import requests
from requests.adapters import HTTPAdapter

from dtq.lab.cluster.waiting import PATIENCE, until
from dtq.lab.witness.background import repeated

ACKNOWLEDGED, REFUSED, NO_ANSWER = "acknowledged", "refused", "no answer"
AGAIN = 1.0  # seconds until the next try if the gateway names none
COLUMNS = ["number", "sent_at", "answered_at", "outcome", "task_id"]


class Load:
    """The answers that the clients have got until now.

    Args:
        url: the gateway's address.
        task: what each of them submits, as `{"type": …, "data": …}`.
    """

    def __init__(self, url: str, task: dict[str, Any]) -> None:
        self._url, self._task = f"{url}/tasks", task
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy leads to this machine's own addresses
        self._session.mount(url, HTTPAdapter(pool_maxsize=100))
        self._rows: list[tuple[int, float, float, str, str | None]] = []
        self._clients: list[threading.Thread] = []
        self._last_call = float("inf")  # when the remaining clients give up, time.monotonic

    @property
    def frame(self) -> pd.DataFrame:
        """One row per try, in the order of the answers: number (of the client), sent_at, answered_at (UTC),
        outcome (acknowledged, refused, no answer) and task_id (of what was acknowledged).
        """
        frame = pd.DataFrame(self._rows[:], columns=COLUMNS)
        for name in ("sent_at", "answered_at"):
            frame[name] = pd.to_datetime(frame[name], unit="s", utc=True)
        return frame.sort_values("answered_at", ignore_index=True)

    @property
    def acknowledged(self) -> list[str]:
        """The ids of the tasks that were acknowledged."""
        return [row[4] for row in self._rows[:] if row[4]]

    def wait_for(self, n: int, outcome: str = ACKNOWLEDGED, patience: float = PATIENCE) -> None:
        """Waits until `n` more tries have had this outcome.

        Raises:
            DtqError: they have not within `patience` seconds.
        """
        wanted = self._count(outcome) + n
        until(lambda: self._count(outcome) >= wanted, f"{n} more tries {outcome}", patience)

    def add_client(self) -> None:
        """Starts one more client."""
        thread = threading.Thread(target=self._insist, args=(len(self._clients) + 1,), daemon=True)
        self._clients.append(thread)
        thread.start()

    def close(self) -> None:
        """Waits until all clients are acknowledged, `PATIENCE` seconds at most."""
        self._last_call = time.monotonic() + PATIENCE
        for client in self._clients:
            client.join()
        self._session.close()

    def _count(self, outcome: str) -> int:
        return sum(row[3] == outcome for row in self._rows[:])

    def _insist(self, number: int) -> None:
        key = str(uuid.uuid4())
        while (pause := self._try(number, key)) and time.monotonic() + pause < self._last_call:
            time.sleep(pause)

    def _try(self, number: int, key: str) -> float:
        """Submits once. Returns the seconds until the next try, 0 if none is needed."""
        sent_at, task_id, pause = time.time(), None, AGAIN
        headers = {"Idempotency-Key": key}
        try:
            answer = self._session.post(self._url, json=self._task, headers=headers, timeout=PATIENCE)
            if answer.ok:
                outcome, task_id, pause = ACKNOWLEDGED, answer.json()["task_id"], 0.0
            else:
                outcome, pause = REFUSED, float(answer.headers.get("Retry-After", AGAIN))
        except requests.RequestException:
            outcome = NO_ANSWER  # nobody knows what became of it, so it is sent again
        self._rows.append((number, sent_at, time.time(), outcome, task_id))
        return pause


@contextmanager
def steady_load(cluster: Any, type: str, data: Any = None, every: float = 0.05) -> Iterator[Load]:
    """Submits one task after another while its block runs, and returns when all are acknowledged.

        with steady_load(cluster, "sleep", 0.1) as load:
            ...
        plot.submissions(load.frame)

    Args:
        cluster: a `LocalCluster`.
        type, data: type and payload of each task.
        every: seconds between two clients.
    """
    load = Load(cluster.url, {"type": type, "data": data})
    try:
        with repeated(load.add_client, every, "load"):
            yield load
    finally:
        load.close()
