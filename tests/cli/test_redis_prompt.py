"""Redis commands by hand, on a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dtq.cli.redis_prompt import RedisPrompt, bare_reply, readable_reply
from dtq.errors import NoServerError
from dtq.redis_server import free_port
from tests.commands import terminal
from tests.helpers import wait_until

NESTED = [b"a", [b"b", 1, None], []]


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """To look at what the prompt did."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
        client.delete("prompt:test")


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        (None, "(nil)"),
        (7, "(integer) 7"),
        (b"text", "text"),
        ("OK", "OK"),
        (b"", ""),
        ("ü".encode(), "ü"),
        (b"\xff\x00", "\\xff\x00"),
        ([], "(empty array)"),
        (NESTED, "1) a\n2) 1) b\n   2) (integer) 1\n   3) (nil)\n3) (empty array)"),
        ([b"x"] * 10, "\n".join(f"{n:>2}) x" for n in range(1, 11))),
        (redis.ResponseError("ERR no"), "(error) ERR no"),
    ],
)
def test_replies_for_people_carry_their_types(reply: Any, shown: str) -> None:
    assert readable_reply(reply) == shown


@pytest.mark.parametrize(
    ("reply", "shown"), [(None, ""), (7, "7"), (b"text", "text"), ([], ""), (NESTED, "a\nb\n1\n\n")]
)
def test_replies_for_programs_are_bare(reply: Any, shown: str) -> None:
    assert bare_reply(reply) == shown


def test_a_command_is_run_and_its_reply_printed(
    redis_url: str, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = RedisPrompt(redis_url)

    assert prompt.run(["set", "prompt:test", "two words"])
    assert prompt.run(["GET", "prompt:test"])
    assert prompt.run(["DEL", "prompt:test"])
    assert prompt.run(["GET", "prompt:test"])

    assert capsys.readouterr().out.splitlines() == ["OK", "two words", "(integer) 1", "(nil)"]


def test_a_refused_command_is_told_and_the_next_one_works(
    redis_url: str, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = RedisPrompt(redis_url, readable=False)
    client.set("prompt:test", "text")

    assert not prompt.run(["LPUSH", "prompt:test", "x"])
    assert not prompt.run(["GET"])
    assert prompt.run(["GET", "prompt:test"])

    shown = capsys.readouterr()
    assert shown.out == "text\n"
    assert [line.split()[:2] for line in shown.err.splitlines()] == [
        ["(error)", "WRONGTYPE"],
        ["(error)", "ERR"],
    ]


def test_a_server_that_does_not_answer_is_a_sentence() -> None:
    with pytest.raises(NoServerError, match=r"^Redis does not answer: "):
        RedisPrompt(f"redis://127.0.0.1:{free_port()}")


def test_a_conversation_goes_on_after_mistakes_until_ctrl_d(
    redis_url: str, client: Any, tmp_path: Path
) -> None:
    with terminal(tmp_path, "redis", REDIS_URL=redis_url) as screen:
        assert "127.0.0.1:" in screen.read_until("> ")
        screen.type('SET prompt:test "two words"\n')
        screen.read_until("OK")
        screen.type("GET 'open\n\nNONSENSE\nGET prompt:test\n")
        shown = screen.read_until("\ntwo words")
        screen.read_until("> ")
        screen.type("\x04")
        assert screen.exit_code() == 0

    assert "(error) No closing quotation" in shown
    assert "(error) ERR unknown command" in shown


@pytest.mark.parametrize("word", ["exit", "QUIT"])
def test_a_word_ends_a_conversation(redis_url: str, tmp_path: Path, word: str) -> None:
    with terminal(tmp_path, "redis", REDIS_URL=redis_url) as screen:
        screen.type(f"{word}\n")
        assert screen.exit_code() == 0


def test_monitor_shows_every_command_until_ctrl_c(redis_url: str, client: Any, tmp_path: Path) -> None:
    with terminal(tmp_path, "redis", "MONITOR", REDIS_URL=redis_url) as screen:
        screen.read_until("OK")
        client.set("prompt:test", "seen")
        assert '"prompt:test"' in screen.read_until('"seen"')
        screen.interrupt()
        assert screen.exit_code() == 0


def test_messages_are_shown_until_ctrl_c_and_the_conversation_goes_on(
    redis_url: str, client: Any, tmp_path: Path
) -> None:
    with terminal(tmp_path, "redis", REDIS_URL=redis_url) as screen:
        screen.read_until("> ")
        screen.type("SUBSCRIBE prompt:news\n")
        wait_until(lambda: client.publish("prompt:news", "hello"), what="somebody listens")
        assert "2) prompt:news" in screen.read_until("3) hello")
        screen.interrupt()
        screen.read_until("> ")
        screen.type("ECHO again\n")
        screen.read_until("\nagain")
