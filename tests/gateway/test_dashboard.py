"""The dashboard's page, files and headers, as the gateway sends them; tests/browser opens it."""

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
from flask import g
from flask.testing import FlaskClient

from dtq.gateway import create_app, dashboard
from dtq.queue.broker import Broker
from dtq.queue.task import Status

FILES = Path(dashboard.__file__).parent
ADDRESS = re.compile(r'(?:src|href)="([^"]*)"')


def page(http: FlaskClient) -> str:
    answer = http.get("/dashboard")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return answer.text


def test_the_policy_lets_it_load_from_here_alone(http: FlaskClient) -> None:
    policy = http.get("/dashboard").headers["Content-Security-Policy"]
    directives = dict(each.split(" ", 1) for each in policy.split("; "))
    assert directives == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
        "connect-src": "'self'", "base-uri": "'none'", "frame-ancestors": "'self'", "form-action": "'none'",
    }  # fmt: skip


def test_nothing_in_the_page_needs_a_weaker_policy(http: FlaskClient) -> None:
    html = page(http)
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html) == []


def test_all_addresses_are_relative(http: FlaskClient) -> None:
    addresses = ADDRESS.findall(page(http))
    assert len(addresses) == 4
    assert [each for each in addresses if re.match(r"/|https?:", each)] == []
    script = (FILES / "static/dashboard.js").read_text()
    assert re.findall(r"""ask\(["'`](?:/|http)|https?://""", script) == []


def test_all_that_it_loads_is_there(http: FlaskClient) -> None:
    for address in ADDRESS.findall(page(http)):
        if not address.startswith("data:"):
            answer = http.get("/" + address)
            assert answer.status_code == 200, address
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"]
            answer.close()


def test_the_script_writes_text_alone() -> None:
    script = (FILES / "static/dashboard.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert way not in script


def test_the_charts_code_comes_from_the_installed_package_and_may_be_kept(http: FlaskClient) -> None:
    package = distribution("plotly")
    assert f'"dashboard/plotly.min.js?v={package.version}"' in page(http)
    with http.get("/dashboard/plotly.min.js") as answer:
        assert answer.mimetype == "text/javascript"
        assert answer.data == Path(str(package.locate_file("plotly/package_data/plotly.min.js"))).read_bytes()
        assert answer.cache_control.max_age == 365 * 86400
        assert answer.cache_control.immutable


def test_its_own_files_are_asked_for_again(http: FlaskClient) -> None:
    with http.get("/dashboard/dashboard.js") as answer:
        assert answer.cache_control.no_cache
        tag = answer.headers["ETag"]
    with http.get("/dashboard/dashboard.js", headers={"If-None-Match": tag}) as answer:
        assert answer.status_code == 304


def test_without_the_package_it_says_how_to_get_it(
    http: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "pip install" not in page(http)
    monkeypatch.setattr(dashboard, "CHARTS", "a-package-that-is-not-installed")
    html = page(http)
    assert "pip install plotly" in html
    assert "plotly.min.js" not in html
    answer = http.get("/dashboard/plotly.min.js")
    assert (answer.status_code, list(answer.get_json())) == (404, ["error"])


def test_every_status_can_be_filtered_for(http: FlaskClient) -> None:
    assert re.findall(r"<option>(\w+)</option>", page(http)) == list(Status)


@pytest.mark.parametrize(("read_only", "body"), [(False, "<body>"), (True, "<body data-read-only>")])
def test_who_may_only_read_is_told_so(broker: Broker, read_only: bool, body: str) -> None:
    app = create_app(broker)
    app.before_request(lambda: setattr(g, "read_only", read_only))
    html = page(app.test_client())
    assert body in html
    assert ("read only" in html) == read_only


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/nothing.js", "/dashboard/../routes.py"])
def test_there_is_nothing_else(http: FlaskClient, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, list(answer.get_json())) == (404, ["error"])
