"""A steady load: who was refused tries again, under the same key."""

import json
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from dtq.errors import DtqError
from dtq.lab.cluster import load as module
from dtq.lab.cluster.load import steady_load


class Gateway(ThreadingHTTPServer):
    """Refuses the first try of each key, and breaks the connection at the second."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seen: Counter[str] = Counter()
        self.bodies: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Answer(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        key = self.headers["Idempotency-Key"]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.add(f"{self.path} {json.loads(body)}")
        self.server.seen[key] += 1
        if self.server.seen[key] == 2:
            self.close_connection = True
            return
        self.send_response(503 if self.server.seen[key] == 1 else 201)
        self.send_header("Retry-After", "0.01")
        answer = json.dumps({"task_id": key}).encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(module, "AGAIN", 0.01)
    with Gateway() as gateway:
        thread = Thread(target=gateway.serve_forever, args=(0.01,))
        thread.start()
        yield gateway
        gateway.shutdown()
        thread.join()


def test_each_client_insists_until_it_is_acknowledged(gateway: Gateway) -> None:
    with steady_load(SimpleNamespace(url=gateway.url), "sleep", 0.1, every=0.01) as load:
        load.wait_for(5)
    tries = load.frame
    assert len(load.acknowledged) >= 5
    assert set(load.acknowledged) == set(gateway.seen)
    assert set(gateway.seen.values()) == {3}
    assert gateway.bodies == {"/tasks {'type': 'sleep', 'data': 0.1}"}
    for _, story in tries.groupby("number"):
        assert story["outcome"].tolist() == ["refused", "no answer", "acknowledged"]
    assert (tries["answered_at"] >= tries["sent_at"]).all()
    assert tries["answered_at"].is_monotonic_increasing
    assert tries["task_id"].notna().eq(tries["outcome"] == "acknowledged").all()


def test_waiting_for_what_never_comes_ends(gateway: Gateway) -> None:
    with (
        steady_load(SimpleNamespace(url=gateway.url), "noop", every=60) as load,
        pytest.raises(DtqError, match=r"Not within 0\.1 s: 1 more tries acknowledged"),
    ):
        load.wait_for(1, patience=0.1)
    assert load.frame.empty
