"""A gateway that is asked to end: who was heard gets an answer, nobody else is let in."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dtq.queue.broker import Broker
from tests.commands import Program
from tests.helpers import PATIENCE, wait_until

LARGE = 20_000_000  # bytes: no socket's buffer takes that many at once
SLOW = """
import time
from pathlib import Path
from dtq.gateway import server

create_app = server.create_app

def with_slow_calls(*arguments, **options):
    app = create_app(*arguments, **options)

    def slow(number):
        Path(f"heard-{number}").touch()
        while not Path("go").exists():
            time.sleep(0.01)
        return f"answer {number}"

    app.add_url_rule("/slow/<number>", "slow", slow)
    app.add_url_rule("/large", "large", lambda: "x" * LARGE)
    return app

server.create_app = with_slow_calls
from dtq.cli.commands import main
main()
""".replace("LARGE", str(LARGE))


class SlowGateway(Program):
    """A gateway with calls that take until a file `go` is there, and one with a large answer."""

    def __init__(self, folder: Path, redis_url: str, prefix: str) -> None:
        variables = {"REDIS_URL": redis_url, "DTQ_KEY_PREFIX": prefix}
        super().__init__(folder, "gateway", "--port", "0", code=SLOW, **variables)

    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url())
        return str(parts.hostname), int(parts.port or 0)

    def heard(self, number: int) -> bool:
        return (self.folder / f"heard-{number}").exists()

    def refuses(self) -> bool:
        """Whether it takes no new connection any more."""
        try:
            socket.create_connection(self._known).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # just now
            return False
        return False

    def ask_to_end(self) -> None:
        """Returns when nobody new is let in."""
        self._known = self.address()
        self.signal(signal.SIGTERM)
        wait_until(self.refuses, what="it takes no new connection")


@pytest.fixture
def gateway(tmp_path: Path, redis_url: str, broker: Broker) -> Iterator[SlowGateway]:
    gateway = SlowGateway(tmp_path, redis_url, broker.settings.key_prefix)
    yield gateway
    gateway.close()


def received(connection: socket.socket) -> bytes:
    """All that comes until its other end is closed."""
    chunks = []
    while chunk := connection.recv(2**20):
        chunks.append(chunk)
    return b"".join(chunks)


def test_requests_that_run_or_wait_get_their_answers(gateway: SlowGateway, tmp_path: Path) -> None:
    n = 24  # more than it has threads
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(gateway.address())) for _ in range(n)]
        for number, connection in enumerate(connections):
            connection.sendall(b"GET /slow/%d HTTP/1.0\r\n\r\n" % number)
        wait_until(lambda: sum(map(gateway.heard, range(n))) == 16, what="all its threads are busy")
        gateway.ask_to_end()
        (tmp_path / "go").touch()
        for number, connection in enumerate(connections):
            assert received(connection).endswith(b"answer %d" % number)
    assert gateway.process.wait(PATIENCE) == 0
    assert "Traceback" not in gateway.log.read_text()


def test_a_request_that_is_still_being_sent_is_answered(gateway: SlowGateway, broker: Broker) -> None:
    body = b'{"type": "noop", "data": "half and half"}'
    head = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(gateway.address()) as connection:
        connection.sendall(head % len(body) + body[:10])
        gateway.ask_to_end()
        connection.sendall(body[10:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 ")
    assert gateway.process.wait(PATIENCE) == 0
    (task,) = broker.tasks()
    assert bytes(task.data) == b'"half and half"'


def test_an_answer_of_any_length_arrives_as_a_whole(gateway: SlowGateway) -> None:
    with socket.create_connection(gateway.address()) as connection:
        connection.sendall(b"GET /large HTTP/1.0\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.0 200 ")
        gateway.ask_to_end()
        assert received(connection).endswith(b"x" * (LARGE - 1000))
    assert gateway.process.wait(PATIENCE) == 0


def test_who_only_keeps_a_connection_open_is_not_waited_for(gateway: SlowGateway) -> None:
    with socket.create_connection(gateway.address()) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        gateway.ask_to_end()
        assert gateway.process.wait(PATIENCE) == 0
    assert not gateway.note.exists()


def test_a_second_signal_ends_it_although_a_request_runs(gateway: SlowGateway) -> None:
    with socket.create_connection(gateway.address()) as connection:
        connection.sendall(b"GET /slow/1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: gateway.heard(1), what="it runs")
        gateway.ask_to_end()
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE) == 0
        assert connection.recv(1000) == b"", "no answer"
