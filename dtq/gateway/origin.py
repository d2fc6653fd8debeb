"""Decides which pages may change the queue: none of another site may do it through a visitor's browser.

A browser says in `Sec-Fetch-Site` or `Origin` where a request comes from, and a page cannot change these
headers. A client that sends neither is no browser, and no page can misuse it.
"""

from urllib.parse import urlsplit

from flask import abort, request


def refuse_other_sites() -> None:
    """Answers 403 to a page of another site that asks for a change, with a login or without."""
    if is_change() and request.headers.get("Sec-Fetch-Site") == "cross-site":
        _refuse()


def refuse_other_origins() -> None:
    """Answers 403 to every page that is not this gateway's own. To be called where a cookie counts: a browser
    also sends it with requests from another port of this host, or from another subdomain.

    The rules are those of Go's `CrossOriginProtection`: `Sec-Fetch-Site` decides, and without it `Origin`.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    hosts = (request.host, request.headers.get("X-Forwarded-Host"))  # a proxy sets the second one
    same = site in ("same-origin", "none") if site else not origin or urlsplit(origin).netloc in hosts
    if not same:
        _refuse()


def is_change() -> bool:
    """Whether this request asks for a change. What only reads, the browser itself keeps from other sites."""
    return request.method not in ("GET", "HEAD")


def _refuse() -> None:
    abort(403, "A page of another site must not change this queue.")
