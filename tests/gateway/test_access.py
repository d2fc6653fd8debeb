"""API keys: made, found, rotated and revoked, from Python and from the command line."""

import hmac
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dtq.client import Client
from dtq.errors import ApiError, ConfigError, DtqError
from dtq.gateway.access import SESSION, ApiKeys, KeyPolicy, Scope, Sessions, is_reachable
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.broker import Broker
from tests.commands import run, said, started

SHOWN_ONCE = "It is not shown again: keep it well.\n"


@pytest.fixture
def keys(broker: Broker) -> ApiKeys:
    return ApiKeys(broker)


def changed(text: str) -> str:
    """The same id with another secret."""
    return text[:-1] + ("1" if text.endswith("0") else "0")


# ---------------------------------------------------------------- who needs one


@pytest.mark.parametrize(
    ("auth", "reachable", "policy"),
    [
        ("auto", False, KeyPolicy.OPTIONAL), ("auto", True, KeyPolicy.REQUIRED),
        ("auto", None, KeyPolicy.REQUIRED), ("required", False, KeyPolicy.REQUIRED),
        ("required", True, KeyPolicy.REQUIRED), ("required", None, KeyPolicy.REQUIRED),
        ("off", False, KeyPolicy.OFF), ("off", True, KeyPolicy.OFF), ("off", None, KeyPolicy.OFF),
    ],
)  # fmt: skip
def test_the_policy_follows_from_the_setting_and_the_address(
    auth: str, reachable: bool | None, policy: KeyPolicy
) -> None:
    assert KeyPolicy.decide(auth, reachable) is policy


def test_other_machines_reach_all_but_this_machines_own_addresses() -> None:
    hosts = ["127.0.0.1", "127.1.2.3", "::1", "localhost", "", "0.0.0.0", "::", "203.0.113.1"]
    assert [is_reachable(host) for host in hosts] == [False] * 4 + [True] * 4


# ---------------------------------------------------------------- keys


def test_a_scope_includes_the_ones_before_it() -> None:
    included = {scope: [needed for needed in Scope if scope.includes(needed)] for scope in Scope}
    assert included == {
        Scope.READ: [Scope.READ],
        Scope.SUBMIT: [Scope.READ, Scope.SUBMIT],
        Scope.ADMIN: [Scope.READ, Scope.SUBMIT, Scope.ADMIN],
    }


def test_a_key_is_found_by_its_text(keys: ApiKeys) -> None:
    assert not keys.any()
    key, text = keys.create("ci", Scope.SUBMIT)
    keys.create("other", Scope.READ)
    assert keys.any()
    assert text.startswith(f"dtq_{key.id}_")
    assert len(text.rsplit("_", 1)[1]) >= 32, "at least 128 bits in hexadecimal"
    found = keys.find(text)
    assert found == key
    assert (key.name, key.scope) == ("ci", Scope.SUBMIT)


@pytest.mark.parametrize(
    "text", ["", "dtq_", "dtq__", "x" * 100_000, "dtq_ü_ü", "\udc80", "\0", "dtq_" + "0" * 57]
)
def test_what_is_no_key_is_not_found(keys: ApiKeys, text: str) -> None:
    keys.create("ci", Scope.SUBMIT)
    assert keys.find(text) is None


def test_another_secret_is_not_found(keys: ApiKeys) -> None:
    _, text = keys.create("ci", Scope.ADMIN)
    for wrong in (changed(text), text[:-1], text + "0", text.upper(), " " + text):
        assert keys.find(wrong) is None


