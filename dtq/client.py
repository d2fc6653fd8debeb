"""Client: the gateway's HTTP API from Python.

Any request may be sent twice without harm, since each submission carries an idempotency key
(https://docs.stripe.com/api/idempotent_requests). So the client sends it again if the answer was lost or the
gateway asks it to wait: up to four times, after the time that the gateway names, half a minute at most.
"""

import json
import logging
import math
import re
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, TypeAlias
from urllib.parse import quote

import msgspec
import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from dtq import announcement
from dtq.config import Settings, load
from dtq.errors import ApiError, ConfigError, DtqError, NoGatewayError, WaitTimeout
from dtq.observe import tracing
from dtq.observe.stats import Stats
from dtq.queue.task import Priority, Status, Task
from dtq.queue.worker_info import WorkerInfo

TIMEOUTS = (3.05, 30.0)  # seconds to connect (just over TCP's first retry), and between bytes of an answer
AGAIN = Retry(
    total=4, backoff_factor=0.1, retry_after_max=30, allowed_methods=None,
    status_forcelist=(429, 502, 503, 504), raise_on_status=False,
)  # fmt: skip
BATCH, BATCH_BYTES = 1000, 1_000_000  # limits of a batch: tasks, and bytes (the gateway takes 1 MiB)
ASKED = 100  # ids in one request: many servers accept no more than 4,094 characters in its first line
ENDED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
Ids: TypeAlias = list[str]  # inside `Client`, its method `list` hides the type of this name
Tasks: TypeAlias = list[Task[Any]]
Workers: TypeAlias = list[WorkerInfo]
log = logging.getLogger("dtq.client")
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would warn of each retry


