"""The traffic of a soak: clients that submit tasks over HTTP and try again until they are acknowledged."""

import threading
import time
import uuid
from collections.abc import Callable
from random import Random
from typing import Any

import requests

from scripts.soaking.ledger import Ledger

GIVE_UP = 20.0  # seconds after which a client tries no more
ANSWER_TIMEOUT = 10.0  # seconds
AGAIN = 0.3  # seconds until the next try if the gateway names none
PAUSE = (0.02, 0.3)  # seconds between two submissions of a client
BATCHES = (1, 1, 1, 5, 20)  # tasks in one submission
Task = dict[str, Any]

# How often a kind of task comes, and how it is made.
KINDS: list[tuple[int, Callable[[Random], Task]]] = [
    (500, lambda chance: {"type": "noop"}),
    (200, lambda chance: {"type": "sleep", "data": chance.uniform(0, 0.1)}),
    (10, lambda chance: {"type": "sleep", "data": 1.0}),
    (5, lambda chance: {"type": "sleep", "data": 3.0, "timeout": 1.0, "max_retries": 0}),
    (40, lambda chance: {"type": "noop", "delay": chance.uniform(0.1, 3)}),
    (100, lambda chance: {"type": "flaky", "data": {"failures": 1}}),
    (15, lambda chance: {"type": "fail", "max_retries": 1}),
    (4, lambda chance: {"type": "crash", "data": {"times": 1}}),
]


def some_task(chance: Random) -> Task:
    """A task of any kind."""
    weights, makers = zip(*KINDS, strict=True)
    priority = {"priority": "high"} if chance.random() < 0.2 else {}
    make: Callable[[Random], Task] = chance.choices(makers, weights)[0]
    return {"data": None} | make(chance) | priority


class Customer:
    """A client of the gateway; each thread has its own.

    Args:
        url: of the gateway.
        ledger: gets what the gateway answers.
    """

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url, self._ledger = url, ledger
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy leads to this machine's own addresses

    def keep_submitting(self, enough: threading.Event, chance: Random) -> None:
        """Submits one task, or several at once, again and again until there is enough of it."""
        while not enough.wait(chance.uniform(*PAUSE)):
            self.submit([some_task(chance) for _ in range(chance.choice(BATCHES))])

    def submit(self, tasks: list[Task], key: str = "") -> list[str]:
        """Submits tasks until they are acknowledged. Returns their ids; none if they are refused for good."""
        key = key or str(uuid.uuid4())
        path, body = ("tasks", tasks[0]) if len(tasks) == 1 else ("tasks/batch", {"tasks": tasks})
        answer = self.ask("POST", path, json=body, headers={"Idempotency-Key": key})
        if answer is None or not answer.ok:
            self._ledger.count("submissions given up" if answer is None else "submissions rejected")
            return []
        said = answer.json()
        ids: list[str] = said.get("task_ids") or [said["task_id"]]
        self._ledger.acknowledge(key, tasks, ids)
        return ids

    def ask(self, method: str, path: str, **options: Any) -> requests.Response | None:
        """Sends a request until the gateway accepts or rejects it. Returns None if it takes too long."""
        end = time.monotonic() + GIVE_UP
        while time.monotonic() < end:
            pause = AGAIN
            try:
                answer = self._session.request(
                    method, f"{self._url}/{path}", timeout=ANSWER_TIMEOUT, **options
                )
            except requests.RequestException:
                self._ledger.count(
                    "tries without an answer"
                )  # nobody knows what became of it, so it is sent again
            else:
                if answer.status_code == 500:
                    self._ledger.complaints.append(f"{method} /{path}: {answer.text.strip()}")
                elif answer.status_code != 503:
                    return answer
                self._ledger.count("tries refused")
                pause = float(answer.headers.get("Retry-After", AGAIN))
            time.sleep(pause)
        return None
