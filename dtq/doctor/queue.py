"""Checks of the queue: do workers work, and is each task where it should be?"""

import time
from itertools import islice
from typing import Any

from dtq.client import Client, gateway_url
from dtq.doctor.finding import Finding, fail, ok, some, unknown, warn
from dtq.doctor.probe import Check, Probe
from dtq.errors import ApiError, NoGatewayError
from dtq.observe import unknown_types
from dtq.queue.broker import PARKED_ID
from dtq.queue.task import Status, Stored

LATE = 5.0  # seconds after which maintenance should have moved a due task or one whose lease ended
LONG = 10.0  # seconds that a task may be pending while a worker is idle
AGAIN = 2.5  # seconds until a second look; an idle worker asks for tasks every two
SAMPLE = 100  # ids from each end of each place; twice as many documents
SCANNED = 10_000  # keys of the server that are looked through for documents, and ids of a list
TRUST = 3  # beats that fit into a lease: fewer, and a busy machine loses its tasks to others
NAMED = 3  # ids in a sentence


def settings(probe: Probe) -> Finding:
    """Whether the settings fit each other, and whether all workers have the same."""
    ours = probe.settings
    for worker, _, heartbeat in probe.workers[0]:
        if abs(heartbeat - ours.heartbeat) > 0.1 * ours.heartbeat + 0.05:
            seen = f"{worker.id} beats every {heartbeat:.2g} s, and DTQ_HEARTBEAT is {ours.heartbeat:g} here."
            return warn(seen, "Give all processes of a queue the same settings.")
    rules = f"Heartbeat {ours.heartbeat:g} s, lease {ours.lease:g} s."
    if ours.lease < TRUST * ours.heartbeat:
        return warn(f"{rules} Two late beats cost a worker its tasks.", "Set DTQ_LEASE to three heartbeats.")
    return ok(rules)


def workers(probe: Probe) -> Finding:
    """Whether workers run, and whether one is lost or silent."""
    alive, gone = probe.workers
    if not alive:
        waiting, advice = probe.counts["pending"], "Start one with `dtq worker`."
        seen = f"No worker lives, and {some(waiting, 'task')} {'waits' if waiting == 1 else 'wait'} for one."
        return fail(seen, advice) if waiting else warn("No worker lives.", advice)
    if gone:
        return warn(f"{_names(gone)} ended without goodbye.", "Read the log, and start another.")
    if silent := [worker.id for worker, silent, heartbeat in alive if silent > 2 * heartbeat]:
        advice = "Is the process stopped, or its machine overloaded? Its tasks go to others."
        return warn(f"{_names(silent)} missed a beat.", advice)
    busy = sum(worker.status == "busy" for worker, *_ in alive)
    return ok(f"{some(len(alive), 'worker')}, {busy or 'none'} of them busy.")


def leases(probe: Probe) -> Finding:
    """Whether the queue is maintained: leases that end and tasks that come due are noticed."""
    k, late = probe.keys, probe.now() - LATE
    ended = probe.redis.zrangebyscore(k.processing, "-inf", late, 0, NAMED)
    due = probe.redis.zrangebyscore(k.delayed, "-inf", late, 0, NAMED)
    if not ended and not due:
        held = some(probe.counts["processing"], "task")
        return ok(f"{held} in hand; no lease and no delay ended over {LATE:g} s ago.")
    said = f"The lease of {_names(ended)} ended" if ended else f"{_names(due)} came due"
    return fail(
        f"{said} over {LATE:g} s ago, and nobody noticed: the queue is not maintained.",
        "Each worker and each gateway does that, under the same DTQ_KEY_PREFIX: start one.",
    )


