"""Processes that a program starts, keeps running, replaces, and never leaves behind.

`program` is the command line of one, `children` starts and ends them, `reaper` kills what a dead parent
leaves, `supervise` keeps them running, `reexec` starts a process anew.
"""
