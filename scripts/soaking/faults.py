"""The faults of a soak. Each method is one kind of the plan, and has undone its fault when it returns."""

import json
import logging
import signal
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from random import Random

import redis

from dtq.lab.cluster.waiting import until
from scripts.soaking.ledger import Ledger
from scripts.soaking.plan import Fault, faults
from scripts.soaking.system import RESULT_TTL, System
from scripts.soaking.traffic import Customer

FOR_EVER = "while true do end"
SAYS_BUSY, SAYS_BUSY_BY_DEFAULT = 300, 5000  # milliseconds of a script after which Redis says that it is busy
FAN_OUT = (100, 3000)  # children of one parent
BATCH = 1000  # tasks in one submission, at most
log = logging.getLogger("soak")


class Faults:
    """Does what the plan says.

    Args:
        system: what is hit.
        ledger: what was acknowledged.
        enough: ends the faults, those under way too.

    Attributes:
        done: the kinds of those that are over.
    """

    def __init__(self, system: System, ledger: Ledger, enough: threading.Event) -> None:
        self._system, self._ledger, self._enough = system, ledger, enough
        self._customer = Customer(system.url, ledger)  # of the lane `people`
        self.done: list[str] = []
        self._kinds: dict[str, Callable[[Fault], object]] = {
            "kill redis": self._kill_redis,
            "pause redis": self._pause_redis,
            "cut replies": self._cut_replies,
            "keep redis busy": self._keep_redis_busy,
            "fill redis": self._fill_redis,
            "break documents": self._break_documents,
            "kill worker": lambda fault: self._end(self._worker(fault), signal.SIGKILL),
            "pause worker": lambda fault: self._pause(self._worker(fault), fault.seconds),
            "pause worker beyond its lease": lambda fault: self._pause(self._worker(fault), fault.seconds),
            "stop worker": lambda fault: self._end(self._worker(fault), signal.SIGTERM),
            "kill gateway": lambda fault: self._end("gateway", signal.SIGKILL),
            "pause gateway": lambda fault: self._pause("gateway", fault.seconds),
            "stop gateway": lambda fault: self._end("gateway", signal.SIGTERM),
            "cancel a task": self._cancel,
            "requeue dead tasks": lambda fault: self._customer.ask("POST", "dead-letter/retry"),
            "discard dead tasks": lambda fault: self._customer.ask("DELETE", "dead-letter"),
            "complete a fan-out": lambda fault: self._fan_out(fault.chance),
            "cancel a fan-out": self._cancel_fan_out,
            "repeat a submission": lambda fault: self._repeat(fault.chance, 0),
            "repeat an expired submission": lambda fault: self._repeat(fault.chance, RESULT_TTL + 2),
        }

    def run(self, seed: int, lane: str) -> None:
        """Goes through a lane of the plan until there is enough of it."""
        for fault in faults(seed, lane):
            if self._enough.wait(fault.pause):
                return
            log.info("%s: %s, %.1f s", lane, fault.kind, fault.seconds)
            self._kinds[fault.kind](fault)
            log.info("%s: over", lane)
            self.done.append(fault.kind)

    # ---------------------------------------------------------------- Redis

    def _kill_redis(self, fault: Fault) -> None:
        supervisor = self._system.supervisor
        supervisor.signal("redis", signal.SIGKILL)
        until(lambda: supervisor.exit_code("redis") is not None, "Redis is dead")
        self._enough.wait(fault.seconds)
        self._system.server.start()

    def _pause_redis(self, fault: Fault) -> None:
        self._system.supervisor.signal("redis", signal.SIGSTOP)
        self._enough.wait(fault.seconds)
        self._system.supervisor.signal("redis", signal.SIGCONT)

    def _cut_replies(self, fault: Fault) -> None:
        self._system.proxy.cut(fault.chance.randint(1, 8))
        self._enough.wait(fault.seconds)
        self._system.proxy.cut(0)

    def _keep_redis_busy(self, fault: Fault) -> None:
        """A script of somebody else that does not end by itself. Redis says so sooner than by default."""
        client = self._system.redis
        client.config_set("lua-time-limit", SAYS_BUSY)
        script = threading.Thread(target=self._hold_redis)
        script.start()
        self._enough.wait(fault.seconds)

        def ended() -> bool:
            with suppress(redis.ResponseError):  # it has not begun yet
                client.script_kill()
            return not script.is_alive()

        until(ended, "the script has ended")
        client.config_set("lua-time-limit", SAYS_BUSY_BY_DEFAULT)

    def _hold_redis(self) -> None:
        with suppress(redis.ResponseError):  # the script is killed
            self._system.redis.eval(FOR_EVER, 0)

    def _fill_redis(self, fault: Fault) -> None:
        client = self._system.redis
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
        self._enough.wait(fault.seconds)
        client.config_set("maxmemory", 0)

    def _break_documents(self, fault: Fault) -> None:
        """Writes tasks by hand that nobody can read, one into each place, as nobody should."""
        k = self._system.broker.keys
        lists = [k.pending, k.pending_high, k.dead_letter]
        zsets = [k.processing, k.delayed, k.waiting, k.finished]
        with self._system.redis.pipeline(transaction=True) as pipe:
            for place in lists + zsets:
                task_id = f"broken-{uuid.UUID(int=fault.chance.getrandbits(128))}"
                pipe.set(k.task + task_id, fault.chance.choice(_unreadable(task_id)))
                if place in lists:
                    pipe.lpush(place, task_id)
                else:
                    pipe.zadd(place, {task_id: 0})
                self._ledger.broken.add(task_id)
            pipe.execute()

    # ---------------------------------------------------------------- processes

    def _worker(self, fault: Fault) -> str:
        return fault.chance.choice(self._system.workers)

    def _end(self, name: str, number: int) -> None:
        """Ends a process, and waits until it was started again."""
        pid = self._system.signal(name, number)
        until(lambda: self._system.replaced(name, pid), f"{name} has ended after signal {number}")

    def _pause(self, name: str, seconds: float) -> None:
        self._system.signal(name, signal.SIGSTOP)
        self._enough.wait(seconds)
        self._system.signal(name, signal.SIGCONT)

    # ---------------------------------------------------------------- people

    def _cancel(self, fault: Fault) -> None:
        if submission := self._ledger.recent(fault.chance):
            self._customer.ask("DELETE", f"tasks/{fault.chance.choice(submission.ids)}")

    def _cancel_fan_out(self, fault: Fault) -> None:
        if parent := self._fan_out(fault.chance):
            self._customer.ask("DELETE", f"tasks/{parent}")

    def _fan_out(self, chance: Random) -> str | None:
        """Submits a task that is due soon, and many that wait for it. Returns the id of the first."""
        parents = self._customer.submit([{"type": "sleep", "data": 0.1, "delay": chance.uniform(1, 3)}])
        if not parents:
            return None
        child = {"type": "noop", "data": None, "depends_on": parents}
        left = chance.randint(*FAN_OUT)
        while left:
            size = min(left, BATCH)
            self._customer.submit([child] * size)
            left -= size
        return parents[0]

    def _repeat(self, chance: Random, age: float) -> None:
        """Sends a submission again that was acknowledged at least `age` seconds ago."""
        submission = self._ledger.old(chance, age)
        if not submission:
            return
        ids = self._customer.submit(submission.tasks, submission.key)
        if ids and ids != submission.ids:
            self._ledger.complaints.append(f"{submission.ids} became {ids} when they were submitted again")


def _unreadable(task_id: str) -> list[bytes]:
    """Documents that are none: no JSON, half of it, no text, fields missing, a field of another type."""
    names = {"id": task_id, "type": "noop", "priority": "normal", "status": "pending", "attempts": "many"}
    numbers = {"retry_count": 0, "crashes": 0, "created_at": 0, "data": 0}
    document = json.dumps(names | numbers, separators=(",", ":")).encode()
    return [b"no JSON", document[:40], b"\xff\xfe", b'{"id":"' + task_id.encode() + b'","data":1}', document]