def pending(probe: Probe) -> Finding:
    """Whether tasks wait although a worker is idle, or wait for long."""
    first = _next_in_line(probe)
    idle = [worker.id for worker, *_ in probe.workers[0] if worker.status == "idle"]
    waited = probe.now() - first.created_at.timestamp() if first and first.created_at else 0.0
    seen = f"{some(probe.counts['pending'], 'task')} pending."
    if first and idle and waited > LONG:
        time.sleep(AGAIN)
        again = _next_in_line(probe)
        if again and again.id == first.id:
            seen = f"Task {first.id} is next, {waited:.0f} s old, and somebody is idle: {_names(idle)}."
            return fail(seen, "Read that worker's log. Has it the same Redis and DTQ_KEY_PREFIX?")
    if first and waited > 6 * LONG:
        return warn(f"{seen} The next one waits for {waited:.0f} s.", "Add workers: `dtq worker`.")
    return ok(seen)


def places(probe: Probe) -> Finding:
    """Whether each task is where its status says. One that moves meanwhile looks wrong once, not twice."""
    astray = _astray(probe) | _homeless(probe)
    if astray:
        time.sleep(AGAIN / 10)
        astray &= _astray(probe) | _homeless(probe)
    if not astray:
        return ok(f"All tasks are where they should be (checked: {2 * SAMPLE} ids of each place at most).")
    sentences = sorted(astray)[:NAMED]
    seen = f"{some(len(astray), 'task')} astray: {', '.join(sentences)}."
    return fail(seen, "Did Redis evict keys, or somebody delete some? Submit these tasks again.")


def waiting(probe: Probe) -> Finding:
    """Whether the tasks that others wait for can still be completed."""
    seen = f"{some(probe.counts['waiting'], 'task')} waiting for others."
    oldest = probe.redis.zrange(probe.keys.waiting, 0, SAMPLE - 1)
    parents = {parent for task in _read(probe, oldest) for parent in task.depends_on}
    asked = sorted(parents)[: 10 * SAMPLE]
    known = {task.id: task.status for task in probe.broker.get_many(asked)}
    if lost := [parent for parent in asked if known.get(parent, "cancelled") == Status.CANCELLED]:
        return fail(f"{seen} {_names(lost)} will never be completed.", "Cancel what depends on it.")
    if dead := [parent for parent in asked if known[parent] == Status.FAILED]:
        return warn(f"{seen} {_names(dead)} failed for good.", "Retry or discard what is in the dead letter.")
    return ok(seen)


def dead_letter(probe: Probe) -> Finding:
    """Whether dead tasks wait for a human's decision."""
    number, ours = probe.counts["dead_letter"], probe.settings
    if not number:
        return ok("It is empty.")
    bounded = ours.dead_letter_max or ours.dead_letter_ttl
    kept = "" if bounded else " Kept for ever: DTQ_DEAD_LETTER_TTL and DTQ_DEAD_LETTER_MAX are 0."
    return warn(
        f"{some(number, 'task')} failed for good.{kept}",
        "Look at `GET /dead-letter` or the dashboard; then retry or discard.",
    )


def types(probe: Probe) -> Finding:
    """Whether tasks wait for a worker that knows their type. `unknown_types.waiting` says which it sees."""
    if unknown := unknown_types.waiting(probe.broker):
        seen = f"No live worker knows {_names(unknown)}, so tasks of such types wait."
        return warn(seen, "Start a worker that knows them: `dtq worker --tasks MODULE`; or cancel them.")
    return ok("No task is known to wait for a worker that knows its type.")


def unreadable(probe: Probe) -> Finding:
    """Whether documents were set aside because nobody can read them."""
    ids = probe.redis.lrange(probe.keys.unreadable, 0, NAMED - 1)
    if not ids:
        return ok("Every document that somebody has met can be read.")
    key, place, first = probe.keys.task, probe.keys.unreadable, _text(ids[0])
    number = probe.counts["unreadable"]
    named = _names(ids) + (f" and {number - len(ids)} more" if number > len(ids) else "")
    return warn(
        f"{some(number, 'document')} that nobody can read: {named}.",
        f"Look with `dtq redis GET {key}{first}`; save what you need, then `DEL {key}{first}`, and its id "
        f"leaves the list. Or mend it with SET, `LREM {place} 0 {first}`, and put the id where it belongs.",
    )