class Client:
    """Submits tasks and follows them. Threads may share one. Its methods raise NoGatewayError where no
    gateway answers, and ApiError, with the gateway's reason, where it refuses. A warning of the gateway, such
    as of a type that no live worker knows, goes to the log `dtq.client`, once.

    Args:
        url: the gateway's address, as `http://host:port`. By default that of the gateway which runs in this
            folder, else port `PORT` (5000) of this machine.
        api_key: the key that it sends to the gateway, by default `DTQ_API_KEY`; "" sends none.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self.url = (url or gateway_url(load())).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no gateway's address: it must start with http:// or https://.")
        self._warnings = set[str]()  # each is logged once
        tracing.start("client")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy leads to this machine's own addresses
        self._session.headers.update(_authorization(api_key))
        self._session.mount(self.url, HTTPAdapter(pool_maxsize=32, max_retries=AGAIN))
        # For /health, 503 is an answer and no reason to ask again.
        once = AGAIN.new(status_forcelist=(), respect_retry_after_header=False)
        self._session.mount(f"{self.url}/health", HTTPAdapter(max_retries=once))

    def submit(
        self, type: str, data: Any = None, *, priority: Priority = "normal", depends_on: Sequence[str] = (),
        delay: float = 0, max_retries: int | None = None, timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> str:  # fmt: skip
        """Submits one task and returns its id.

        Args:
            type: name of a handler that the workers know.
            data: its payload, anything that JSON can hold.
            depends_on: ids of tasks that must be completed before it starts.
            delay: seconds before it may start.
            max_retries, timeout: override those of its type; timeout in seconds.
            idempotency_key: two submissions with the same key make one task.
        """
        options = {"priority": priority, "depends_on": depends_on, "delay": delay, "max_retries": max_retries}
        document = _document(type, data, **options, timeout=timeout)
        return str(self._submit(document, idempotency_key, "tasks")["task_id"])

    def submit_many(self, type: str, items: Iterable[Any], **options: Any) -> Ids:
        """Submits a task for each payload in `items` and returns their ids in this order. `options` are those
        of `submit`, the same for all. They go in batches of 1,000 or less, each stored whole or not at all.
        """
        key, ids = options.pop("idempotency_key", None), Ids()
        for n, batch in enumerate(_batches(_document(type, item, **options) for item in items)):
            document = b'{"tasks":[%b]}' % b",".join(batch)
            ids += self._submit(document, key and f"{key}-{n}", "tasks", "batch")["task_ids"]
        return ids

    def get(self, task_id: str) -> Task[Any]:
        """The task as it is now. ApiError: there is no task of this id (any more)."""
        return msgspec.convert(self._ask("GET", "tasks", task_id), Task[Any], strict=False)

    def list(self, status: str | None = None, type: str | None = None, limit: int = 50) -> Tasks:
        """The newest tasks, newest first, all of them or those of one status or type."""
        return self._tasks("tasks", status=status, type=type, limit=limit)

    def wait(self, ids: str | Iterable[str], timeout: float | None = None, progress: bool = True) -> Any:
        """Waits until tasks are completed, failed or cancelled, for `timeout` seconds at most. Returns the
        Task for one id, a list of them in the same order for several.

        Raises:
            ApiError: there is no task of such an id (any more).
            WaitTimeout: some were not done in time.
        """
        wanted, done = [ids] if isinstance(ids, str) else Ids(ids), dict[str, Task[Any]]()
        left, began = Ids(dict.fromkeys(wanted)), time.monotonic()
        bar = tqdm(
            total=len(left), unit="task", file=sys.stdout, leave=False, ascii=True, disable=not progress
        )
        with bar:
            while left:
                asked = time.monotonic()
                done |= {task.id: task for task in self._look(left) if task.status in ENDED}
                left = [task_id for task_id in left if task_id not in done]
                bar.update(len(done) - bar.n)
                if left:
                    _pause(began, asked, timeout, left)
        return done[ids] if isinstance(ids, str) else [done[task_id] for task_id in wanted]

    def cancel(self, task_id: str) -> None:
        """Cancels a task that waits to run, and what depends on it. ApiError: it does not wait any more."""
        self._ask("DELETE", "tasks", task_id)

    def workers(self) -> Workers:
        """The live workers, as they described themselves at their last heartbeat."""
        return msgspec.convert(self._ask("GET", "workers")["workers"], Workers, strict=False)

    def health(self) -> dict[str, Any]:
        """The system's `status` (healthy, degraded, unhealthy), and how many tasks are in each place."""
        return dict(self._ask("GET", "health", accepted=503))

    def stats(self, window: float = 60) -> Stats:
        """Throughput, run times and waits of the last `window` seconds (1 to 3,600), and counts."""
        return msgspec.convert(self._ask("GET", "stats", params={"window": window}), Stats, strict=False)

    def dead_letter(self) -> Tasks:
        """The tasks that failed for good and wait for a human's decision."""
        return self._tasks("dead-letter")

    def retry(self, task_id: str | None = None) -> Ids:
        """Gives a dead task, or all of them, a fresh start. Returns the ids."""
        return Ids(self._ask("POST", "dead-letter", task_id, "retry")["task_ids"])

    def discard(self, task_id: str | None = None) -> Ids:
        """Cancels a dead task, or all of them, for good. Returns the ids."""
        return Ids(self._ask("DELETE", "dead-letter", task_id)["task_ids"])

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, ids: Ids) -> Iterator[Task[Any]]:
        for start in range(0, len(ids), ASKED):
            asked = ids[start : start + ASKED]
            found = self._tasks("tasks", ids=",".join(asked))
            if unknown := set(asked) - {task.id for task in found}:
                raise ApiError(404, f"There is no task {min(unknown)} (any more).")
            yield from found

    def _tasks(self, path: str, **query: Any) -> Tasks:
        return msgspec.convert(self._ask("GET", path, params=query)["tasks"], Tasks, strict=False)

    def _submit(self, document: bytes, key: str | None, *path: str) -> Any:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or str(uuid.uuid4())}
        with tracing.span("submit", "PRODUCER") as context:
            said = self._ask("POST", *path, data=document, headers=headers | context)
        warning = said.get("warning")
        if warning and warning not in self._warnings:
            self._warnings.add(warning)
            log.warning("%s", warning)
        return said

    def _ask(self, method: str, *path: str | None, accepted: int = 200, **options: Any) -> Any:
        """Sends a request. Returns the answer as Python data if its status is a success or `accepted`."""
        url = "/".join([self.url, *(quote(part, safe="") for part in path if part is not None)])
        try:
            answer = self._session.request(method, url, timeout=TIMEOUTS, **options)
        except requests.RequestException as error:
            raise NoGatewayError(f"No gateway answers at {self.url}: start one with `dtq up`.") from error
        try:
            said = msgspec.json.decode(answer.content)
            if answer.ok or answer.status_code == accepted:
                return said
            sentence = said["error"]
        except (msgspec.DecodeError, KeyError, TypeError):
            sentence = f"What answers at {self.url} is no dtq gateway (HTTP {answer.status_code})."
        hint = " Set DTQ_API_KEY, or use Client(api_key=…)." if answer.status_code == 401 else ""
        raise ApiError(answer.status_code, sentence + hint)


def _authorization(api_key: str | None) -> dict[str, str]:
    if api_key is None and (setting := load().api_key):
        api_key = setting.get_secret_value()
    if api_key and not re.fullmatch("[!-~]+", api_key):
        raise ConfigError("The API key cannot be sent: it must look like dtq_…, without spaces.")
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def gateway_url(settings: Settings) -> str:
    """Where the gateway of this folder listens, if its process lives; else the usual address."""
    return announcement.find(settings.home) or f"http://127.0.0.1:{settings.port}"


def _document(type: str, data: Any, **options: Any) -> bytes:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return json.dumps({"type": type, "data": data} | given, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DtqError(f"The task cannot be written as JSON: {error}.") from None


def _batches(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for document in documents:
        if batch and (len(batch) == BATCH or size + len(document) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document) + 1
    if batch:
        yield batch


def _pause(began: float, asked: float, timeout: float | None, left: Ids) -> None:
    """Sleeps between two requests: 20 ms, later up to 250 ms; at least three times what the last one took."""
    now = time.monotonic()
    remaining = math.inf if timeout is None else began + timeout - now
    if remaining <= 0:
        raise WaitTimeout(f"{len(left)} of the tasks are not done after {timeout:g} s, {left[0]} for one.")
    time.sleep(min(remaining, max(0.02, min((now - began) / 10, 0.25), 3 * (now - asked))))
