"""The `dtq` command."""

import logging
import secrets

import click

from dtq import config, tasks
from dtq.errors import DtqError


class _Command(click.Group):
    """Shows what dtq raises on purpose as one sentence, without a stack trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DtqError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dtq")
def main() -> None:
    """A small distributed task queue to learn from."""
    logging.basicConfig(
        level=config.load().log_level,
        format="%(asctime)s.%(msecs)03d %(name)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )


@main.command()
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1, 256), help="how many workers"
)
@click.option(
    "--tasks", "modules", multiple=True, metavar="MODULE", help="module or .py file with task types"
)
@click.option("--name", help="id of the worker  [default: worker-<random>]")
def worker(processes: int, modules: tuple[str, ...], name: str | None) -> None:
    """Run a worker."""
    from dtq.broker import Broker
    from dtq.redis_server import locate
    from dtq.worker import Worker

    settings = config.load()
    for module in modules:
        tasks.load(module)
    name = name or f"worker-{secrets.token_hex(4)}"
    Worker(Broker(locate(settings), settings), name).run()


@main.command()
@click.option("--host", help="address to listen on  [default: DTQ_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: PORT or 5000]")
def gateway(host: str | None, port: int | None) -> None:
    """Run the HTTP gateway."""
    from dtq.gateway.server import serve

    asked = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    serve(config.load().model_copy(update=asked))