def gateway(probe: Probe) -> Finding:
    """Whether the gateway answers, and whether it asks for API keys."""
    with Client(gateway_url(probe.settings), api_key="") as client:
        try:
            seen = f"{client.url} is {client.health()['status']}"
            client.list(limit=1)
        except NoGatewayError as error:
            return unknown(str(error), "Never mind if it runs on another machine.")
        except ApiError as error:
            if error.status != 401:
                return fail(f"{client.url}: {error}", "Read the gateway's log.")
            return ok(f"{seen}, and asks for API keys.")
    return ok(f"{seen}, and asks nobody for an API key.")


def _next_in_line(probe: Probe) -> Stored | None:
    k = probe.keys
    ids = [probe.redis.lindex(queue, -1) for queue in (k.pending_high, k.pending)]
    found = _read(probe, [task_id for task_id in ids if task_id])
    return found[0] if found else None


def _places(probe: Probe) -> dict[str, tuple[set[str], Any]]:
    """Key -> the statuses that its tasks may have, and the command that reads it."""
    k, lists, zsets = probe.keys, probe.redis.lrange, probe.redis.zrange
    return {
        k.pending: ({"pending"}, lists),
        k.pending_high: ({"pending"}, lists),
        k.parked: ({"pending"}, lambda *some: [member[PARKED_ID:] for member in zsets(*some)]),
        k.dead_letter: ({"failed"}, lists),
        k.processing: ({"processing"}, zsets),
        k.delayed: ({"retrying", "scheduled"}, zsets),
        k.waiting: ({"waiting"}, zsets),
    }


def _astray(probe: Probe) -> set[str]:
    """A sentence for each id in a place where it should not be, from a sample."""
    found = set[str]()
    for place, (right, read) in _places(probe).items():
        ids = [*read(place, 0, SAMPLE - 1), *read(place, -SAMPLE, -1)]
        status = {task.id: str(task.status) for task in _read(probe, ids)}
        for task_id in set(map(_text, ids)):
            if (said := status.get(task_id)) not in right:
                found.add(f"{task_id} in {place} " + (f"is {said}" if said else "has no document"))
    return found


def _homeless(probe: Probe) -> set[str]:
    """A sentence for each task that is not finished and in no place, from a sample."""
    start = probe.keys.task.encode()
    keys = (key for key in islice(probe.redis.scan_iter(count=1000), SCANNED) if key.startswith(start))
    tasks = _read(probe, [key.removeprefix(start) for key in islice(keys, 2 * SAMPLE)])
    homes = dict[str, set[bytes]]()  # status -> ids; tasks of a place that is too long are not judged
    for place, (right, read) in _places(probe).items():
        ids = read(place, 0, SCANNED)
        homes |= {status: homes.get(status, set()) | set(ids) for status in right}
        if len(ids) > SCANNED:
            tasks = [task for task in tasks if task.status not in right]
    return {
        f"{task.id} is {task.status} and nowhere"
        for task in tasks
        if task.status in homes and task.id.encode() not in homes[task.status]
    }


def _read(probe: Probe, ids: list[bytes]) -> list[Stored]:
    return probe.broker.get_many(list(map(_text, ids)))


def _text(task_id: bytes) -> str:
    """An id that Redis has. One that somebody wrote by hand may be no text: no document belongs to it."""
    return task_id.decode(errors="replace")


def _names(ids: list[str] | list[bytes]) -> str:
    names = [_text(one) if isinstance(one, bytes) else one for one in ids]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


CHECKS: tuple[Check, ...] = (
    settings, workers, leases, pending, types, places, waiting, dead_letter, unreadable, gateway,
)  # fmt: skip
