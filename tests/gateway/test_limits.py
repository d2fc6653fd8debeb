"""Rate limits: who is counted, what is answered, and what happens while Redis is away."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dtq import Client
from dtq.config import load
from dtq.connection import PROTOCOL
from dtq.errors import ConfigError
from dtq.gateway import create_app
from dtq.gateway.access import ApiKeys, KeyPolicy, Scope
from dtq.gateway.server import connect
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests.commands import Program
from tests.helpers import PATIENCE, wait_until

MakeBroker = Callable[..., Broker]
LIMIT, CLIENTS, SECONDS = 20, 20, 3


@pytest.fixture
def limited(make_broker: MakeBroker) -> FlaskClient:
    """A gateway that answers three calls a day."""
    return create_app(make_broker(rate_limit="3/day")).test_client()


def bearer(text: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {text}"}}


def statuses(http: FlaskClient, n: int, path: str = "/openapi.json", **options: Any) -> list[int]:
    return [http.get(path, **options).status_code for _ in range(n)]


def limit_headers(answer: TestResponse) -> tuple[str | None, str | None]:
    return answer.headers.get("RateLimit-Policy"), answer.headers.get("RateLimit")


# ---------------------------------------------------------------- what is answered


def test_each_answer_tells_of_the_limit_and_the_last_one_when_to_come_back(limited: FlaskClient) -> None:
    for left in (2, 1, 0):
        answer = limited.get("/tasks")
        policy, state = limit_headers(answer)
        assert (answer.status_code, policy) == (200, '"3 per 1 day";q=3;w=86400')
        assert str(state).startswith(f'"3 per 1 day";r={left};t=')
        assert "Retry-After" not in answer.headers
    answer = limited.get("/tasks")
    assert answer.status_code == 429
    seconds = int(answer.headers["Retry-After"])
    assert 0 < seconds <= 86400
    assert limit_headers(answer)[1] == f'"3 per 1 day";r=0;t={seconds}'
    assert answer.get_json() == {
        "error": "Too many calls: the limit is 3 per 1 day for each key or address; "
        "wait as long as Retry-After says."
    }


def test_what_was_refused_is_not_done(limited: FlaskClient, broker: Broker) -> None:
    task = {"type": "noop", "data": 1}
    answers = [limited.post("/tasks", json=task).status_code for _ in range(5)]
    assert answers == [201, 201, 201, 429, 429]
    assert broker.counts()["pending"] == 3


def test_a_batch_is_one_call(limited: FlaskClient, broker: Broker) -> None:
    batch = {"tasks": [{"type": "noop", "data": i} for i in range(1000)]}
    assert [limited.post("/tasks/batch", json=batch).status_code for _ in range(4)] == [201] * 3 + [429]
    assert broker.counts()["pending"] == 3000


def test_of_several_limits_each_holds(make_broker: MakeBroker) -> None:
    http = create_app(make_broker(rate_limit="2/hour; 3/day")).test_client()
    answer = http.get("/tasks")
    assert limit_headers(answer)[0] == '"2 per 1 hour";q=2;w=3600, "3 per 1 day";q=3;w=86400'
    assert statuses(http, 2) == [200, 429]


def test_the_contract_knows_of_it(http: FlaskClient) -> None:
    paths = http.get("/openapi.json").get_json()["paths"]
    free = [path for path, about in paths.items() if "429" not in next(iter(about.values()))["responses"]]
    assert free == ["/health"]
    assert "Retry-After" in paths["/tasks"]["post"]["responses"]["429"]["headers"]


# ---------------------------------------------------------------- who is counted


def test_addresses_are_counted_each_for_itself_whatever_they_claim(limited: FlaskClient) -> None:
    def ask(address: str, claimed: str) -> int:
        at = {"REMOTE_ADDR": address}
        return limited.get("/tasks", environ_base=at, headers={"X-Forwarded-For": claimed}).status_code

    assert [ask("10.0.0.1", f"10.0.1.{i}") for i in range(4)] == [200, 200, 200, 429]
    assert ask("10.0.0.2", "10.0.0.1") == 200


def test_a_key_is_counted_wherever_it_is_shown(limited: FlaskClient, broker: Broker) -> None:
    _, ann = ApiKeys(broker).create("ann", Scope.ADMIN)
    _, bob = ApiKeys(broker).create("bob", Scope.ADMIN)
    for i in range(3):
        place = {"REMOTE_ADDR": f"10.0.0.{i}"}
        assert limited.get("/tasks", environ_base=place, **bearer(ann)).status_code == 200
    assert statuses(limited, 1, **bearer(ann)) == [429]
    assert statuses(limited, 3, **bearer(bob)) == [200] * 3
    assert statuses(limited, 3) == [200] * 3, "the address has a count of its own"


def test_who_tries_keys_out_is_counted_by_address(limited: FlaskClient) -> None:
    tries = [limited.get("/tasks", **bearer(f"dtq_0000000{i}_x")).status_code for i in range(5)]
    assert tries == [401, 401, 401, 429, 429]


def test_no_address_is_a_way_around(limited: FlaskClient) -> None:
    assert statuses(limited, 4, "/no/such/call", **bearer("dtq_00000000_x"))[-1] == 429
    assert limited.post("/login", data={"key": "dtq_00000000_x"}).status_code == 429


def test_health_and_the_files_of_the_dashboard_are_free(limited: FlaskClient) -> None:
    assert statuses(limited, 4)[-1] == 429
    assert statuses(limited, 5, "/health") == [200] * 5
    with limited.get("/dashboard/dashboard.js") as file:
        assert file.status_code == 200
    assert limit_headers(limited.get("/health")) == (None, None)


def test_all_gateways_of_a_queue_count_together_and_not_with_another(
    make_broker: MakeBroker, redis_url: str, limited: FlaskClient
) -> None:
    second = create_app(make_broker(rate_limit="3/day")).test_client()
    assert statuses(limited, 2) + statuses(second, 2) == [200, 200, 200, 429]
    settings = make_broker().settings.model_copy(
        update={"rate_limit": "3/day", "key_prefix": f"{{{uuid.uuid4()}}}:"}
    )
    with closing(Broker(redis_url, settings)) as other:
        assert statuses(create_app(other).test_client(), 1) == [200]


def test_counts_do_not_stay_in_redis(limited: FlaskClient, broker: Broker) -> None:
    limited.get("/tasks")
    (key,) = broker.redis.keys(broker.keys.rate + "*")
    assert 0 < broker.redis.ttl(key) <= 86400


# ---------------------------------------------------------------- the setting


@pytest.mark.parametrize(
    ("rate_limit", "policy", "header"),
    [
        (None, KeyPolicy.OPTIONAL, None),
        (None, KeyPolicy.OFF, None),
        (None, KeyPolicy.REQUIRED, '"50 per 1 second";q=50;w=1'),
        ("off", KeyPolicy.REQUIRED, None),
        ("7/minute", KeyPolicy.REQUIRED, '"7 per 1 minute";q=7;w=60'),
        ("7 per 2 hours", KeyPolicy.OPTIONAL, '"7 per 2 hour";q=7;w=7200'),
    ],
)
def test_the_limit(
    rate_limit: str | None, policy: KeyPolicy, header: str | None, make_broker: MakeBroker
) -> None:
    app = create_app(make_broker(rate_limit=rate_limit), policy)
    assert limit_headers(app.test_client().get("/tasks"))[0] == header


@pytest.mark.parametrize("text", ["fast", "50", "0/second", "-1/second", "50/fortnight", "50/second;", "5/s"])
def test_a_limit_that_makes_no_sense_is_told_at_the_start(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTQ_RATE_LIMIT", text)
    with pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value) == (
        f"DTQ_RATE_LIMIT={text!r} cannot be used: it must be like 50/second, several like "
        "50/second;1000/hour, or off."
    )


# ---------------------------------------------------------------- while Redis is away


@pytest.fixture
def away(own_redis: RedisServer, make_broker: MakeBroker) -> Iterator[Callable[[str], FlaskClient]]:
    """Makes gateways on `own_redis` that do as they are told while it is away."""
    brokers: list[Broker] = []

    def make(word: str) -> FlaskClient:
        update = {"rate_limit": "3/day", "rate_limit_away": word, "key_prefix": ""}
        brokers.append(connect(own_redis.url, make_broker().settings.model_copy(update=update)))
        return create_app(brokers[-1]).test_client()

    yield make
    for broker in brokers:
        broker.close()


@pytest.mark.parametrize(
    ("word", "expected"),
    [("local", [200] * 3 + [429] * 2), ("refuse", [503] * 5), ("allow", [200] * 5)],
)
def test_while_redis_is_away(
    word: str,
    expected: list[int],
    away: Callable[[str], FlaskClient],
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    http = away(word)
    assert statuses(http, 2) == [200] * 2
    own_redis.stop()
    assert statuses(http, 5) == expected
    assert statuses(http, 2, "/health") == [503] * 2
    own_redis.start()
    assert statuses(http, 2) == [200, 429], "Redis kept the count, and it counts again at once"
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split(",")[0].split(" after")[0] for line in lines] == ["Redis is away", "Redis is back"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [("local", [200] * 3 + [429] * 2), ("refuse", [503] * 5), ("allow", [200] * 5)],
)
def test_a_full_redis_cannot_count_either(
    word: str, expected: list[int], away: Callable[[str], FlaskClient], own_redis: RedisServer
) -> None:
    http = away(word)
    with redis.Redis.from_url(own_redis.url, protocol=PROTOCOL) as client:
        client.config_set("maxmemory", 1)
        assert statuses(http, 5, "/tasks") == expected
        client.config_set("maxmemory", 0)
    assert statuses(http, 1) == [200]


# ---------------------------------------------------------------- real gateways, real clients


@pytest.fixture
def gateways(tmp_path: Path, redis_url: str, broker: Broker) -> Iterator[Callable[[int, str], list[str]]]:
    """Starts gateways on the queue of `broker` that need keys and have this limit; returns addresses."""
    started: list[Program] = []

    def start(n: int, limit: str) -> list[str]:
        shared = {"REDIS_URL": redis_url, "DTQ_KEY_PREFIX": broker.settings.key_prefix, "PORT": "0"}
        for i in range(n):
            (folder := tmp_path / f"gateway-{i}").mkdir()
            environment = shared | {"DTQ_AUTH": "required", "DTQ_RATE_LIMIT": limit}
            started.append(Program(folder, "gateway", **environment))
        return [gateway.url() for gateway in started]

    yield start
    for gateway in started:
        gateway.close()


class Sender:
    """A client that submits one task after the other. Where one is refused, it sends the same again.

    Args:
        url: its gateway.
        text: its key.
        seen: notes an answer, and says whether to go on.
    """

    def __init__(self, url: str, text: str, seen: Callable[[requests.Response], bool]) -> None:
        self._url, self._seen = f"{url}/tasks", seen
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {text}"

    def run(self) -> None:
        key, more, task = "", True, {"type": "noop", "data": 1}
        while more:
            key = key or str(uuid.uuid4())
            answer = self._session.post(
                self._url, json=task, headers={"Idempotency-Key": key}, timeout=PATIENCE
            )
            key = key if answer.status_code == 429 else ""
            more = self._seen(answer)
            time.sleep(0.02)  # else they take the processor from the gateways


def test_three_gateways_keep_one_limit_for_twenty_clients_of_a_key(
    gateways: Callable[[int, str], list[str]], broker: Broker
) -> None:
    _, text = ApiKeys(broker).create("ci", Scope.SUBMIT)
    urls = gateways(3, f"{LIMIT}/second")
    answers: list[requests.Response] = []
    lock, began = threading.Lock(), time.monotonic()

    def seen(answer: requests.Response) -> bool:
        with lock:
            answers.append(answer)
            refused = sum(answer.status_code == 429 for answer in answers)
            now = time.monotonic()
            return now < began + SECONDS or (refused < CLIENTS and now < began + PATIENCE)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda i: Sender(urls[i % 3], text, seen).run(), range(CLIENTS)))
    took = time.monotonic() - began

    accepted = [answer.json()["task_id"] for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(accepted) + len(refused) == len(answers)
    assert LIMIT <= len(accepted) <= LIMIT * (took + 1)
    assert len(refused) >= CLIENTS
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    stored = [task_id.decode() for task_id in broker.redis.lrange(broker.keys.pending, 0, -1)]
    assert sorted(stored) == sorted(accepted), "each once, and nothing else"


def test_the_client_waits_as_it_is_told(gateways: Callable[[int, str], list[str]], broker: Broker) -> None:
    _, text = ApiKeys(broker).create("ci", Scope.SUBMIT)
    (url,) = gateways(1, "2/second")
    with Client(url, api_key=text) as client:
        ids = [client.submit("noop", i) for i in range(5)]
    assert len(set(ids)) == 5
    wait_until(lambda: broker.counts()["pending"] == 5)
