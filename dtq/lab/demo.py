"""`dtq demo`: a worker dies in the middle of its task, and nothing is lost."""

from collections import Counter
from functools import partial

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.lab.witness.audits import audit

WORKERS, TASKS, SECONDS = 3, 20, 0.2
say = partial(print, flush=True)


def run() -> int:
    """Kills a worker of a cluster of its own and prints what happens.

    Returns:
        0, or 1 if a task was lost or not completed.
    """
    say(f"Starting Redis, a gateway and {WORKERS} workers.")
    with LocalCluster(WORKERS) as cluster:
        ids = cluster.client.submit_many("sleep", [SECONDS] * TASKS)
        say(f"Submitted {TASKS} tasks of {SECONDS:g} s each.")
        victim, lease = cluster.kill_worker(), cluster.settings.lease
        say(f"Killed {victim} (kill -9) in the middle of a task. The others work on. In at most")
        say(f"{lease:g} s the lease on that task ends, and it goes back to the front of the queue.")
        tasks = cluster.client.wait(ids, progress=False)
        for task in filter(lambda task: task.history, tasks):
            first = task.history[0].worker
            say(f"Task {task.id} was in the hands of {first}; {task.worker_id} {task.status} it.")
        shares = sorted(Counter(task.worker_id for task in tasks).items())
        say("Tasks done: " + ", ".join(f"{name} {number}" for name, number in shares))
        ledger = audit(ids, cluster)
        say(ledger)
    return 0 if ledger.valid and len(ledger.completed) == TASKS else 1
