"""The `dtq` command. What a command needs is imported inside it, so that `dtq --help` is quick."""

import json
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dtq import tasks
from dtq.errors import DtqError
from dtq.observe import logs, tracing
from dtq.processes import reexec
from dtq.processes.program import dtq

if TYPE_CHECKING:
    from dtq.config import Settings
    from dtq.gateway.access import ApiKey, ApiKeys
    from dtq.queue.broker import Broker

PORT = click.IntRange(0, 65535)
PORT_OF_FIRST = 5000  # the gateway's, unless somebody chooses another
COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0)


class _Command(click.Group):
    """Shows dtq's own errors as one sentence, without a stack trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (DtqError, PermissionError) as error:
            raise click.ClickException(logs.redact(str(error))) from None


modules = click.option(
    "--tasks", "modules", multiple=True, metavar="MODULE", help="module or .py file with task types"
)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dtq")
@click.pass_context
def main(ctx: click.Context) -> None:
    """A small distributed task queue to learn from."""
    if ctx.invoked_subcommand in ("gateway", "up", "worker"):  # these act on it later
        reexec.hold()
    logs.setup(_settings())


@main.command()
@click.option("--host", help="address to listen on  [default: DTQ_HOST or 127.0.0.1]")
@click.option("--port", type=PORT, help="[default: PORT or 5000]")
def gateway(host: str | None, port: int | None) -> None:
    """Run the HTTP gateway, and an embedded Redis server if none runs."""
    from dtq.gateway.server import serve

    reexec.keep_code()
    tracing.start("gateway")
    asked = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    serve(_settings().model_copy(update=asked))


@main.command()
@click.option("--processes", default=1, show_default=True, type=COUNT, help="number of workers")
@modules
@click.option("--name", help="id of the worker  [default: worker-<random>]")
def worker(processes: int, modules: tuple[str, ...], name: str | None) -> None:
    """Run a worker, or several; then each that dies is started again."""
    from dtq.processes.supervise import keep
    from dtq.queue.broker import Broker
    from dtq.redis_server import locate
    from dtq.worker.worker import Worker

    name = name or f"worker-{secrets.token_hex(4)}"
    successor = reexec.Successor(_worker_command(name, modules))
    settings = _settings()
    broker = Broker(locate(settings), settings)
    if processes > 1:
        _load(modules)
        names = [f"{name}-{n}" for n in range(1, processes + 1)]
        keep({one: _worker_command(one, modules) for one in names}, None, _at_work(broker, names))
        return
    logs.of_worker(name)
    _load(modules)
    tracing.start(name)
    worker = Worker(broker, name)
    worker.run()
    if worker.interrupts.reload:
        successor.call()


@main.command()
@click.option("--workers", default=3, show_default=True, type=click.IntRange(min=0), help="number of workers")
@click.option("--port", type=PORT, help="port of the gateway  [default: PORT or 5000]")
@modules
def up(workers: int, port: int | None, modules: tuple[str, ...]) -> None:
    """Run everything until Ctrl-C: Redis, the gateway, workers."""
    from dtq.gateway.access import policy_to_start_with
    from dtq.gateway.server import connect, listen
    from dtq.processes.supervise import keep
    from dtq.redis_server import free_port, serve

    _load(modules)  # a module's mistake is reported here once, not by each worker again and again
    settings = _settings()
    asked = settings.port if port is None else port
    port = asked or free_port()
    listen(settings.host, port).close()  # a gateway that cannot listen would be started again and again
    with serve(settings) as url, closing(connect(url, settings)) as broker:
        policy_to_start_with(broker)  # raises where the gateway would, for the same reason
        names = _worker_names(broker, workers, port, with_port=asked not in (0, PORT_OF_FIRST))
        commands = {"gateway": dtq("gateway", "--port", str(port))}
        commands |= {name: _worker_command(name, modules) for name in names}
        click.echo(f"Redis    {logs.redact(url)}")
        click.echo(f"Gateway  http://{settings.host}:{port} (a page to watch: /dashboard)")
        click.echo(f"Workers  {', '.join(names) or 'none'}")
        click.echo("Ctrl-C ends them all.")
        keep(commands, {"REDIS_URL": url}, _at_work(broker, names))


@main.command()
@click.argument("type")
@click.argument("data", default="null")
@click.option("--priority", default="normal", show_default=True, type=click.Choice(["normal", "high"]))
@click.option("--delay", default=0.0, type=SECONDS, help="seconds before the task may start")
@click.option("--depends-on", multiple=True, metavar="ID", help="task to be completed first; repeatable")
@click.option("--max-retries", type=click.IntRange(min=0), help="retries, instead of those of the type")
@click.option("--timeout", type=SECONDS, help="seconds that the task may run, instead of those of the type")
@click.option("--wait", is_flag=True, help="wait until the task ends and print its result")
def submit(type: str, data: str, wait: bool, **options: Any) -> None:
    """Submit a task (DATA: JSON or plain text) and print its id."""
    from dtq.client import Client

    with Client() as client:
        task_id = client.submit(type, _data(data), **options)
        click.echo(task_id)
        if wait:
            task = client.wait(task_id, progress=False)
            if task.status != "completed":
                reason = f": {task.error}" if task.error else ""
                raise click.ClickException(f"The task is {task.status}{reason}.")
            click.echo(json.dumps(task.result, ensure_ascii=False))


@main.command()
@click.option("--watch", is_flag=True, help="redraw every half second until Ctrl-C")
def status(watch: bool) -> None:
    """Show health, workers, queues and the last tasks."""
    from dtq.cli import status as table

    table.watch() if watch else table.show()


@main.command()
@click.option("--tasks", "number", default=100, show_default=True, type=COUNT, help="number of tasks")
@click.option("--type", default="noop", show_default=True, help="type of the tasks")
@click.option("--data", default="null", help="payload of each task, as JSON or plain text")
@click.option(
    "--concurrency", default=8, show_default=True, type=click.IntRange(1, 32),
    help="threads that submit at the same time",
)  # fmt: skip
def stress(number: int, type: str, data: str, concurrency: int) -> None:
    """Submit many tasks at once and report how fast they were done."""
    from dtq.cli.stress import run

    sys.exit(run(number, type, _data(data), concurrency))


@main.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1)
def redis(command: tuple[str, ...]) -> None:
    """Run a Redis command on the queue's server, or open a prompt."""
    from dtq.cli.redis_prompt import RedisPrompt
    from dtq.redis_server import locate

    settings = _settings()
    prompt = RedisPrompt(locate(settings), readable=sys.stdout.isatty(), settings=settings)
    if not command:
        prompt.converse()
    elif not prompt.run(command):
        sys.exit(1)


