"""Shows dtq's own code in the notebook that explains it. The code is read when the notebook runs.

`show` puts a piece of source under a link to its file; `calls` runs something and lists the functions of dtq
that were called.
"""

import inspect
import itertools
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from IPython.core import display_functions

from dtq.queue.scripts import Scripts

display: Any = display_functions.display  # it has no types
DTQ = Path(__file__).parents[2]
LAB = DTQ / "lab"
CLOSERS = ("end", ")", "]", "}", "else", "elif", "except", "finally")  # lines that belong to the block above


class Excerpt(NamedTuple):
    """A piece of source: a name for it, its file, the number of its first line, and the text."""

    name: str
    path: Path
    line: int
    text: str

    def __repr__(self) -> str:
        return f"{self.name}, line {self.line}\n\n{self.text}"

    def _repr_markdown_(self) -> str:
        language = self.path.suffix.removeprefix(".").replace("py", "python")
        target = Path(os.path.relpath(self.path)).as_posix()
        return f"[{self.name}]({target}), line {self.line}\n\n```{language}\n{self.text}\n```\n"


def excerpt(thing: Any, first: str = "", last: str = "") -> Excerpt:
    """A piece of dtq's source. Arguments and errors are those of `show`."""
    if isinstance(thing, str):
        path, start = DTQ / "queue/lua" / thing, 1
        name, lines = f"dtq/queue/lua/{thing}", path.read_text(encoding="utf-8").splitlines()
    else:
        code = inspect.unwrap(thing)
        path, name = Path(inspect.getfile(code)), f"{code.__module__}.{code.__qualname__}"
        found, start = inspect.getsourcelines(code)
        lines = "".join(found).splitlines()
    if first:
        skipped, lines = _block(name, lines, first, last)
        start += skipped
    return Excerpt(name, path, start, textwrap.dedent("\n".join(lines)).rstrip())


def show(thing: Any, first: str = "", last: str = "") -> None:
    """Shows a piece of dtq's source, under a link to its file.

    Args:
        thing: a function, a method or a class, or a Lua script by its name, as "claim.lua".
        first: how the first line begins, to show only a part: the block that this line opens.
        last: how the last line begins, to end the part elsewhere than that block does.

    Raises:
        LookupError: no line begins like this (any more).
    """
    display(excerpt(thing, first, last))


def _block(name: str, lines: list[str], first: str, last: str) -> tuple[int, list[str]]:
    """The number of lines before the wanted ones, and the wanted ones."""
    start = _beginning(name, lines, 0, first)
    if last:
        return start, lines[start : _beginning(name, lines, start, last) + 1]
    depth = _depth(lines[start])

    def inside(line: str) -> bool:
        deeper = not line or _depth(line) > depth
        return deeper or (_depth(line) == depth and line.strip().startswith(CLOSERS))

    return start, [lines[start], *itertools.takewhile(inside, lines[start + 1 :])]


def _beginning(name: str, lines: list[str], start: int, text: str) -> int:
    for i in range(start, len(lines)):
        if lines[i].strip().startswith(text):
            return i
    raise LookupError(f"In {name} no line begins with {text!r}.")


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


class Calls(NamedTuple):
    """What `calls` saw: what the action returned, and a (depth, function, file and line) for each call."""

    result: Any
    steps: list[tuple[int, str, str]]

    @property
    def names(self) -> list[str]:
        """The functions in the order in which they were called, such as `Broker.submit`, and `submit.lua`."""
        return [name for _, name, _ in self.steps]

    def __repr__(self) -> str:
        rows = [("   " * depth + name, where) for depth, name, where in self.steps]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:{width}}   {where}" for name, where in rows)


def calls(action: Callable[[], Any]) -> Calls:
    """Runs something in this process and notes which functions of dtq are called, in this thread, and which
    Lua scripts they run. Those of `dtq.lab` do not count.

    Args:
        action: called without arguments.
    """
    steps: list[tuple[int, str, str]] = []
    stack: list[FrameType] = []  # the calls of dtq that have not returned yet
    known: list[FrameType] = []  # a generator is called once, however often it goes on

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and _is_shown(frame.f_code):
            if not any(frame is other for other in known):
                steps.append((len(stack), *_step(frame)))
            stack.append(frame)
            known.append(frame)
        elif event == "return" and stack and stack[-1] is frame:
            stack.pop()

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = action()
    finally:
        sys.setprofile(before)
    return Calls(result, steps)


def _is_shown(code: CodeType) -> bool:
    path = Path(code.co_filename)
    return DTQ in path.parents and LAB not in path.parents and not code.co_qualname.endswith(">")


def _where(code: CodeType) -> str:
    return f"{Path(code.co_filename).relative_to(DTQ.parent).as_posix()}:{code.co_firstlineno}"


def _step(frame: FrameType) -> tuple[str, str]:
    """The name of what is called, and its place. Every run of a script begins with `Scripts.__getitem__`."""
    if frame.f_code is Scripts.__getitem__.__code__:
        script = f"{frame.f_locals['transition']}.lua"
        return script, f"dtq/queue/lua/{script}"
    return frame.f_code.co_qualname, _where(frame.f_code)
