"""`dtq doctor`: looks at the Redis server, the workers and the tasks, and says what is wrong and what to do.

It changes nothing, but that it sets documents aside that nobody can read, as all do who meet one. Each check
is a function, in `server` (checks of Redis) or `queue` (of workers and tasks). A check reads through a
`probe` and returns a `finding`. `dtq.cli.doctor` prints the findings.
"""

from collections.abc import Iterator

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from dtq.config import Settings
from dtq.doctor import queue, server
from dtq.doctor.finding import Finding, State, fail, unknown
from dtq.doctor.probe import Check, Probe
from dtq.errors import NoServerError
from dtq.redis_server import locate

__all__ = ["Finding", "State", "examine", "look"]


def examine(settings: Settings) -> Iterator[Finding]:
    """Yields each finding as soon as its check is done. If Redis does not answer, yields only that."""
    try:
        probe = Probe(locate(settings), settings)
    except NoServerError as error:
        yield Finding(name="redis", state=State.FAIL, seen=str(error))
        return
    try:
        yield (first := _reach(probe))
        if first.state != State.FAIL:
            yield from (look(check, probe) for check in (*server.CHECKS, *queue.CHECKS))
    finally:
        probe.close()


def look(check: Check, probe: Probe) -> Finding:
    """Runs a check. If Redis refuses an answer, the finding's state is `unknown`."""
    name = check.__name__.replace("_", " ")
    try:
        return check(probe).of(name)
    except RedisError as error:
        advice = "Ask whoever runs this server, or allow dtq's user the command."
        return unknown(f"Redis gives no answer ({error}).", advice).of(name)


def _reach(probe: Probe) -> Finding:
    try:
        return server.redis(probe).of("redis")
    except (AuthenticationError, AuthorizationError) as error:
        found = fail(
            f"{probe.address} lets nobody in without the right password ({error}).",
            "Put user and password into REDIS_URL: redis://user:password@host:6379/0.",
        )
    except RedisError as error:
        found = fail(
            f"{probe.address} does not answer ({str(error).partition(' : <')[0]}).",  # without objects
            "Does the server run, is REDIS_URL right, and does the network let you through?",
        )
    return found.of("redis")
