"""Checks of the Redis server: can tasks be entrusted to it?"""

import statistics
import time

from dtq.connection import OLDEST_SERVERS, Server
from dtq.doctor.finding import Finding, fail, ok, some, unknown, warn
from dtq.doctor.probe import Check, Probe, timed

PINGS = 9
SLOW = 0.1  # seconds for a round trip
CLOCK = 2.0  # seconds by which clocks may differ
NEARLY_FULL, FULL = 0.8, 0.95  # shares of the memory limit
OF_MACHINE = 0.75  # share of the machine's memory, if there is no limit
WRITES = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
TURN_ON = "Turn the append-only file on: `CONFIG SET appendonly yes`, and the same in the server's file."


def redis(probe: Probe) -> Finding:
    """Whether the server answers, and how quickly."""
    probe.redis.ping()  # connects
    median = statistics.median(timed(probe.redis.ping)[0] for _ in range(PINGS))
    seen = f"{probe.address} answers in {1000 * median:.2g} ms."
    if median > SLOW:
        return warn(seen, "Each batch of tasks costs a round trip: bring workers and Redis close together.")
    return ok(seen)


def version(probe: Probe) -> Finding:
    """Whether the server is new enough for all scripts."""
    server = Server.of(probe.info)
    if server.too_old:
        return fail(f"{server} is too old.", f"Install {OLDEST_SERVERS}, or a newer one.")
    if not server.finishes_when_full:
        return warn(f"{server}: when its memory is full, tasks cannot even be finished.", "Install Redis 7.")
    return ok(f"{server}.")


def role(probe: Probe) -> Finding:
    """Whether the server accepts writes."""
    if probe.info["role"] == "master":
        return ok(f"It is a primary with {some(probe.info['connected_slaves'], 'replica')}.")
    return fail(
        "It is a replica, which refuses every write.",
        "Let REDIS_URL name the primary, or DTQ_REDIS_SENTINELS those who know it.",
    )


def persistence(probe: Probe) -> Finding:
    """How much the server keeps when it is stopped."""
    if failed := [name for name in WRITES if probe.info.get(name, "ok") != "ok"]:
        return fail(
            f"It could not write to its disk: {', '.join(failed)}.", "Is the disk full? Read its log."
        )
    if probe.info["aof_enabled"]:
        return _append_only(probe.config("appendfsync"))
    snapshots = probe.config("save")
    if snapshots is None:
        return unknown("No append-only file; the server hides whether it takes snapshots.", TURN_ON)
    if snapshots:
        return warn(
            f"Snapshots only (save {snapshots}): a crash loses all that came after the last one.", TURN_ON
        )
    return fail("It writes nothing to disk: when it stops, all tasks are lost.", TURN_ON)


def _append_only(when: str | None) -> Finding:
    if when == "no":
        advice = "`CONFIG SET appendfsync everysec`, and the same in the server's file."
        return warn("Append-only file, but a power cut may cost half a minute (appendfsync no).", advice)
    costs = {"always": ", and nothing is lost", "everysec": ": a power cut may cost the last second"}
    return ok(f"Append-only file{f', appendfsync {when}' if when else ''}{costs.get(when or '', '')}.")


def eviction(probe: Probe) -> Finding:
    """Whether the server deletes tasks to make room."""
    limit, policy = probe.info["maxmemory"], probe.info["maxmemory_policy"]
    advice = "`CONFIG SET maxmemory-policy noeviction`, and the same in the server's file."
    if policy == "noeviction":
        return ok("noeviction: a full server refuses new tasks and keeps those it has.")
    if not limit:
        return warn(f"{policy}: as soon as it gets a memory limit, it deletes keys at that limit.", advice)
    victims = "any key, waiting tasks too" if policy.startswith("allkeys") else "results, before their time"
    gone = some(probe.info["evicted_keys"], "key")
    return fail(f"{policy}: at the memory limit it deletes {victims}; {gone} so far.", advice)


def memory(probe: Probe) -> Finding:
    """How much memory is left."""
    used, limit = probe.info["used_memory"], probe.info["maxmemory"]
    advice = (
        "Shorten DTQ_RESULT_TTL, bound the dead letter with DTQ_DEAD_LETTER_MAX, or give Redis more memory."
    )
    if limit:
        seen = f"{_megabytes(used)} of {_megabytes(limit)} used ({used / limit:.0%})."
        if used >= FULL * limit:
            return fail(f"{seen} A full server refuses new tasks.", advice)
        return warn(seen, advice) if used >= NEARLY_FULL * limit else ok(seen)
    seen, machine = f"{_megabytes(used)} used, no limit.", probe.info.get("total_system_memory")
    if machine and used >= OF_MACHINE * machine:
        return warn(f"{seen} That is {used / machine:.0%} of the machine's memory.", advice)
    return ok(seen)


def clock(probe: Probe) -> Finding:
    """How far this machine's clock is from Redis's, by the quickest of several readings."""
    looks = []
    for _ in range(PINGS):
        before = time.time()
        took, there = timed(probe.now)
        looks.append((took, there - before - took / 2))
    took, ahead = min(looks)
    side, off, by = ("ahead of" if ahead < 0 else "behind"), abs(ahead), took / 2
    seen = f"This machine is {_duration(off)} {side} Redis, give or take {_duration(by)}."
    if off - by <= CLOCK:
        return ok(seen)
    return warn(
        f"{seen} Tasks do not suffer: all deadlines are on Redis's clock. But logs do not fit together.",
        "Have both machines set their clocks by NTP.",
    )


def _duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


CHECKS: tuple[Check, ...] = (version, role, persistence, eviction, memory, clock)
