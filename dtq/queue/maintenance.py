"""Maintenance: due tasks become pending, tasks of lost workers return to the queue, old results are deleted.

Every worker and every gateway asks for it twice a second; `maintain.lua` does it for the first that asks.
"""

import logging
from typing import NamedTuple

from dtq.queue import bounds
from dtq.queue.scripts import Scripts

INTERVAL = 0.5  # seconds; a recovery may be late by two of them
log = logging.getLogger("dtq.broker")


class Maintained(NamedTuple):
    """How many tasks and workers one call of `maintain` moved."""

    due: int = 0
    recovered: int = 0
    dead: int = 0
    lost_workers: int = 0
    deleted: int = 0
    dropped: int = 0


def maintain(scripts: Scripts) -> Maintained:
    """Maintains the queue, unless another process has just done so. Goes on while there is more to do, in
    slices, so that others have their turn.
    """
    silence = max(2 * INTERVAL, scripts.settings.lease / 3)
    done = Maintained()
    for _ in range(bounds.SLICES):
        answer = scripts.run("maintain", INTERVAL, silence, bounds.SAMPLE)
        more, *moved, outlived = answer or (0, *[0] * 5, [])
        _, *dropped = scripts.run("discard", *outlived) if outlived else [0]
        if dropped:
            log.warning("%d dead tasks dropped: the dead letter is bounded", len(dropped))
        done = Maintained(*map(sum, zip(done, (*moved, len(dropped)), strict=True)))
        if not more:
            break
    return done