@main.command()
def demo() -> None:
    """Kill a worker in the middle of a task: no task is lost."""
    from dtq.lab.demo import run

    sys.exit(run())


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
def doctor(as_json: bool) -> None:
    """Check Redis, the workers and the tasks, and say what to do."""
    from dtq.cli.doctor import run

    sys.exit(run(_settings(), as_json))


@main.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command()
@click.option("--name", required=True, help="name of the key, such as its owner's")
@click.option(
    "--scope", default="submit", show_default=True, type=click.Choice(["read", "submit", "admin"]),
    help="what the key may do; each scope includes those before it",
)  # fmt: skip
def create(name: str, scope: str) -> None:
    """Make a key and print it. It cannot be printed again."""
    from dtq.gateway.access import Scope

    with _api_keys() as keys:
        _show_key(*keys.create(name, Scope(scope)))


@key.command("list")
def list_keys() -> None:
    """List the keys, without their secrets."""
    with _api_keys() as keys:
        rows = [(one.id, one.name, one.scope, f"{one.created_at:%Y-%m-%d %H:%M} UTC") for one in keys.list()]
    table = [("id", "name", "scope", "created"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@key.command()
@click.argument("name_or_id")
def revoke(name_or_id: str) -> None:
    """End a key, and the logins made with it, at once."""
    with _api_keys() as keys:
        click.echo(f"The key {keys.revoke(name_or_id).name} is revoked.")


@key.command()
@click.argument("name_or_id")
def rotate(name_or_id: str) -> None:
    """Give a key a new secret and print it; the old secret ends at once."""
    with _api_keys() as keys:
        _show_key(*keys.rotate(name_or_id))


@contextmanager
def _api_keys() -> Iterator["ApiKeys"]:
    """The API keys of the queue. If no server runs, starts the embedded one: the first key is made there."""
    from redis import RedisError

    from dtq.gateway.access import ApiKeys
    from dtq.queue.broker import Broker
    from dtq.redis_server import serve

    settings = _settings()
    with serve(settings) as url, closing(Broker(url, settings)) as broker:
        try:
            yield ApiKeys(broker)
        except RedisError as error:
            raise DtqError(f"Redis cannot be used: {str(error).rstrip('.')}.") from None


def _show_key(key: "ApiKey", text: str) -> None:
    click.echo(text)
    click.echo(f"This is the key {key.name} ({key.scope}). It is not shown again: keep it well.", err=True)


def _data(text: str) -> Any:
    """The value of a JSON text; any other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _settings() -> "Settings":
    from dtq.config import load

    return load()


def _load(modules: tuple[str, ...]) -> None:
    for module in modules:
        tasks.load(module)


def _worker_command(name: str, modules: tuple[str, ...]) -> list[str]:
    return dtq("worker", "--name", name, *(word for module in modules for word in ("--tasks", module)))


def _worker_names(broker: "Broker", number: int, port: int, with_port: bool) -> list[str]:
    """worker-1, worker-2, …, or with the gateway's port, worker-5001-1, …: no two workers on one Redis server
    may have one name, so they have it beside another `dtq up`, and where somebody chose the port.
    """
    names, same_with_port = (
        [f"{prefix}-{n}" for n in range(1, number + 1)] for prefix in ("worker", f"worker-{port}")
    )
    return same_with_port if with_port or _live(broker).intersection(names) else names


def _live(broker: "Broker") -> set[str]:
    """The ids of the workers that live. A killed one, which stays registered for a while, does not count."""
    from redis import RedisError

    from dtq.processes.notes import lives

    try:
        workers = broker.workers()
    except RedisError:
        return set()
    here = socket.gethostname()
    return {worker.id for worker in workers if worker.host != here or lives(worker.pid)}


def _at_work(broker: "Broker", names: Iterable[str]) -> dict[str, Callable[[int], bool]]:
    """Name -> function that returns whether this worker has registered from the process of this id."""
    from redis import RedisError

    def registered(name: str, pid: int) -> bool:
        try:
            return (name, pid) in [(worker.id, worker.pid) for worker in broker.workers()]
        except RedisError:
            return False

    return {name: partial(registered, name) for name in names}
