"""The queue: what is in Redis, and how it changes. Week 3 reads this folder first.

Read in this order: `keys` (what is in Redis), `task` (what a task is), `broker` (a method for each transition
and each query), `lua/` (the transitions, run by `scripts`), then `reports`, `worker_info`, `maintenance`.
"""