def test_right_and_wrong_take_the_same_steps(
    keys: ApiKeys, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question to Redis and one comparison of two hashes, whatever is shown."""
    compare, seen = hmac.compare_digest, list[tuple[int, int]]()

    def counted(a: str, b: str) -> bool:
        seen.append((len(a), len(b)))
        return compare(a, b)

    def asked() -> int:
        return int(broker.redis.info("commandstats").get("cmdstat_hget", {"calls": 0})["calls"])

    _, text = keys.create("ci", Scope.SUBMIT)
    monkeypatch.setattr(hmac, "compare_digest", counted)
    for shown in (text, changed(text), "dtq_00000000_" + "0" * 48, "nonsense", ""):
        before = asked()
        found = keys.find(shown)
        assert (found is not None) == (shown == text)
        assert asked() == before + 1
        assert seen == [(64, 64)]
        seen.clear()


def test_the_secret_is_not_stored(keys: ApiKeys, broker: Broker) -> None:
    _, text = keys.create("ci", Scope.SUBMIT)
    secret = text.rsplit("_", 1)[1].encode()
    stored = broker.redis.hgetall(broker.keys.access_keys)
    assert len(stored) == 1
    assert all(secret not in value for value in stored.values())


def test_a_revoked_key_is_gone(keys: ApiKeys) -> None:
    (key, text), (other, _) = keys.create("ci", Scope.SUBMIT), keys.create("ann", Scope.READ)
    assert keys.revoke("ci") == key
    assert keys.find(text) is None
    assert keys.list() == [other]
    with pytest.raises(DtqError, match="There is no key ci"):
        keys.revoke("ci")
    assert keys.revoke(other.id) == other
    assert not keys.any()


def test_a_rotated_key_has_another_secret_and_nothing_else(keys: ApiKeys) -> None:
    key, old = keys.create("ci", Scope.SUBMIT)
    rotated, text = keys.rotate(key.id)
    assert keys.find(old) is None
    assert keys.find(text) == rotated
    assert (rotated.id, rotated.name, rotated.scope) == (key.id, "ci", Scope.SUBMIT)
    assert rotated.created_at == key.created_at
    assert keys.list() == [rotated]
    with pytest.raises(DtqError, match="There is no key ann"):
        keys.rotate("ann")


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 65, "a/b", "dtq:key"])
def test_a_name_that_no_key_can_have_is_refused(keys: ApiKeys, name: str) -> None:
    with pytest.raises(DtqError, match="cannot be a key's name"):
        keys.create(name, Scope.READ)
    assert not keys.any()


def test_of_many_who_want_one_name_one_gets_it(make_broker: Callable[..., Broker]) -> None:
    def create(broker: Broker) -> bool:
        try:
            ApiKeys(broker).create("ci", Scope.READ)
        except DtqError:
            return False
        return True

    brokers = [make_broker() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, brokers)) == [False] * 7 + [True]
    assert [key.name for key in ApiKeys(brokers[0]).list()] == ["ci"]


# ---------------------------------------------------------------- logins


def test_a_session_stands_for_its_key_until_that_changes(keys: ApiKeys, broker: Broker) -> None:
    sessions = Sessions(broker)
    (ann, _), (bob, _) = keys.create("ann", Scope.READ), keys.create("bob", Scope.READ)
    first, second, other = sessions.open(ann), sessions.open(ann), sessions.open(bob)
    assert sessions.find(first) == sessions.find(second) == ann
    sessions.close(first)
    assert (sessions.find(first), sessions.find(second)) == (None, ann)
    keys.rotate("ann")
    keys.revoke("bob")
    assert (sessions.find(second), sessions.find(other), sessions.find("")) == (None, None, None)


def test_a_session_ends_by_itself_and_its_token_is_not_stored(keys: ApiKeys, broker: Broker) -> None:
    key, _ = keys.create("ann", Scope.READ)
    token = Sessions(broker).open(key)
    (place,) = broker.redis.scan_iter(match=broker.keys.session + "*", count=1000)
    assert token.encode() not in place
    assert SESSION - 60 < broker.redis.ttl(place) <= SESSION


# ---------------------------------------------------------------- the client


def test_a_client_shows_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(workers=1, env={"DTQ_AUTH": "required"}) as cluster:
        keys = ApiKeys(cluster.broker)
        _, text = keys.create("ci", Scope.SUBMIT)
        with pytest.raises(ApiError, match=r"An API key is needed.*Set DTQ_API_KEY") as refused:
            cluster.client.workers()
        assert refused.value.status == 401
        assert "there is no API key" in cluster.logs("gateway")
        monkeypatch.setenv("DTQ_API_KEY", text)
        with Client(cluster.url) as client, Client(cluster.url, api_key="") as without:
            task = client.wait(client.submit("noop"), progress=False)
            assert (task.status, task.submitted_by) == ("completed", "ci")
            with pytest.raises(ApiError, match="scope admin; the key ci has submit") as refused:
                client.retry()
            assert refused.value.status == 403
            with pytest.raises(ApiError, match="is needed"):
                without.workers()
            keys.revoke("ci")
            with pytest.raises(ApiError, match="unknown, or it was revoked"):
                client.workers()
        assert text.rsplit("_", 1)[1] not in cluster.logs("gateway")


@pytest.mark.parametrize("text", ["dtq_x\n", "dtq x", "dtq_ü"])
def test_a_key_that_no_header_takes_is_told_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be sent") as refused:
        Client("http://127.0.0.1:5000", api_key=text)
    assert text not in str(refused.value)


# ---------------------------------------------------------------- `dtq key`


@pytest.fixture
def key(redis_url: str, broker: Broker, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `dtq key …` on this test's queue."""
    options: dict[str, Any] = {"REDIS_URL": redis_url, "DTQ_KEY_PREFIX": broker.settings.key_prefix}
    return lambda *arguments: run(tmp_path, "key", *arguments, DTQ_LOG_LEVEL="WARNING", **options)


def test_a_key_from_its_making_to_its_end(
    key: Callable[..., subprocess.CompletedProcess[str]], keys: ApiKeys
) -> None:
    made = key("create", "--name", "ci")
    found = keys.find(made.stdout.strip())
    assert found is not None
    assert (found.name, found.scope, made.returncode) == ("ci", Scope.SUBMIT, 0)
    assert made.stderr == f"This is the key ci (submit). {SHOWN_ONCE}"
    assert key("create", "--name", "ann", "--scope", "admin").returncode == 0
    head, *rows = (line.split() for line in key("list").stdout.splitlines())
    assert head == ["id", "name", "scope", "created"]
    assert [row[:3] for row in rows] == [[one.id, one.name, str(one.scope)] for one in keys.list()]
    rotated = key("rotate", "ci")
    assert (rotated.stderr, keys.find(made.stdout.strip())) == (made.stderr, None)
    assert keys.find(rotated.stdout.strip()) is not None
    assert key("revoke", found.id).stdout == "The key ci is revoked.\n"
    assert [one.name for one in keys.list()] == ["ann"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["revoke", "ci"], "Error: There is no key ci: `dtq key list` shows those that there are.\n"),
        (["rotate", "ci"], "Error: There is no key ci: `dtq key list` shows those that there are.\n"),
        (["create", "--name", "a b"], "Error: 'a b' cannot be a key's name: take 1 to 64 letters, "),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(
    key: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str], sentence: str
) -> None:
    done = key(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence)


