"""A worker: claims tasks, runs their handlers, reports. Week 3 reads this folder second.

Read in this order: `worker` (its two threads), `claimed` (what it holds), `interrupts` (signals and time
limits), `results` (the border between JSON and a handler).
"""
