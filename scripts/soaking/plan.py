"""The plan of a soak: which faults come, in which order, after which pauses. A seed repeats its plan.

Each lane is a row of faults that come one after another. The lanes go on side by side, so that faults often
meet. They are dealt from a shuffled deck, so that all kinds of a lane come soon.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

LEASE = 2.0  # seconds, of the workers in a soak
PAUSE = (0.5, 2.5)  # seconds between two faults of a lane

# Lane -> kind of fault -> how many such cards are in the deck, and the seconds that it lasts.
LANES: dict[str, dict[str, tuple[int, tuple[float, float]]]] = {
    "redis": {
        "kill redis": (3, (0.0, 2.0)),
        "pause redis": (2, (0.3, 2 * LEASE)),
        "cut replies": (6, (0.2, 1.0)),
        "keep redis busy": (2, (1.0, 7.0)),
        "fill redis": (2, (0.5, 3.0)),
        "break documents": (3, (0.0, 0.0)),
    },
    "processes": {
        "kill worker": (6, (0.0, 0.0)),
        "pause worker": (4, (0.1, 0.8 * LEASE)),
        "pause worker beyond its lease": (2, (1.5 * LEASE, 4 * LEASE)),
        "stop worker": (4, (0.0, 0.0)),
        "kill gateway": (2, (0.0, 0.0)),
        "pause gateway": (2, (0.1, 2 * LEASE)),
        "stop gateway": (2, (0.0, 0.0)),
    },
    "people": {
        "cancel a task": (5, (0.0, 0.0)),
        "requeue dead tasks": (2, (0.0, 0.0)),
        "discard dead tasks": (2, (0.0, 0.0)),
        "complete a fan-out": (2, (0.0, 0.0)),
        "cancel a fan-out": (2, (0.0, 0.0)),
        "repeat a submission": (3, (0.0, 0.0)),
        "repeat an expired submission": (3, (0.0, 0.0)),
    },
}


class Fault(NamedTuple):
    """One step of the plan.

    Args:
        pause: seconds between the end of the fault before and this one.
        kind: what happens.
        seconds: how long it lasts.
        chance: chooses all else: which worker, which task, how many.
    """

    pause: float
    kind: str
    seconds: float
    chance: Random


def faults(seed: int, lane: str) -> Iterator[Fault]:
    """The faults of a lane, without end."""
    random, kinds = Random(f"{seed} {lane}"), LANES[lane]
    while True:
        deck = [kind for kind, (cards, _) in kinds.items() for _ in range(cards)]
        random.shuffle(deck)
        for kind in deck:
            _, limits = kinds[kind]
            yield Fault(random.uniform(*PAUSE), kind, random.uniform(*limits), Random(random.random()))
