"""MONITOR as a frame: it ends by itself, and tells what scripts do from what clients ask for."""

from pathlib import Path

import pytest
import redis

from dtq.lab.witness.monitor import Commands, monitor
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests import steps


def test_every_command_of_the_block_is_seen_in_order_and_none_after_it(broker: Broker) -> None:
    broker.redis.set("before", 1)
    with monitor(broker) as commands:
        for n in range(200):
            broker.redis.set(f"key-{n}", n)
    broker.redis.set("after", 1)

    frame = commands.frame
    assert list(frame["command"]) == ["SET"] * 200
    assert list(frame["keys"]) == [f"key-{n}" for n in range(200)]
    assert list(frame["arguments"]) == [str(n) for n in range(200)]
    assert frame["ms"].is_monotonic_increasing
    assert frame["ms"].iloc[0] == 0


def test_what_a_script_does_is_marked_and_has_its_name(broker: Broker) -> None:
    steps.run(broker, steps.submit(broker))  # the server knows the scripts now
    with monitor(broker) as commands:
        task_id = steps.submit(broker)

    frame = commands.frame
    call, inside = frame.iloc[0], frame.iloc[1:]
    assert (call["where"], call["command"], call["script"]) == ("client", "EVALSHA", "submit")
    assert call["keys"] == broker.keys.pending
    assert set(inside["where"]) == {"lua"}
    assert set(inside["script"]) == {"submit"}
    assert set(inside["client"]) == {call["client"]}
    stored = inside[inside["command"] == "SET"].iloc[0]
    assert stored["keys"] == broker.keys.task + task_id
    assert len(stored["arguments"]) == 60
    assert stored["arguments"].endswith("…")
    pushed = inside[inside["command"] == "LPUSH"].iloc[0]
    assert (pushed["keys"], pushed["arguments"]) == (broker.keys.pending, task_id)


def test_a_command_after_a_script_is_not_the_scripts(broker: Broker) -> None:
    steps.submit(broker)
    with monitor(broker) as commands:
        steps.submit(broker)
        broker.redis.llen(broker.keys.pending)

    last = commands.frame.iloc[-1]
    assert (last["where"], last["script"], last["command"]) == ("client", "", "LLEN")


def test_a_script_that_is_sent_as_text_has_its_name_too(broker: Broker) -> None:
    broker.redis.script_flush()
    with monitor(broker) as commands:
        steps.submit(broker)

    calls = commands.frame[commands.frame["where"] == "client"]
    assert list(calls["command"]) == ["EVALSHA", "EVAL"]
    assert set(calls["script"]) == {"submit"}


def test_clients_are_named_where_they_have_a_name(redis_url: str) -> None:
    named = redis.Redis.from_url(redis_url, client_name="worker-7")
    plain = redis.Redis.from_url(redis_url)
    with named, plain, monitor(plain) as commands:
        named.get("a")
        plain.get("b")

    assert commands.frame["client"].iloc[0] == "worker-7"
    assert commands.frame["client"].iloc[1].startswith("127.0.0.1:")


def test_arguments_come_without_escapes_and_several_keys_are_told_from_values(broker: Broker) -> None:
    awkward = 'a "quoted"\nline \\ ünï'
    with monitor(broker) as commands:
        broker.redis.mset({"one": awkward, "two": "2"})
        broker.redis.publish("news", "x")

    both, news = commands.frame.iloc[0], commands.frame.iloc[1]
    assert (both["keys"], both["arguments"]) == ("one two", f"{awkward} 2")
    assert (news["keys"], news["arguments"]) == ("", "news x")


def test_nothing_happened(broker: Broker) -> None:
    with monitor(broker) as commands:
        pass

    assert len(commands.frame) == 0
    assert list(commands.frame.columns) == ["ms", "where", "client", "script", "command", "keys", "arguments"]


def test_it_ends_when_the_block_raises(broker: Broker) -> None:
    seen = []

    def watch() -> None:
        with monitor(broker) as commands:
            seen.append(commands)
            broker.redis.lpush(broker.keys.pending)  # without a value

    with pytest.raises(redis.ResponseError):
        watch()
    assert seen[0].frame.empty, "what was refused was not done"
    assert "monitor" not in {peer["cmd"] for peer in broker.redis.client_list()}


def test_a_server_that_goes_away_in_the_block_is_an_error(tmp_path: Path) -> None:
    def watch(server: RedisServer, broker: Broker) -> None:
        with monitor(broker):
            server.stop()
            server.start()

    with RedisServer(tmp_path) as server:
        broker = Broker(server.url)
        with pytest.raises(redis.ConnectionError):
            watch(server, broker)
        broker.close()


def test_a_line_that_is_no_command_is_refused() -> None:
    with pytest.raises(ValueError, match="MONITOR said 'OK', which is not a command"):
        Commands({}, {}).add("OK")
