"""The `dtq` command. What a command needs is imported inside it, so that `dtq --help` is quick."""

import json
import logging
import secrets
import socket
import sys
from typing import TYPE_CHECKING, Any

import click

from dtq import tasks, tracing
from dtq.errors import ConfigError, DtqError

if TYPE_CHECKING:
    from dtq.config import Settings

PORT = click.IntRange(0, 65535)
COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0)


class _Command(click.Group):
    """Shows what dtq raises on purpose as one sentence, without a stack trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (DtqError, PermissionError) as error:
            raise click.ClickException(str(error)) from None


modules = click.option(
    "--tasks", "modules", multiple=True, metavar="MODULE", help="module or .py file with task types"
)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dtq")
def main() -> None:
    """A small distributed task queue to learn from."""
    logging.basicConfig(
        level=_settings().log_level,
        format="%(asctime)s.%(msecs)03d %(name)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )


@main.command()
@click.option("--host", help="address to listen on  [default: DTQ_HOST or 127.0.0.1]")
@click.option("--port", type=PORT, help="[default: PORT or 5000]")
def gateway(host: str | None, port: int | None) -> None:
    """Run the HTTP gateway, and an embedded Redis server if none runs."""
    from dtq.gateway.server import serve

    tracing.start("gateway")
    asked = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    serve(_settings().model_copy(update=asked))


@main.command()
@click.option("--processes", default=1, show_default=True, type=COUNT, help="how many workers")
@modules
@click.option("--name", help="id of the worker  [default: worker-<random>]")
def worker(processes: int, modules: tuple[str, ...], name: str | None) -> None:
    """Run a worker, or several that are started again should they die."""
    from dtq.broker import Broker
    from dtq.redis_server import locate
    from dtq.worker import Worker

    settings = _settings()
    url = locate(settings)
    _load(modules)
    name = name or f"worker-{secrets.token_hex(4)}"
    if processes == 1:
        tracing.start(name)
        Worker(Broker(url, settings), name).run()
    else:
        from dtq.processes import keep

        keep({f"{name}-{n}": _worker_command(f"{name}-{n}", modules) for n in range(1, processes + 1)})


@main.command()
@click.option("--workers", default=3, show_default=True, type=click.IntRange(min=0), help="how many")
@click.option("--port", type=PORT, help="port of the gateway  [default: PORT or 5000]")
@modules
def up(workers: int, port: int | None, modules: tuple[str, ...]) -> None:
    """Run everything until Ctrl-C: Redis, the gateway, workers."""
    from dtq.processes import keep
    from dtq.redis_server import free_port, serve

    _load(modules)  # to hear of mistakes here, and not from each worker again and again
    settings = _settings()
    port = (settings.port if port is None else port) or free_port()
    _check_free(settings.host, port)
    names = [f"worker-{n}" for n in range(1, workers + 1)]
    commands = {"gateway": _dtq("gateway", "--port", str(port))}
    commands |= {name: _worker_command(name, modules) for name in names}
    with serve(settings) as url:
        click.echo(f"Redis    {url}")
        click.echo(f"Gateway  http://{settings.host}:{port} (a page to watch: /dashboard)")
        click.echo(f"Workers  {', '.join(names) or 'none'}")
        click.echo("Ctrl-C ends them all.")
        keep(commands, {"REDIS_URL": url})


@main.command()
@click.argument("type")
@click.argument("data", default="null")
@click.option("--priority", default="normal", show_default=True, type=click.Choice(["normal", "high"]))
@click.option("--delay", default=0.0, type=SECONDS, help="seconds before it may start")
@click.option(
    "--depends-on", multiple=True, metavar="ID", help="task that must be completed before; repeatable"
)
@click.option("--max-retries", type=click.IntRange(min=0), help="instead of its type's")
@click.option("--timeout", type=SECONDS, help="seconds that it may run, instead of its type's")
@click.option("--wait", is_flag=True, help="wait for the end, print the result")
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
@click.option("--watch", is_flag=True, help="draw it anew every half second, until Ctrl-C")
def status(watch: bool) -> None:
    """Show health, workers, queues and the last tasks."""
    from dtq.lab import status

    status.watch() if watch else status.show()


@main.command()
@click.option("--tasks", "number", default=100, show_default=True, type=COUNT, help="how many")
@click.option("--type", default="noop", show_default=True, help="of which type")
@click.option("--data", default="null", help="payload of each, as JSON or plain text")
@click.option(
    "--concurrency", default=8, show_default=True, type=click.IntRange(1, 32), help="who submit at a time"
)
def stress(number: int, type: str, data: str, concurrency: int) -> None:
    """Submit many tasks at once and tell how fast they were done."""
    from dtq.lab.stress import run

    sys.exit(run(number, type, _data(data), concurrency))


@main.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1)
def redis(command: tuple[str, ...]) -> None:
    """Run a Redis command on the queue's server, or ask for several."""
    from dtq.lab.redis_prompt import RedisPrompt
    from dtq.redis_server import locate

    prompt = RedisPrompt(locate(_settings()), readable=sys.stdout.isatty())
    if not command:
        prompt.converse()
    elif not prompt.run(command):
        sys.exit(1)


@main.command()
def demo() -> None:
    """Kill a worker in the middle of a task: see that none is lost."""
    from dtq.lab.demo import run

    sys.exit(run())


def _data(text: str) -> Any:
    """JSON as what it means, and anything else as the text it is."""
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


def _dtq(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dtq", *arguments]


def _worker_command(name: str, modules: tuple[str, ...]) -> list[str]:
    return _dtq("worker", "--name", name, *(word for module in modules for word in ("--tasks", module)))


def _check_free(host: str, port: int) -> None:
    """A gateway that cannot listen would be started again and again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        sentence = f"The gateway cannot listen on {host}, port {port} ({error.strerror})"
        raise ConfigError(f"{sentence}: choose another with --port.") from None
