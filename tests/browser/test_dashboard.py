"""The dashboard in a real browser: on a cluster, and on an app that a test may stop and start."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from flask import g
from playwright.sync_api import Locator, Page, Request, expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from dtq.gateway import create_app, dashboard
from dtq.gateway.access import ApiKeys, KeyPolicy, Scope
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.broker import Broker
from dtq.queue.reports import Completed, Failed
from dtq.queue.task import Status
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import GATE, held, new_task, wait_until
from tests.steps import bury

HACK = "<img src=x onerror=\"document.body.id='hacked'\">"
AWAY = "net::ERR_CONNECTION_REFUSED"  # what the console says of a gateway that is not there
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""  # a browser without a window never hides a tab

COUNT = """
    window.polls = 0;
    const ask = window.fetch;
    window.fetch = (path, ...rest) => { window.polls += path === "health"; return ask(path, ...rest); };
"""  # what the page itself counts is known at once; what the browser reports of it comes later


class Visit:
    """A visit to the dashboard, with a note of what would be wrong in any test.

    Args:
        page: a fresh one.
        site: the gateway's address, with its prefix.
    """

    def __init__(self, page: Page, site: str) -> None:
        self.page, self.site = page, site
        self.said: list[str] = []  # by the console and by dialogs
        self.asked: list[str] = []
        self.overlaps: list[str] = []
        self._open: set[Request] = set()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", self._began)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)
        page.add_init_script(COUNT)
        page.goto(f"{site}/dashboard")

    def _began(self, request: Request) -> None:
        self.asked.append(request.url)
        if request.resource_type == "fetch" and request.method == "GET":
            self.overlaps += [f"{other.url} and {request.url}" for other in self._open]
            self._open.add(request)

    def _ended(self, request: Request) -> None:
        self._open.discard(request)

    def polls(self) -> int:
        """How many refreshes began."""
        return int(self.page.evaluate("window.polls"))

    def settle(self) -> int:
        """Waits until a refresh is over; returns how many there were."""
        expect(self.page.locator("#main")).to_have_attribute("aria-busy", "false")
        return self.polls()

    def row(self, kind: str, task_id: str) -> Locator:
        """Of `tasks`, `dead` or `workers`."""
        return self.page.locator(f"#{kind} [data-id='{task_id}']")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def check(self, *expected: str) -> None:
        """Nothing was said but what was to be expected, nothing asked elsewhere, and one thing at a time."""
        assert [text for text in self.said if not any(each in text for each in expected)] == []
        assert [url for url in self.asked if not url.startswith((f"{self.site}/", "data:"))] == []
        assert self.overlaps == []


class Site:
    """An app at an address of its own, that can be away for a while."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app, self.port = app, 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """At the same address as before."""
        self._server = make_server("127.0.0.1", self.port, self.app, threaded=True)
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[WSGIApplication], Site]]:
    """Serves apps until the test is over."""
    sites: list[Site] = []

    def start(app: WSGIApplication) -> Site:
        sites.append(Site(app))
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.fixture
def site(serve: Callable[[WSGIApplication], Site], broker: Broker) -> Site:
    """The gateway of a queue without workers."""
    return serve(create_app(broker))


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=2, lease=4, tasks=GATE, env={"DTQ_MAX_RETRIES": "0"}) as cluster:
        yield cluster


# -------------------------------------------------------------------- on a cluster


def test_what_is_submitted_appears(page: Page, cluster: LocalCluster) -> None:
    visit = Visit(page, cluster.url)
    expect(page.get_by_role("status")).to_have_text("Healthy: 2 workers.")
    expect(page.locator("#tasks-note")).to_have_text("none so far")
    first = cluster.client.submit("noop")
    expect(visit.row("tasks", first)).to_contain_text("completed")
    second = cluster.client.submit("sleep", 600)
    expect(visit.row("tasks", second)).to_contain_text("processing")
    assert page.locator("#tasks tr").first.get_attribute("data-id") == second
    worker = page.locator("#workers tr", has_text="busy")
    expect(worker.locator("button")).to_have_text(second[:8])
    expect(page.locator("#figures [data-field=processing]")).to_have_text("1")
    expect(page.locator("#figures [data-field=completed]")).to_have_text("1")
    expect(page.locator("#figures [data-field=memory]")).to_have_text(re.compile(r"^[\d.]+ MB$"))
    for chart in ("throughput", "latency", "depth"):
        expect(page.locator(f"#{chart} .scatterlayer path.js-line").first).to_be_attached()
    visit.check()


def test_a_killed_worker_goes_and_its_task_goes_on(page: Page, cluster: LocalCluster, tmp_path: Path) -> None:
    visit = Visit(page, cluster.url)
    task_id = cluster.client.submit("gate", str(tmp_path / "go"))
    expect(visit.row("tasks", task_id)).to_contain_text("processing")
    expect(page.locator("#workers tr", has_text=task_id[:8])).to_have_count(1)
    lost = cluster.kill_worker()
    (tmp_path / "go").touch()
    expect(visit.row("workers", lost)).to_have_count(0)
    expect(page.locator("#events")).to_contain_text(
        f"{lost} is gone; it had task {task_id[:8]} in its hands."
    )
    expect(page.get_by_role("status")).to_have_text("Healthy: 1 worker.")
    visit.row("tasks", task_id).get_by_role("button").click()
    attempts = page.locator("#attempts li")
    expect(attempts).to_have_count(2)
    expect(attempts.first).to_contain_text("worker lost: started at")
    expect(attempts.last).to_contain_text("completed: started at")
    visit.check()


def test_a_dead_task_is_retried_and_completed(page: Page, cluster: LocalCluster) -> None:
    visit = Visit(page, cluster.url)
    task_id = cluster.client.submit("flaky", {"failures": 1})
    row = visit.row("dead", task_id)
    expect(row).to_contain_text("attempt 1 failed, as asked")
    row.get_by_role("button", name="Retry").click()
    expect(row).to_have_count(0)
    expect(visit.row("tasks", task_id)).to_contain_text("completed")
    expect(page.locator("#events")).to_contain_text(f"Retried task {task_id[:8]}.")
    expect(page.locator("#dead-title")).to_be_focused()
    assert cluster.client.get(task_id).status == Status.COMPLETED
    visit.check()


def test_what_a_stranger_wrote_is_shown_as_text(page: Page, site: Site, broker: Broker) -> None:
    error = f"unknown type {HACK!r}"
    task_id = bury(broker, HACK, {HACK: [HACK]}, error)
    visit = Visit(page, site.url)
    row = visit.row("dead", task_id)
    expect(row.locator("[data-field=type]")).to_have_text(HACK)
    expect(row.locator("[data-field=error]")).to_contain_text(error)
    expect(visit.row("tasks", task_id)).to_contain_text(HACK)
    row.get_by_role("button", name=task_id[:8], exact=True).click()
    expect(page.locator("#detail [data-field=data]")).to_contain_text(HACK.replace('"', '\\"'))
    expect(page.locator("#attempts")).to_contain_text(error)
    assert page.locator("img").count() == 0
    assert page.locator("body").get_attribute("id") is None
    visit.check()


def test_what_a_worker_calls_itself_is_text_too(page: Page, site: Site, broker: Broker) -> None:
    name = '<b style="color:red">me</b>'
    broker.heartbeat(WorkerInfo(id=name, status="busy", host=HACK))
    visit = Visit(page, site.url)
    expect(page.locator("#workers tr")).to_contain_text([name])
    expect(page.locator("#workers tr")).to_contain_text([HACK])
    broker.deregister(name)
    expect(page.locator("#events")).to_contain_text(f"{name} is gone.")
    expect(page.locator("#depth .annotation-text")).to_have_text(name[:24])  # in the chart
    visit.check()


def test_what_is_amiss_is_said_until_it_is_mended(page: Page, site: Site, broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop"]))
    visit = Visit(page, site.url)
    amiss = page.locator("[data-field=amiss]")
    expect(page.locator("#figures [data-field=pending]")).to_have_text("0")
    expect(amiss).to_be_hidden()
    broker.submit([new_task(HACK), new_task("resize"), new_task("noop", id="bad")])
    broker.redis.set(broker.keys.task + "bad", "somebody wrote this by hand")
    assert broker.report_and_claim("worker-1", [], 1, ["noop"])[1] == []
    expect(amiss).to_have_text(
        f"No live worker knows {HACK}, resize: such tasks wait. 1 task has a document that nobody can read: "
        "dtq doctor says which, and what to do."
    )
    expect(page.locator("#figures [data-field=pending]")).to_have_text("2")
    assert page.locator("img").count() == 0
    broker.heartbeat(WorkerInfo(id="worker-2", status="idle", types=[HACK, "resize"]))
    broker.redis.delete(broker.keys.unreadable)
    expect(amiss).to_be_hidden()
    visit.check()


# -------------------------------------------------------------------- deciding


def test_there_is_nothing_to_decide_before_the_first_answer(page: Page, site: Site, broker: Broker) -> None:
    bury(broker)
    page.route("**/health", lambda route: None)  # an answer that never comes
    visit = Visit(page, site.url)
    expect(page.get_by_role("heading", name="Dead letter")).to_be_visible()
    expect(visit.button("Discard all …")).to_be_hidden()


def test_to_discard_all_asks_for_confirmation(page: Page, site: Site, broker: Broker) -> None:
    dead = [bury(broker) for _ in range(3)]
    visit = Visit(page, site.url)
    question = page.get_by_role("alertdialog")
    discard_all = visit.button("Discard all …")
    for leave in (lambda: page.keyboard.press("Escape"), visit.button("Leave it as it is").click):
        discard_all.click()
        expect(question).to_contain_text("Discard all dead tasks? There are 3 now.")
        expect(visit.button("Leave it as it is")).to_be_focused()
        leave()
        expect(question).to_be_hidden()
        expect(discard_all).to_be_focused()
    assert broker.counts()["dead_letter"] == 3
    assert not any("dead-letter" in url for url in visit.asked)
    discard_all.click()
    visit.button("Discard all").click()
    expect(page.locator("#dead-note")).to_have_text("empty: nothing to decide on")
    expect(page.locator("#events")).to_contain_text("Discarded 3 dead tasks.")
    assert {task.status for task in broker.get_many(dead)} == {Status.CANCELLED}
    visit.check()


def test_one_is_discarded_and_all_are_retried(page: Page, site: Site, broker: Broker) -> None:
    dead = [bury(broker) for _ in range(3)]
    visit = Visit(page, site.url)
    visit.button(f"Discard {dead[2][:8]}").click()
    expect(page.get_by_role("alertdialog")).to_contain_text(f"Discard task {dead[2][:8]}?")
    visit.button("Discard").click()
    expect(visit.row("dead", dead[2])).to_have_count(0)
    expect(visit.button(f"Discard {dead[1][:8]}")).to_be_focused()  # the focus goes to the neighbour
    visit.button("Retry all …").click()
    visit.button("Retry all").click()
    expect(page.locator("#dead li")).to_have_count(0)
    statuses = [task.status for task in broker.get_many(dead)]
    assert statuses == [Status.PENDING, Status.PENDING, Status.CANCELLED]
    visit.check()


def test_what_somebody_else_decided_is_told(page: Page, site: Site, broker: Broker) -> None:
    task_id = bury(broker)
    visit = Visit(page, site.url)
    visit.button("Pause").click()
    expect(page.get_by_role("status")).to_contain_text("Paused.")
    visit.settle()
    broker.discard([task_id])
    visit.button(f"Retry {task_id[:8]}").click()
    expect(page.locator("#events")).to_contain_text(f"Could not retry task {task_id[:8]}: There is no task")
    expect(visit.row("dead", task_id)).to_have_count(0)
    visit.check("404")


def test_who_may_only_read_sees_no_buttons(
    page: Page, serve: Callable[[WSGIApplication], Site], broker: Broker
) -> None:
    app = create_app(broker)
    app.before_request(lambda: setattr(g, "read_only", True))
    task_id = bury(broker)
    visit = Visit(page, serve(app).url)
    expect(visit.row("dead", task_id)).to_be_visible()
    visit.row("dead", task_id).get_by_role("button").click()  # the only one leads to the task
    expect(page.locator("#attempts")).to_contain_text("boom")
    assert page.get_by_role("button", name=re.compile("Retry|Discard")).count() == 0
    visit.check()


# -------------------------------------------------------------------- the login


@pytest.fixture
def texts(broker: Broker) -> dict[Scope, str]:
    """A key of each scope."""
    return {scope: ApiKeys(broker).create(f"key-{scope}", scope)[1] for scope in Scope}


def log_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("prefix", ["", "/user/ann/proxy/5000"])
def test_a_login_from_the_first_look_to_logout(
    page: Page, serve: Callable[[WSGIApplication], Site], broker: Broker, texts: dict[Scope, str], prefix: str
) -> None:
    def elsewhere(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 NOT FOUND", [("Content-Type", "text/plain")])
        return [b"not here"]

    app = create_app(broker, policy=KeyPolicy.REQUIRED)
    site = serve(DispatcherMiddleware(elsewhere, {prefix: app}) if prefix else app)
    task_id = bury(broker)
    visit = Visit(page, site.url + prefix)
    expect(page.get_by_label("API key")).to_be_focused()
    log_in(page, "dtq_wrong")
    expect(page.get_by_role("alert")).to_have_text("This API key is unknown, or it was revoked.")
    log_in(page, texts[Scope.ADMIN])
    expect(page).to_have_url(f"{site.url}{prefix}/dashboard")
    visit.row("dead", task_id).get_by_role("button", name="Retry").click()
    expect(visit.row("dead", task_id)).to_have_count(0)
    assert page.evaluate("document.cookie") == "", "no script can read it"
    (cookie,) = page.context.cookies()
    assert (cookie["path"], cookie["sameSite"], cookie["httpOnly"]) == (prefix or "/", "Strict", True)
    visit.button("Log out").click()
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.context.cookies() == []
    visit.check("401")


def test_who_logs_in_to_read_sees_no_buttons_and_goes_with_the_key(
    page: Page, serve: Callable[[WSGIApplication], Site], broker: Broker, texts: dict[Scope, str]
) -> None:
    task_id = bury(broker)
    visit = Visit(page, serve(create_app(broker, policy=KeyPolicy.REQUIRED)).url)
    log_in(page, texts[Scope.READ])
    expect(visit.row("dead", task_id)).to_be_visible()
    assert page.get_by_role("button", name=re.compile("Retry|Discard")).count() == 0
    ApiKeys(broker).revoke("key-read")
    expect(page.get_by_label("API key")).to_be_focused()
    visit.check("401")


def test_a_page_of_another_port_can_neither_log_in_nor_use_a_login(
    page: Page, serve: Callable[[WSGIApplication], Site], broker: Broker, texts: dict[Scope, str]
) -> None:
    """To the browser that is the same site: it sends the cookie along."""
    gateway = serve(create_app(broker, policy=KeyPolicy.REQUIRED))
    page_elsewhere = f"""<form method="post"><input name="key" value="{texts[Scope.ADMIN]}">
        <button formaction="{gateway.url}/login">in</button>
        <button formaction="{gateway.url}/dead-letter/retry">retry</button></form>"""

    def elsewhere(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [page_elsewhere.encode()]

    other = serve(elsewhere)
    bury(broker)
    page.goto(other.url)
    page.get_by_role("button", name="in").click()
    expect(page.locator("body")).to_contain_text("A page of another site must not change this queue.")
    assert page.context.cookies() == []
    page.goto(f"{gateway.url}/dashboard")
    log_in(page, texts[Scope.ADMIN])
    expect(page.get_by_role("status")).to_contain_text("Degraded")
    page.goto(other.url)
    page.get_by_role("button", name="retry").click()
    expect(page.locator("body")).to_contain_text("A page of another site must not change this queue.")
    assert broker.counts()["dead_letter"] == 1


def test_the_login_fits_a_narrow_screen_and_the_dark(
    page: Page, serve: Callable[[WSGIApplication], Site], broker: Broker
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit = Visit(page, serve(create_app(broker, policy=KeyPolicy.REQUIRED)).url)
    colors = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(page.get_by_label("API key")).to_be_visible()
        assert page.locator("input:visible").count() == 1
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert len(colors) == 2
    visit.check("401")


# -------------------------------------------------------------------- one task, and finding it


def test_a_task_is_shown_with_its_history_and_its_numbers_as_they_are(
    page: Page, site: Site, broker: Broker
) -> None:
    task = new_task("count", {"big": 12345678901234567890, "whole": 1.0, "text": "é"})
    broker.submit([task])
    broker.report_and_claim("worker-7", [], 1)
    broker.report_and_claim("worker-7", [Failed(held(task.id, 1), 0.1, 0.0, "failed", "no luck", 0)], 0)
    broker.requeue([task.id])
    broker.report_and_claim("worker-8", [], 1)
    broker.report_and_claim("worker-8", [Completed(held(task.id, 2), 0.25, 0.0, b"[1e400,[]]")], 0)
    visit = Visit(page, site.url)
    opener = visit.row("tasks", task.id).get_by_role("button")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#attempts li")).to_have_text(
        [
            re.compile(r"failed: started at \d\d:\d\d:\d\d on worker-7, took .* no luck", re.DOTALL),
            re.compile(r"completed: started at \d\d:\d\d:\d\d on worker-8, took 250 ms"),
        ]
    )
    expect(page.locator("#detail [data-field=id]")).to_have_text(task.id)
    assert page.locator("#detail [data-field=data]").text_content() == (
        '{\n  "big": 12345678901234567890,\n  "whole": 1.0,\n  "text": "é"\n}'
    )
    assert page.locator("#detail [data-field=result]").text_content() == "[\n  1e400,\n  []\n]"
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(opener).to_be_focused()
    visit.check()


def test_a_task_that_is_gone_is_said_to_be(page: Page, site: Site, broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="busy", current_task="no-such-task"))
    visit = Visit(page, site.url)
    visit.button("no-such-task").click()
    expect(page.locator("#detail")).to_contain_text("There is no task no-such-task (any more).")
    visit.check("404")


def test_tasks_are_filtered(page: Page, site: Site, broker: Broker) -> None:
    dead = bury(broker, "resize")
    tasks = [new_task(name, id=f"{name}-{i}") for i in range(60) for name in ("noop", "resize")]
    broker.submit(tasks)
    visit = Visit(page, site.url)
    rows = page.locator("#tasks tr")
    expect(rows).to_have_count(50)
    page.get_by_label("Status").select_option("failed")
    expect(rows).to_have_count(1)
    expect(visit.row("tasks", dead)).to_be_visible()
    page.get_by_label("Type").fill("noop")
    expect(rows).to_have_count(0)
    expect(page.locator("#tasks-note")).to_have_text("none fits the filter")
    page.get_by_label("Status").select_option("all")
    expect(rows).to_have_count(50)
    page.get_by_label("Type").fill("")
    page.get_by_label("Id", exact=True).fill("size-7")
    expect(rows).to_have_count(1)
    expect(visit.row("tasks", "resize-7")).to_be_visible()
    page.get_by_label("Id", exact=True).fill(f"{dead}, noop-3")
    expect(rows).to_have_count(2)
    visit.check()


# -------------------------------------------------------------------- asking


def test_a_hidden_tab_asks_for_nothing(page: Page, site: Site) -> None:
    page.clock.install()
    visit = Visit(page, site.url)
    expect(page.get_by_role("status")).to_contain_text("Degraded")
    page.evaluate(HIDE, True)
    polls = visit.settle()
    page.clock.run_for(600_000)
    assert visit.polls() == polls
    page.evaluate(HIDE, False)
    assert visit.polls() == polls + 1
    visit.check()


def test_pause_stops_it_too(page: Page, site: Site, broker: Broker) -> None:
    broker.submit([new_task(id="old")])
    page.clock.install()
    visit = Visit(page, site.url)
    expect(page.get_by_role("status")).to_contain_text("Degraded")
    visit.button("Pause").click()
    expect(page.get_by_role("status")).to_contain_text("Paused. The figures are of ")
    visit.row("tasks", "old").get_by_role("button").click()  # what a reader asks for is answered all the same
    expect(page.locator("#detail [data-field=type]")).to_have_text("noop")
    page.keyboard.press("Escape")
    polls = visit.settle()
    page.clock.run_for(600_000)
    assert visit.polls() == polls
    broker.submit([new_task(id="new")])
    visit.button("Go on").click()
    expect(visit.row("tasks", "new")).to_be_visible()
    visit.check()


def test_it_backs_off_while_the_gateway_is_away(page: Page, site: Site) -> None:
    page.clock.install()
    visit = Visit(page, site.url)
    status = page.get_by_role("status")
    expect(status).to_contain_text("Degraded")
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))  # seconds
    for name in ("Pause", "Go on"):  # the next refresh comes two seconds after one that begins now
        visit.button(name).click()
        visit.settle()
    site.stop()
    page.clock.run_for(2000)
    for seconds in (2, 4, 8, 16, 30, 30):
        polls = visit.settle()
        expect(status).to_contain_text(
            f"The gateway does not answer. Next try in {seconds} s. The figures are of"
        )
        page.clock.run_for(seconds * 1000 - 1)
        assert visit.polls() == polls
        page.clock.run_for(1)
        assert visit.polls() == polls + 1
    visit.settle()
    site.start()
    page.clock.run_for(30_000)
    expect(status).to_contain_text("Degraded")
    expect(page.locator("#events")).to_contain_text(re.compile(r"The gateway is back after \d"))
    polls = visit.settle()
    page.clock.run_for(2000)
    assert visit.polls() == polls + 1
    visit.check(AWAY)


def test_redis_away_is_told_apart(page: Page, cluster: LocalCluster) -> None:
    visit = Visit(page, cluster.url)
    status = page.get_by_role("status")
    expect(status).to_contain_text("Healthy")
    cluster.kill_redis()
    expect(status).to_contain_text("Redis does not answer")
    cluster.restart_redis()
    expect(page.locator("#events")).to_contain_text("The queue is back after")
    visit.check("503")


@pytest.mark.parametrize("prefix", ["/proxy/5000", "/a b"])
def test_it_works_below_any_prefix(
    page: Page, serve: Callable[[WSGIApplication], Site], broker: Broker, prefix: str
) -> None:
    def elsewhere(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 NOT FOUND", [("Content-Type", "text/plain")])
        return [b"not here"]

    app = create_app(broker)
    site = serve(DispatcherMiddleware(elsewhere, {prefix: app}))
    visit = Visit(page, site.url + prefix.replace(" ", "%20"))
    task_id = bury(broker)
    expect(page.locator("#depth .scatterlayer path.js-line").first).to_be_attached()
    visit.row("dead", task_id).get_by_role("button", name=task_id[:8], exact=True).click()
    expect(page.locator("#attempts")).to_contain_text("boom")
    page.locator("#detail").get_by_role("button", name="Retry").click()
    expect(visit.row("dead", task_id)).to_have_count(0)
    visit.check()


# -------------------------------------------------------------------- reading


def test_the_focus_stays_where_it_is(page: Page, site: Site, broker: Broker) -> None:
    broker.submit([new_task(id=f"task-{i}") for i in range(10)])
    visit = Visit(page, site.url)
    button = visit.row("tasks", "task-4").get_by_role("button")
    button.focus()
    row = visit.row("tasks", "task-4").element_handle()
    broker.submit([new_task(id="later")])
    expect(visit.row("tasks", "later")).to_be_visible()
    broker.cancel("task-4")
    expect(visit.row("tasks", "task-4")).to_contain_text("cancelled")
    expect(button).to_be_focused()
    assert page.evaluate("row => row.isConnected", row)
    visit.check()


def test_all_can_be_reached_by_keyboard(page: Page, site: Site, broker: Broker) -> None:
    task_id = bury(broker)
    visit = Visit(page, site.url)
    expect(visit.row("dead", task_id)).to_be_visible()
    reached = []
    for _ in range(11):
        page.keyboard.press("Tab")
        focused = "document.activeElement"
        reached.append(page.evaluate(f"{focused}.ariaLabel || {focused}.id || {focused}.textContent"))
    short = task_id[:8]
    assert reached == [
        "Pause", "Retry all …", "Discard all …", short, f"Retry {short}", f"Discard {short}",
        "status-filter", "type-filter", "id-filter", short, reached[-1],
    ]  # fmt: skip
    visit.check()


def test_a_narrow_screen_does_not_scroll_sideways(page: Page, site: Site, broker: Broker) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    long = "x" * 100
    task_id = bury(broker, long, "z" * 30_000, "y" * 1000)
    broker.heartbeat(WorkerInfo(id=long, status="busy", host=long, pid=2**31, current_task=long))
    visit = Visit(page, site.url)
    expect(visit.row("workers", long)).to_be_visible()
    expect(page.locator("#depth .scatterlayer path.js-line").first).to_be_attached()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    visit.row("dead", task_id).get_by_role("button", name=task_id[:8], exact=True).click()
    expect(page.locator("#detail [data-field=data]")).to_contain_text("… and 10,002 characters more")
    assert page.evaluate("document.querySelector('#detail').scrollWidth") <= 390
    visit.check()


def test_it_follows_the_reader_into_the_dark(page: Page, site: Site) -> None:
    visit = Visit(page, site.url)
    colors = {}
    text = page.locator("#depth .xtick text").first
    for scheme in ("light", "dark", "light"):
        page.emulate_media(color_scheme=scheme)
        body = page.evaluate("getComputedStyle(document.body).color")
        expect(text).to_have_css("fill", body)
        colors[scheme] = body
    assert colors["light"] != colors["dark"]
    visit.check()


def test_without_plotly_all_but_the_charts_works(
    page: Page, site: Site, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "CHARTS", "a-package-that-is-not-installed")
    broker.submit([new_task(id="a")])
    visit = Visit(page, site.url)
    expect(page.get_by_text("The charts need Plotly.")).to_be_visible()
    expect(visit.row("tasks", "a")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("Degraded")
    assert not any("plotly" in url for url in visit.asked)
    visit.check()


def test_nothing_that_gets_into_the_page_would_run(page: Page, site: Site) -> None:
    visit = Visit(page, site.url)
    expect(page.get_by_role("status")).to_contain_text("Degraded")
    visit.check()
    page.evaluate("html => document.querySelector('main').insertAdjacentHTML('beforeend', html)", HACK)
    wait_until(lambda: page.evaluate("true") and any("inline event handler" in text for text in visit.said))
    assert page.locator("body").get_attribute("id") is None
