"""Log lines: for people, or as JSON (`DTQ_LOG_FORMAT`), which also names the worker and task of a line.

A message stays on one line: characters that would break it are escaped. Passwords and API keys are masked in
both forms. dtq logs no payload. But a handler's error may quote one: lines for people show the error's text,
JSON lines only its class.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

from dtq.queue.task import Stored

if TYPE_CHECKING:
    from dtq.config import Settings

CLAIMED = "task %s (%s) claimed, attempt %d"  # id, type, attempt: logged just before the task runs
HUMAN = "%(asctime)s.%(msecs)03d %(name)s %(levelname)s %(message)s"
JSON = ("asctime", "levelname", "name", "message", "worker_id", "task_id", "attempt", "trace_id")
NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}
NAMES |= {"exc_info": "traceback", "stack_info": "stack"}
BREAKS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\t")}
BREAKS |= {ord("\n"): "\\n", ord("\r"): "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}
# Characters of a secret. Shorter ones are masked only in addresses: elsewhere they may be ordinary words.
SHORTEST = 8
PATTERNS = (
    re.compile(r"(://[^\s/:@]*:)\S+(?=@)"),  # redis://user:password@host
    re.compile(r"([?&]password=|\bBearer )[^\s&'\"]+"),
    re.compile(r"(\bdtq_\w{8}_)[\w-]{16,}"),  # an API key
)
Error = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_json = False
_secrets: list[str] = []
_worker: dict[str, Any] = {}  # one for all threads of a process
_task: ContextVar[dict[str, Any] | None] = ContextVar("_task", default=None)


def setup(settings: "Settings") -> None:
    """Sends all log lines of this process to stderr, in the form that the settings name."""
    global _json
    _json = settings.log_format == "json"
    given = [urlsplit(settings.redis_url or "").password, settings.api_key, settings.sentinel_password]
    texts = [one if isinstance(one, str) else one.get_secret_value() for one in given if one]
    _secrets[:] = [form for text in texts for form in {text, unquote(text)} if len(form) >= SHORTEST]
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if _json else _Human(HUMAN, "%H:%M:%S"))
    handler.addFilter(_add_fields)
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    if _json:  # also Python's own warnings and tracebacks
        logging.captureWarnings(True)
        sys.excepthook = _log_end
        threading.excepthook = lambda end: _log_end(end.exc_type, end.exc_value, end.exc_traceback)


def of_worker(name: str) -> None:
    """Adds a worker's name to all further lines of this process."""
    _worker["worker_id"] = name


@contextmanager
def about(task: Stored | None) -> Iterator[None]:
    """Adds a task's id, attempt and trace to all lines that this thread logs in the block."""
    trace_id = (task.traceparent or "")[3:35] if task else ""
    fields = {"task_id": task.id, "attempt": task.attempts, "trace_id": trace_id or None} if task else None
    token = _task.set(fields)
    try:
        yield
    finally:
        _task.reset(token)


def error_words(text: str, kind: str) -> str:
    """The text of a handler's error; if lines are JSON, only its class, `kind`."""
    return kind if _json else text


def log_stack(log: logging.Logger, sentence: str) -> None:
    """Logs an error, with the stack of the main thread."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    stack = f"The main thread is in\n{''.join(traceback.format_stack(frame)).rstrip()}"
    log.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, sentence, (), None, sinfo=stack))


def claims(text: str) -> list[str]:
    """The ids of the tasks in the claims of a worker's log, each as often as it was claimed."""
    return re.findall(r"task (\S+) \(.*\) claimed, attempt", text)


def redact(text: str) -> str:
    """The text without the secrets in it."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    for pattern in PATTERNS:
        text = pattern.sub(r"\1***", text)
    return text


def _add_fields(record: logging.LogRecord) -> bool:
    """Adds the fields of worker and task; fields that the caller gave (`extra`) stay."""
    for name, value in (_worker | (_task.get() or {})).items():
        if not hasattr(record, name):
            setattr(record, name, value)
    if record.exc_info and record.exc_info[0]:
        record.error = record.exc_info[0].__qualname__
    return True


def _log_end(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    if error and not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger("dtq").critical("ended by an error", exc_info=(kind, error, where))


class _Human(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(BREAKS)

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Json(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(JSON, rename_fields=NAMES)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return moment.replace("+00:00", "Z")

    def formatException(self, ei: Error) -> str:
        """The classes and tracebacks of an error and its causes; never their texts."""
        parts: list[str] = []
        error = ei[1]
        while error and len(parts) < 10:
            parts.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(reversed(parts))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {name: _clean(value) for name, value in log_data.items() if value is not None}


def _clean(value: Any) -> Any:
    """A value, also from a library's `extra`, in a form that JSON has, with secrets masked."""
    if isinstance(value, dict):
        return {str(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return value
    return redact(str(value))
