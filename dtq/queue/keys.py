"""Every Redis key of the queue: its name, its type and its meaning, in one place.

No other module spells a key, and the Lua scripts get the same names from `Keys.lua_table`. Only
`dtq.queue.broker` changes the queue's keys; those under `access:` are the gateway's. A task's id is in
exactly one of the places marked with a star, and the task's status says in which.
"""


class Keys:
    """The names of one queue's keys.

    Args:
        prefix: goes before every key, so that several queues can live on one Redis. In braces, as in
            `{team-a}:`, it also keeps all keys of a queue in one slot of a Redis Cluster.
    """

    def __init__(self, prefix: str = "") -> None:
        self.pending = prefix + "tasks:pending"  # * list: ids, LPUSH to submit, claimed from the right
        self.pending_high = prefix + "tasks:pending:high"  # * list: the same for priority high
        self.parked = prefix + "tasks:parked"  # * zset: pending tasks of types that a worker did not know
        self.processing = prefix + "tasks:processing"  # * zset: id -> when its lease ends
        self.delayed = prefix + "tasks:delayed"  # * zset: id -> when it is due (retrying or scheduled)
        self.waiting = prefix + "tasks:waiting"  # * zset: id -> when submitted; waits for its parents
        self.finished = prefix + "tasks:finished"  # * zset: id -> when it ended (completed or cancelled)
        self.dead_letter = prefix + "tasks:dead_letter"  # * list: failed ids, waiting for a human
        self.unreadable = prefix + "tasks:unreadable"  # list: ids of documents that nobody can read
        self.unsettled = prefix + "tasks:unsettled"  # set: ended tasks whose children were not all told
        self.completed = prefix + "tasks:completed"  # string: how many tasks were completed
        self.high_streak = prefix + "tasks:high_streak"  # string: high claims while a normal task waited
        self.wake = prefix + "tasks:wake"  # zset, at most one member: wakes one idle worker
        self.new = prefix + "tasks:new"  # Pub/Sub channel: each submitted id
        self.maintained = prefix + "tasks:maintained"  # string: when maintenance was done last
        self.grace = prefix + "tasks:grace"  # string that expires: Redis was away, no lease ends meanwhile
        self.workers = prefix + "workers:active"  # set: worker ids
        self.types = prefix + "workers:types"  # zset: task type -> until when a live worker knows it
        self.task_times = prefix + "metrics:task_times"  # zset: id -> seconds in the handler
        self.completed_at = prefix + "metrics:completed_at"  # zset: id -> when it was completed
        self.run_seconds = prefix + "metrics:run_seconds"  # string: sum of all task_times ever
        self.counters = prefix + "metrics:counters"  # hash: submitted, retried, recovered, stale, ...
        self.access_keys = prefix + "access:keys"  # hash: id -> an API key without its secret: JSON
        # The rest are followed by an id.
        self.task = prefix + "task:"  # string: the task as one JSON object
        self.dependencies = prefix + "dependencies:"  # set: parents that are not completed yet
        self.dependents = prefix + "dependents:"  # zset: children that are not finished; score > 0: not told
        self.worker = prefix + "worker:"  # string that expires after three missed beats: JSON
        self.rate = prefix + "access:rate:"  # list that expires: times of the last calls of a key or address
        self.session = prefix + "access:session:"  # string that expires: the API key of a login

    def lua_table(self) -> str:
        """The same names as one line of Lua: `local K = {pending='tasks:pending', …}`."""
        return "local K = {" + ", ".join(f"{name}='{key}'" for name, key in vars(self).items()) + "}\n"
