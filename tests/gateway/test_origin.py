"""Which pages a browser may send here. `test_auth` and `test_submit` have the same as real calls."""

from collections.abc import Callable

import pytest
from flask import Flask
from werkzeug.exceptions import Forbidden

from dtq.gateway import origin
from tests.gateway.pages import ELSEWHERE, FROM_HERE

CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}


def is_refused(check: Callable[[], None], method: str, headers: dict[str, str]) -> bool:
    with Flask(__name__).test_request_context(method=method, headers=headers):
        try:
            check()
        except Forbidden:
            return True
        return False


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_only_what_another_site_would_change_is_refused_to_all(method: str) -> None:
    for headers in (*ELSEWHERE, *FROM_HERE):
        cross_site = headers.get("Sec-Fetch-Site") == "cross-site"
        assert is_refused(origin.refuse_other_sites, method, headers) is cross_site, headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is_refused_to_nobody(method: str) -> None:
    assert not is_refused(origin.refuse_other_sites, method, CROSS_SITE)


def test_the_browser_hears_why() -> None:
    for check in (origin.refuse_other_sites, origin.refuse_other_origins):
        with (
            Flask(__name__).test_request_context(method="POST", headers=CROSS_SITE),
            pytest.raises(Forbidden, match="A page of another site must not change this queue"),
        ):
            check()


def test_a_login_counts_for_the_gateways_own_pages_alone() -> None:
    assert all(is_refused(origin.refuse_other_origins, "POST", headers) for headers in ELSEWHERE)
    assert not any(is_refused(origin.refuse_other_origins, "POST", headers) for headers in FROM_HERE)
