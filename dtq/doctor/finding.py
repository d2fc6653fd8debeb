"""A finding: the result of a check."""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"  # works, and should be looked at
    FAIL = "fail"  # tasks are lost, stuck or refused, or will be
    UNKNOWN = "unknown"  # could not be seen


class Finding(msgspec.Struct, kw_only=True):
    """What a check has seen, and what to do about it."""

    name: str = ""
    state: State
    seen: str
    advice: str = ""

    def of(self, name: str) -> "Finding":
        """The same finding with the name of its check."""
        return msgspec.structs.replace(self, name=name)


def ok(seen: str) -> Finding:
    return Finding(state=State.OK, seen=seen)


def warn(seen: str, advice: str) -> Finding:
    return Finding(state=State.WARN, seen=seen, advice=advice)


def fail(seen: str, advice: str) -> Finding:
    return Finding(state=State.FAIL, seen=seen, advice=advice)


def unknown(seen: str, advice: str) -> Finding:
    return Finding(state=State.UNKNOWN, seen=seen, advice=advice)


def some(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
