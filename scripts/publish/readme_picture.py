"""Draws the README's picture from a real run: `python -m scripts.publish.readme_picture FILE.svg`."""

import sys
from pathlib import Path

import pandas as pd

from dtq.lab.charts import plot
from dtq.lab.cluster.local_cluster import LocalCluster

TASKS, SECONDS = 24, 0.5


def recovery() -> tuple[pd.DataFrame, dict[str, float]]:
    """Kills one of three workers in the middle of a task.

    Returns:
        The attempts of all tasks, and when the worker was killed, in seconds since the first submission.
    """
    with LocalCluster(workers=3) as cluster:
        ids = cluster.client.submit_many("sleep", [SECONDS] * TASKS)
        cluster.client.wait(ids[3:6], progress=False)  # soon every worker is in the middle of its third task
        cluster.client.wait(ids[:6], progress=False)
        victim = cluster.busy_worker()
        cluster.kill_worker(victim)
        killed = pd.Timestamp.now("UTC")
        cluster.client.wait(ids, progress=False)
        frame = cluster.tasks_frame(ids)
    after = (killed - frame["created_at"].min()).total_seconds()
    return frame, {f"kill -9 {victim}": after}


def main(file: str) -> None:
    """Writes the picture."""
    frame, events = recovery()
    figure = plot.timeline(frame, "What becomes of a killed worker's task?", events=events)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
