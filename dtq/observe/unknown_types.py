"""Types that no live worker knows. Their tasks are accepted, and wait until a worker comes that does."""

from collections.abc import Iterable, Sequence

from dtq.queue.broker import PARKED_ID, Broker

NAMED = 10  # types in a sentence
TYPES = 20  # parked types that are looked at
OF_TYPE = 40  # characters that say which type it is, at the start of a member of `Keys.parked`


def warning(broker: Broker, types: Iterable[str]) -> str:
    """A sentence for whoever submits tasks of these types; "" if live workers know them all, or no worker
    lives: then all tasks wait, as `/health` says.
    """
    if not (unknown := broker.unknown_types(types)):
        return ""
    known = broker.redis.zrange(broker.keys.types, 0, NAMED)
    ours = sorted(name.decode(errors="replace") for name in known)
    return (
        f"No live worker knows {_named(unknown)}, so these tasks wait for one that does; "
        f"known are {_named(ours)}."
    )


def waiting(broker: Broker) -> list[str]:
    """Types of pending tasks that a worker met and that no live worker knows, in alphabetical order.

    Looks at one task of each type, of 20 types at most: the parked tasks are sorted by type, so that the next
    type is found at once, however many tasks there are of the last one. A type is not among them before a
    worker has met its first task; if no worker lives, none is.
    """
    found, start = list[bytes](), b"-"
    while len(found) < TYPES:
        with broker.redis.pipeline(transaction=False) as pipe:
            [first] = pipe.zrangebylex(broker.keys.parked, start, b"+", 0, 1).execute()
        if not first:
            break
        found.append(first[0][PARKED_ID:])
        start = b"(" + first[0][:OF_TYPE] + b"\xff"  # behind all members of this type
    return broker.unknown_types(task.type for task in broker.headers(found))


def _named(types: Sequence[str]) -> str:
    return ", ".join(types[:NAMED]) + (" and others" if len(types) > NAMED else "")
