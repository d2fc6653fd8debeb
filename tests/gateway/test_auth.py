"""Who is let in: by the header, by the cookie of a login, and where the gateway may listen without keys."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from dtq.config import Settings
from dtq.gateway import create_app
from dtq.gateway.access import SESSION, ApiKeys, KeyPolicy, Scope
from dtq.gateway.auth import COOKIE
from dtq.gateway.server import connect
from dtq.queue.broker import Broker
from dtq.queue.reports import Failed
from dtq.queue.task import Status
from dtq.redis_server import RedisServer
from tests.commands import Program
from tests.gateway.pages import ELSEWHERE, FROM_HERE
from tests.helpers import PATIENCE, held, new_task
from tests.steps import bury, submit

NOT_READING = [
    ("POST", "/tasks", Scope.SUBMIT), ("POST", "/tasks/batch", Scope.SUBMIT),
    ("DELETE", "/tasks/t", Scope.SUBMIT), ("POST", "/dead-letter/t/retry", Scope.ADMIN),
    ("DELETE", "/dead-letter/t", Scope.ADMIN), ("POST", "/dead-letter/retry", Scope.ADMIN),
    ("DELETE", "/dead-letter", Scope.ADMIN),
]  # fmt: skip


class Door:
    """A gateway, and keys for it.

    Args:
        broker: of its queue.
        texts: keys that were made for that before.
        options: of `create_app`.
    """

    def __init__(self, broker: Broker, texts: dict[Scope, str] | None = None, **options: Any) -> None:
        self.broker, self.keys = broker, ApiKeys(broker)
        self.app = create_app(broker, **options)
        self.http = self.app.test_client()
        self.texts = texts or {scope: self.keys.create(f"key-{scope}", scope)[1] for scope in Scope}

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> TestResponse:
        """Shows a key in the header."""
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {key}"} if key is not None else {})
        answer = self.http.open(path, method=method, headers=headers, **options)
        answer.get_data()
        answer.close()  # a file that was sent
        return answer

    def login(self, scope: Scope = Scope.ADMIN, **options: Any) -> TestResponse:
        """As the form does it."""
        return self.http.post("/login", data={"key": self.texts[scope]}, **options)


@pytest.fixture
def door(broker: Broker) -> Door:
    return Door(broker, policy=KeyPolicy.REQUIRED)


@pytest.fixture
def optional(broker: Broker, door: Door) -> Door:
    """A gateway of the same queue for this machine alone, as `DTQ_AUTH=auto` has it."""
    return Door(broker, door.texts)


def session_of(http: FlaskClient) -> str:
    cookie = http.get_cookie(COOKIE)
    assert cookie is not None
    return cookie.value


# ---------------------------------------------------------------- without a key


def calls(rule: Rule) -> Iterator[tuple[str, str]]:
    path = re.sub("<.+?>", "x", rule.rule)
    yield from ((method, path) for method in rule.methods or ())


def test_without_a_key_nothing_answers_but_health(door: Door) -> None:
    rules = list(door.app.url_map.iter_rules())
    asked = [call for rule in rules for call in calls(rule)]
    assert len(asked) > len(rules) > 15
    answers = {(method, path): door.ask(method, path) for method, path in asked}
    refused = {call for call, answer in answers.items() if answer.status_code == 401}
    assert answers.keys() - refused == {(method, "/health") for method in ("GET", "HEAD", "OPTIONS")}
    assert answers["GET", "/health"].status_code == 200
    for call in refused:
        assert answers[call].headers["WWW-Authenticate"] == "Bearer", call


@pytest.mark.parametrize("path", ["/", "/nothing", "/dashboard/../keys.py", "/tasks/"])
def test_what_does_not_exist_is_not_told_either(door: Door, path: str) -> None:
    assert door.ask("GET", path).status_code == 401
    assert door.ask("GET", path, door.texts[Scope.READ]).status_code == 404


def test_who_is_refused_hears_why(door: Door) -> None:
    answer = door.ask("GET", "/tasks")
    assert answer.get_json() == {
        "error": "An API key is needed, in the header `Authorization: Bearer dtq_…`."
    }
    answer = door.ask("GET", "/tasks", door.texts[Scope.READ] + "0")
    assert answer.get_json() == {"error": "This API key is unknown, or it was revoked."}
    assert answer.headers["WWW-Authenticate"] == "Bearer error=invalid_token"


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer a b", "Bearer a=b", "Bearer \xfc", "bearer x"]
)
@pytest.mark.parametrize("policy", [KeyPolicy.REQUIRED, KeyPolicy.OPTIONAL])
def test_a_header_that_is_no_key_is_a_wrong_one(broker: Broker, header: str, policy: KeyPolicy) -> None:
    door = Door(broker, policy=policy)
    answer = door.ask("GET", "/tasks", headers={"Authorization": header})
    assert (answer.status_code, list(answer.get_json())) == (401, ["error"])


def test_other_schemes_show_no_key(door: Door, optional: Door) -> None:
    for header in ("Basic YTpi", "Basic ?", "token abc", "Digest a=b", "x"):
        assert door.ask("GET", "/tasks", headers={"Authorization": header}).status_code == 401
        assert optional.ask("GET", "/tasks", headers={"Authorization": header}).status_code == 200


def test_nothing_of_a_key_is_in_the_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    wrong = "dtq_00000000_" + "5ec2e7" * 8
    door.ask("GET", "/tasks", wrong)
    door.http.post("/login", data={"key": wrong})
    door.ask("GET", "/tasks", door.texts[Scope.READ])
    assert caplog.text.count("a wrong API key from 127.0.0.1") == 2
    assert "5ec2e7" not in caplog.text
    assert not any(text in caplog.text for text in door.texts.values())


# ---------------------------------------------------------------- with one


@pytest.mark.parametrize(("method", "path", "needed"), NOT_READING)
def test_each_call_needs_its_scope(door: Door, method: str, path: str, needed: Scope) -> None:
    for scope, text in door.texts.items():
        answer = door.ask(method, path, text)
        if scope.includes(needed):
            assert answer.status_code in (200, 404, 415), "it was looked at"
        else:
            sentence = f"This needs a key with the scope {needed}; the key key-{scope} has {scope}."
            assert (answer.status_code, answer.get_json()) == (403, {"error": sentence})


def test_the_calls_above_are_all_that_need_more_than_to_read(door: Door) -> None:
    changing = {
        (method, re.sub("<.+?>", "t", rule.rule))
        for rule in door.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }
    assert changing - {("POST", "/login"), ("POST", "/logout")} == {call[:2] for call in NOT_READING}


def test_to_read_any_key_will_do(door: Door) -> None:
    for text in door.texts.values():
        for path in (
            "/tasks",
            "/workers",
            "/stats",
            "/metrics",
            "/dead-letter",
            "/openapi.json",
            "/dashboard",
        ):
            assert door.ask("GET", path, text).status_code == 200, path


def test_who_may_only_read_changes_nothing(door: Door) -> None:
    door.broker.submit([new_task("fail", id="t")])
    door.broker.report_and_claim("worker-1", [], 1)
    door.broker.report_and_claim("worker-1", [Failed(held("t", 1), 0.1, 0.0, "failed", "broken", 0)], 0)
    before = door.broker.counts()
    assert before["dead_letter"] == 1
    task = {"type": "noop", "data": 1}
    for method, path, _ in NOT_READING:
        body = {"tasks": [task]} if path == "/tasks/batch" else task
        assert door.ask(method, path, door.texts[Scope.READ], json=body).status_code == 403
    assert door.broker.counts() == before


def test_a_task_knows_who_submitted_it(door: Door, optional: Door) -> None:
    task = {"type": "noop", "data": 1}
    text = door.texts[Scope.SUBMIT]
    answers = [
        door.ask("POST", "/tasks", text, json=task).get_json()["task_id"],
        door.ask("POST", "/tasks/batch", text, json={"tasks": [task]}).get_json()["task_ids"][0],
        optional.ask("POST", "/tasks", json=task).get_json()["task_id"],
    ]
    found = [stored.submitted_by for stored in door.broker.get_many(answers)]
    assert found == ["key-submit", "key-submit", None]
    forged = door.ask("POST", "/tasks", text, json=task | {"submitted_by": "ann"})
    assert forged.status_code == 422


@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_a_key_ends_at_once_and_at_every_gateway(
    door: Door, make_broker: Callable[..., Broker], end: str
) -> None:
    other = create_app(make_broker(), policy=KeyPolicy.REQUIRED).test_client()
    header = {"Authorization": f"Bearer {door.texts[Scope.READ]}"}
    assert door.http.get("/tasks", headers=header).status_code == 200
    assert other.get("/tasks", headers=header).status_code == 200
    getattr(door.keys, end)("key-read")
    assert door.http.get("/tasks", headers=header).status_code == 401
    assert other.get("/tasks", headers=header).status_code == 401


# ---------------------------------------------------------------- DTQ_AUTH


def test_where_keys_are_optional_a_shown_one_is_looked_at(optional: Door) -> None:
    task = {"type": "noop", "data": 1}
    assert optional.ask("POST", "/tasks", json=task).status_code == 201
    assert optional.ask("POST", "/tasks", optional.texts[Scope.SUBMIT], json=task).status_code == 201
    assert optional.ask("POST", "/tasks", optional.texts[Scope.READ], json=task).status_code == 403
    assert optional.ask("POST", "/tasks", "dtq_wrong", json=task).status_code == 401
    assert "data-read-only" not in optional.http.get("/dashboard").text


@pytest.mark.parametrize(
    ("auth", "reachable", "without", "wrong"),
    [
        ("auto", False, 200, 401), ("auto", True, 401, 401), ("required", False, 401, 401),
        ("off", False, 200, 200), ("off", True, 200, 200),
    ],
)  # fmt: skip
def test_the_setting_says_who_is_asked(
    make_broker: Callable[..., Broker], auth: str, reachable: bool, without: int, wrong: int
) -> None:
    policy = KeyPolicy.decide(auth, reachable) if reachable else None  # without one, `create_app` decides
    door = Door(make_broker(auth=auth), policy=policy)
    assert door.ask("GET", "/tasks").status_code == without
    assert door.ask("GET", "/tasks", "dtq_wrong").status_code == wrong
    assert door.ask("GET", "/tasks", door.texts[Scope.READ]).status_code == 200


# ---------------------------------------------------------------- the login


def test_who_opens_the_dashboard_is_asked_for_a_key(door: Door) -> None:
    answer = door.http.get("/dashboard")
    assert (answer.status_code, answer.mimetype) == (401, "text/html")
    assert 'action="login"' in answer.text
    policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
    nonce = policy.pop("style-src").removeprefix("'nonce-").removesuffix("'")
    assert f'<style nonce="{nonce}">' in answer.text
    assert policy == {
        "default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "frame-ancestors": "'self'",
        "form-action": "'self'",
    }  # fmt: skip
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r'(?:src|href|action)="(?!data:)([^"]*)"', answer.text) == ["login"]
    assert re.findall(r"<script|\sstyle=|\son\w+=", answer.text) == []
    assert nonce not in door.http.get("/dashboard").text, "each page has its own"


def test_a_login_lasts_until_logout(door: Door) -> None:
    answer = door.login()
    assert (answer.status_code, answer.headers["Location"]) == (303, "dashboard")
    page = door.http.get("/dashboard")
    assert page.status_code == 200
    assert "Log out" in page.text
    assert "data-read-only" not in page.text
    assert door.http.get("/tasks").status_code == 200
    kept = session_of(door.http)
    assert door.http.post("/logout").headers["Location"] == "dashboard"
    assert door.http.get_cookie(COOKIE) is None
    assert door.http.get("/dashboard").status_code == 401
    door.http.set_cookie(COOKIE, kept)
    assert door.http.get("/dashboard").status_code == 401, "the server forgot it too"


def test_the_cookie_is_kept_from_scripts_and_other_sites(door: Door) -> None:
    words = door.login().headers["Set-Cookie"].split("; ")
    assert words[0].startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", f"Max-Age={SESSION}"} <= set(words)
    assert not any(word.startswith(("Path", "Domain", "Secure")) for word in words)
    assert door.texts[Scope.ADMIN] not in words[0]
    for secure in ({"base_url": "https://localhost"}, {"headers": {"X-Forwarded-Proto": "https"}}):
        assert "Secure" in door.login(**secure).headers["Set-Cookie"].split("; ")
    gone = door.http.post("/logout").headers["Set-Cookie"]
    assert "Path" not in gone
    assert "Max-Age=0" in gone


@pytest.mark.parametrize("data", [{}, {"key": ""}, {"key": "dtq_wrong"}, {"key": "<b>"}, {"key": "\0"}])
def test_a_wrong_key_shows_the_form_again(door: Door, data: dict[str, str]) -> None:
    answer = door.http.post("/login", data=data)
    assert (answer.status_code, answer.mimetype) == (401, "text/html")
    assert '<p role="alert" id="sentence">This API key is unknown, or it was revoked.</p>' in answer.text
    assert "Set-Cookie" not in answer.headers
    assert "<b>" not in answer.text


def test_a_key_may_have_been_pasted_with_its_line_break(door: Door) -> None:
    assert door.http.post("/login", data={"key": f" {door.texts[Scope.READ]}\n"}).status_code == 303


@pytest.mark.parametrize("scope", [Scope.READ, Scope.SUBMIT])
def test_the_dashboard_offers_only_what_the_key_may_do(door: Door, scope: Scope) -> None:
    door.login(scope)
    assert "<body data-read-only>" in door.http.get("/dashboard").text
    assert door.http.delete("/dead-letter").status_code == 403


@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_a_session_ends_with_its_key(door: Door, make_broker: Callable[..., Broker], end: str) -> None:
    door.login()
    other = create_app(make_broker(), policy=KeyPolicy.REQUIRED).test_client()
    other.set_cookie(COOKIE, session_of(door.http))
    assert (door.http.get("/tasks").status_code, other.get("/tasks").status_code) == (200, 200)
    getattr(door.keys, end)("key-admin")
    assert (door.http.get("/tasks").status_code, other.get("/tasks").status_code) == (401, 401)


def test_a_session_that_is_over_shuts_nobody_out_where_keys_are_optional(optional: Door) -> None:
    optional.http.set_cookie(COOKIE, "of another gateway of this machine")
    assert optional.http.get("/tasks").status_code == 200


def test_a_header_counts_before_a_cookie(door: Door) -> None:
    door.login()
    assert door.ask("DELETE", "/dead-letter", door.texts[Scope.READ]).status_code == 403
    assert door.ask("GET", "/tasks", "dtq_wrong").status_code == 401


# ---------------------------------------------------------------- other sites


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_another_site_cannot_use_a_login_nor_make_one(door: Door, headers: dict[str, str]) -> None:
    assert door.login(headers=headers).status_code == 403
    assert door.http.get_cookie(COOKIE) is None
    door.login()
    task = {"type": "noop", "data": 1}
    assert door.http.post("/tasks", json=task, headers=headers).status_code == 403
    assert door.http.post("/dead-letter/retry", headers=headers).status_code == 403
    assert door.http.post("/logout", headers=headers).status_code == 403
    assert door.http.get("/tasks", headers=headers).status_code == 200, "to read is the browser's to refuse"
    assert door.broker.counts()["pending"] == 0


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_another_site_deletes_nothing_with_a_login(door: Door, headers: dict[str, str]) -> None:
    dead, task_id = bury(door.broker), submit(door.broker)
    door.login()
    for path in (f"/tasks/{task_id}", f"/dead-letter/{dead}", "/dead-letter"):
        assert door.http.delete(path, headers=headers).status_code == 403, path
    found = [stored.status for stored in door.broker.get_many([dead, task_id])]
    assert found == [Status.FAILED, Status.PENDING]


@pytest.mark.parametrize("headers", FROM_HERE)
def test_the_gateways_own_pages_can(door: Door, headers: dict[str, str]) -> None:
    assert door.login(headers=headers).status_code == 303
    assert door.http.post("/tasks", json={"type": "noop", "data": 1}, headers=headers).status_code == 201
    assert door.http.delete("/dead-letter", headers=headers).status_code == 200
    assert door.http.post("/logout", headers=headers).status_code == 303


def test_a_key_in_the_header_comes_from_no_browser_by_itself(door: Door) -> None:
    headers = {"Origin": "http://localhost:8888"}  # such as a notebook's page
    task = {"type": "noop", "data": 1}
    assert door.ask("POST", "/tasks", door.texts[Scope.SUBMIT], json=task, headers=headers).status_code == 201


# ---------------------------------------------------------------- without Redis


def test_without_redis_health_still_answers_and_nobody_is_let_in(own_redis: RedisServer) -> None:
    with closing(connect(own_redis.url, Settings(_env_file=None))) as broker:
        door = Door(broker, policy=KeyPolicy.REQUIRED)
        door.login()
        own_redis.stop()
        assert door.http.get("/health").get_json()["status"] == "unhealthy"
        assert door.http.get("/tasks").status_code == 503, "with the cookie"
        assert door.ask("GET", "/tasks", door.texts[Scope.READ]).status_code == 503
        door.http.delete_cookie(COOKIE)
        assert door.ask("GET", "/tasks").status_code == 401
        assert door.login().status_code == 503
        own_redis.start()
        assert door.ask("GET", "/tasks", door.texts[Scope.READ]).status_code == 200


# ---------------------------------------------------------------- where it listens


Start = Callable[..., Program]


@pytest.fixture
def world(redis_url: str, broker: Broker) -> dict[str, str]:
    """Settings of a gateway that other machines reach."""
    return {"REDIS_URL": redis_url, "DTQ_KEY_PREFIX": broker.settings.key_prefix, "DTQ_HOST": "0.0.0.0"}


def status(url: str, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{url}/tasks", headers=headers).status_code


@pytest.mark.parametrize("auth", ["auto", "required"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_does_not_serve_the_world_without_a_key(
    start_gateway: Start, world: dict[str, str], auth: str, host: str
) -> None:
    gateway = start_gateway("--port", "0", "--host", host, DTQ_AUTH=auth, DTQ_LOG_LEVEL="WARNING", **world)
    assert gateway.process.wait(timeout=PATIENCE) == 1
    assert gateway.log.read_text() == (
        f"Error: Other machines reach {host}, and there is no API key: make one with "
        "`dtq key create --name me --scope admin`, or set DTQ_AUTH=off to serve everybody who reaches this "
        "address.\n"
    )
    assert not gateway.note.exists()


def test_with_a_key_it_serves_the_world_that_shows_it(
    start_gateway: Start, world: dict[str, str], broker: Broker
) -> None:
    _, text = ApiKeys(broker).create("me", Scope.ADMIN)
    url = start_gateway("--port", "0", **world).url()
    assert (status(url), status(url, "dtq_wrong"), status(url, text)) == (401, 401, 200)


def test_it_serves_everybody_when_told_so(start_gateway: Start, world: dict[str, str]) -> None:
    gateway = start_gateway("--port", "0", DTQ_AUTH="off", **world)
    assert status(gateway.url()) == 200
    assert "DTQ_AUTH=off: whoever reaches 0.0.0.0 may do everything" in gateway.log.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_alone_no_key_is_needed(
    start_gateway: Start, world: dict[str, str], host: str
) -> None:
    gateway = start_gateway("--port", "0", **world | {"DTQ_HOST": host})
    assert (status(gateway.url()), status(gateway.url(), "dtq_wrong")) == (200, 401)
    assert "WARNING" not in gateway.log.read_text().replace("a wrong API key", "").split("listening")[0]


def test_required_without_keys_warns_and_waits_for_one(
    start_gateway: Start, world: dict[str, str], broker: Broker
) -> None:
    gateway = start_gateway("--port", "0", DTQ_AUTH="required", **world | {"DTQ_HOST": "127.0.0.1"})
    assert status(gateway.url()) == 401
    assert (
        "there is no API key, so nobody is answered: make one with `dtq key create" in gateway.log.read_text()
    )
    _, text = ApiKeys(broker).create("me", Scope.READ)
    assert status(gateway.url(), text) == 200
