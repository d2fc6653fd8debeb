"""The errors that dtq raises: a class for each kind, with one sentence for the person who reads it."""


class DtqError(Exception):
    """Base of every error that dtq raises on purpose; `str(error)` is a sentence that a user can act on."""


class ConfigError(DtqError):
    """A setting has a value that cannot be used."""


class NoServerError(DtqError):
    """No Redis server was found, or it could not be started."""


class Refused(DtqError):
    """A submission that cannot be stored.

    Args:
        reason: `unknown` or `cancelled` parent, or `conflict`: the id exists with other content.
        task_id: the id that is in the way.
    """

    def __init__(self, reason: str, task_id: str) -> None:
        self.reason, self.task_id = reason, task_id
        sentences = {
            "unknown": f"depends_on names {task_id}, which does not exist (any more).",
            "cancelled": f"depends_on names {task_id}, which was cancelled and will never be completed.",
            "conflict": f"task {task_id} was submitted before with other content.",
        }
        super().__init__(sentences[reason])


class NameTaken(DtqError):
    """Another live worker has this name; `instance` tells which."""

    def __init__(self, name: str, host: str, pid: int, instance: str) -> None:
        super().__init__(
            f"A worker called {name} is at work already (process {pid} on {host}): choose another --name, or "
            "wait until it is gone."
        )
        self.host, self.pid, self.instance = host, pid, instance


class NoGatewayError(DtqError):
    """No gateway answers."""


class ApiError(DtqError):
    """The gateway said no: `status` is the HTTP status, the text its reason."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class WaitTimeout(DtqError):
    """Some tasks were not done in time."""
