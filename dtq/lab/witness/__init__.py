"""Evidence of an experiment: frames of tasks, samples, commands and spans; a ledger and a journal that do not
depend on the queue; and the audit, which compares what the queue promised with what it did.
"""
