"""Calls that need Redis: method, address, and options of the test client."""

from typing import Any

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/tasks", {"json": {"type": "noop", "data": 1}}),
    ("POST", "/tasks/batch", {"json": {"tasks": [{"type": "noop", "data": 1}]}}),
    *(
        ("GET", path, {})
        for path in ("/tasks", "/tasks?ids=a", "/tasks/a", "/workers", "/dead-letter", "/health")
    ),
    *(("DELETE", path, {}) for path in ("/tasks/a", "/dead-letter", "/dead-letter/a")),
    *(("POST", path, {}) for path in ("/dead-letter/retry", "/dead-letter/a/retry")),
]
