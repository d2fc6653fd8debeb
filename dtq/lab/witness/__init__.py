"""What was seen of an experiment: frames of tasks, samples, commands and spans; a ledger and a journal, which
do not trust the queue; and the audit that holds it to its word.
"""
