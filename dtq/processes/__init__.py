"""Starts processes, keeps them running, replaces them, and leaves none behind.

`program` makes the command line of one, `children` starts and ends them, `reaper` kills what a dead parent
leaves, `supervise` keeps them running, `reexec` lets a process start itself again, `notes` tell others
where one is, `locked` makes sure that there is one of a kind.
"""
