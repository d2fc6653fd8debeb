"""How much one script may do. Redis does one thing at a time: a script that took long would stop everybody.

| script | its bound |
|---|---|
| submit | `TASKS` tasks; `PARENTS` parents of each, read once, without payload; the gateway takes 1 MiB |
| claim, complete, fail, release, heartbeat | the tasks that one worker holds, `DTQ_PREFETCH_MAX` |
| cancel | one task, one search through its queue; `WORK` for the tasks that depend on it |
| requeue, discard | `WORK`, one search through the dead letter for each id |
| maintain | `WORK` for each kind of work, `SAMPLE` ids of each place |
| set_aside | `SET_ASIDE` ids, a search through each list for each |

What is more than `WORK` is left: `maintain` goes on with it, in slices, and other commands come in between.
"""

TASKS = 1000
PARENTS = 1000  # of one task
WORK = 500  # documents and links; each 32 KiB of a document count like one more. About 10 ms
SAMPLE = 100
SLICES = 10  # calls of `maintain` in a row, at most, while there is more to do
SET_ASIDE = 10