def test_a_server_that_is_away_is_told_too(tmp_path: Path) -> None:
    done = run(tmp_path, "key", "list", REDIS_URL="redis://127.0.0.1:1/0", DTQ_LOG_LEVEL="WARNING")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Redis cannot be used: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_first_key_is_made_before_anything_runs_and_all_commands_take_it(tmp_path: Path) -> None:
    """`dtq up` for other machines: refused without a key, in one sentence; with one it asks for it."""
    world = {"DTQ_HOST": "0.0.0.0", "DTQ_LOG_LEVEL": "WARNING"}
    refused = run(tmp_path, "up", "--port", "0", **world)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: Other machines reach 0.0.0.0, and there is no API key: make one")
    assert len(refused.stderr.splitlines()) == 1
    made = run(tmp_path, "key", "create", "--name", "me", DTQ_LOG_LEVEL="WARNING")
    with started(tmp_path, "up", "--port", "0", "--workers", "1", **world) as up:
        up.url()
        assert "An API key is needed" in run(tmp_path, "submit", "noop").stderr
        shown = {"DTQ_API_KEY": made.stdout.strip()}
        assert said(tmp_path, "submit", "noop", "--wait", **shown).splitlines()[-1] == "null"
        assert "worker-1" in said(tmp_path, "status", **shown)
        assert "10 completed" in said(tmp_path, "stress", "--tasks", "10", **shown)
