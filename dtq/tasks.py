"""Task types: the registry behind `@task`, and the built-in types."""

import importlib
import importlib.util
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtq.errors import ConfigError, DtqError


class PermanentError(DtqError):
    """Raised by a handler when another try is hopeless: the task goes to the dead letter at once."""


@dataclass
class Context:
    """What a handler is given beside its data.

    Args:
        task_id: id of the task.
        attempt: which attempt this is, from 1. It only grows, so an outside system can refuse a write that
            carries an older number than one it has seen: a fencing token (Kleppmann, 2016).
        work_time: seconds of simulated work that the built-in types should take.
        parents: id -> result of each task that this one depends on.
    """

    task_id: str
    attempt: int
    work_time: float = 0.0
    parents: Mapping[str, Any] = field(default_factory=dict)


Handler = Callable[[Any, Context], Any]


@dataclass(frozen=True)
class TaskType:
    """A name, the function behind it, and what differs from the settings: timeout in seconds, retries."""

    name: str
    handler: Handler
    timeout: float | None = None
    max_retries: int | None = None


registry: dict[str, TaskType] = {}


def task(
    name: str, *, timeout: float | None = None, max_retries: int | None = None
) -> Callable[[Handler], Handler]:
    """Makes a function the handler of a task type. It is called with `data` and a `Context`; what it returns
    must be JSON of at most 1 MiB and becomes the task's result.

    Args:
        name: the type as clients submit it. A second definition replaces the first.
        timeout: seconds that it may run, instead of `DTQ_TASK_TIMEOUT`.
        max_retries: retries after a failure, instead of `DTQ_MAX_RETRIES`.
    """

    def register(handler: Handler) -> Handler:
        registry[name] = TaskType(name, handler, timeout, max_retries)
        return handler

    return register


def load(module: str) -> None:
    """Imports a module of task types, so that its `@task` functions register themselves.

    Args:
        module: a dotted name (looked for in the current folder too), or the path of a `.py` file. The file
            is imported under its stem, so that other processes find its functions, as in `Pool.map`. If
            another module has this name, as with `json.py`, the file works too, but is not found by them.

    Raises:
        ConfigError: there is no such module. An error inside the module is raised as it is.
    """
    if module.endswith(".py"):
        path = Path(module).resolve()
        if not path.is_file():
            raise ConfigError(f"--tasks {module}: there is no such file.")
        _load_file(path)
        return
    unknown = ConfigError(f"--tasks {module}: no module of this name can be imported from {os.getcwd()}.")
    if not all(part.isidentifier() for part in module.split(".")):
        raise unknown
    sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise unknown from None
        raise  # the module is there, but one that it imports is not


def _load_file(path: Path) -> None:
    """Imports a file. Its folder becomes the last place where modules are looked for, so that nothing in
    there takes the place of another module.
    """
    sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem if _is_importable(path) else str(path), path)
    assert spec
    assert spec.loader
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])


def _is_importable(path: Path) -> bool:
    """Whether `import` with the file's stem would find this file."""
    importlib.invalidate_caches()  # the file may be younger than what was last seen in its folder
    try:
        spec = None if "." in path.stem else importlib.util.find_spec(path.stem)
    except ValueError:  # it is the name of a module that was not imported in the usual way
        return False
    return spec is not None and Path(spec.origin or "").resolve() == path


# -------------------------------------------------------------------- built in


MOST = 1e9  # the largest number in a payload


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(data: Any, name: str, default: float) -> float:
    """`data` itself, or its member `name`: a number from 0 to `MOST`."""
    value = data.get(name, default) if isinstance(data, dict) else default if data is None else data
    if not _is_number(value) or not 0 <= value <= MOST:
        raise PermanentError(f"{name} must be a number from 0 to {MOST:,.0f}, not {value!r:.100}.")
    return value


@task("process")
def process(data: Any, context: Context) -> Any:
    """Returns its payload, after the simulated work."""
    time.sleep(context.work_time)
    return {"processed": data}


OPERATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum, "product": math.prod, "mean": statistics.fmean, "min": min, "max": max,
}  # fmt: skip


@task("calculate")
def calculate(data: Any, context: Context) -> float:
    """`{"operation": "sum", "numbers": [1, 2, 3]}`; a plain list of numbers is added up."""
    time.sleep(context.work_time)
    request: Any = {"numbers": data} if isinstance(data, list) else data
    try:
        operation, numbers = OPERATIONS[request.get("operation", "sum")], request["numbers"]
        if not all(map(_is_number, numbers)):
            raise TypeError
        return operation(numbers)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise PermanentError(
            f'calculate wants {{"operation": "sum", "numbers": [1, 2]}}, not {data!r:.200}; '
            f"operations are {', '.join(OPERATIONS)}."
        ) from None


@task("sleep")
def sleep(data: Any, context: Context) -> float:
    """Waits for `data` seconds, or `{"seconds": 0.2}`: work that needs no CPU, such as a slow service."""
    seconds = _number(data, "seconds", 1.0)
    time.sleep(seconds)
    return seconds


@task("cpu")
def cpu(data: Any, context: Context) -> int:
    """Keeps a core busy for `data` seconds, or `{"seconds": 0.2}`; returns how many rounds it made."""
    end, rounds = time.perf_counter() + _number(data, "seconds", 0.1), 0
    while time.perf_counter() < end:
        rounds += 1
    return rounds


@task("flaky")
def flaky(data: Any, context: Context) -> str:
    """Fails in its first `{"failures": 2}` attempts, then works."""
    if context.attempt <= _number(data, "failures", 1):
        raise RuntimeError(f"attempt {context.attempt} failed, as asked")
    return f"worked at attempt {context.attempt}"


@task("fail")
def fail(data: Any, context: Context) -> None:
    """Fails each time; with `{"permanent": true}` for good."""
    if isinstance(data, dict) and data.get("permanent"):
        raise PermanentError("failed for good, as asked")
    raise RuntimeError("failed, as asked")


@task("crash")
def crash(data: Any, context: Context) -> str:
    """Kills its worker as `kill -9` would, each time, or in its first `{"times": 1}` attempts."""
    if context.attempt <= _number(data, "times", MOST):
        os.kill(os.getpid(), signal.SIGKILL)
    return f"survived attempt {context.attempt}"


@task("noop")
def noop(data: Any, context: Context) -> None:
    """Does nothing, to measure what the queue itself costs."""
