"""Who asks, and whether they may: by an API key in the header, or by the cookie of a login with one."""

import logging
from collections.abc import Mapping
from urllib.parse import urlsplit

from flask import Response, abort, g, request
from werkzeug.datastructures import WWWAuthenticate

from dtq.gateway import dashboard
from dtq.gateway.access import SESSION, ApiKey, ApiKeys, Scope, Sessions
from dtq.queue.broker import Broker

COOKIE = "dtq_session"
NO_KEY = "An API key is needed, in the header `Authorization: Bearer dtq_…`."
WRONG_KEY = "This API key is unknown, or it was revoked."
log = logging.getLogger("dtq.gateway")


class Auth:
    """Steps before each request, and the calls that log a browser in and out.

    Args:
        broker: of the queue whose keys count.
        scopes: what an endpoint needs, where that is not to read; None is open to everybody.
        required: whether a key is needed. Where it is not, one that is shown is looked at all the same.
    """

    def __init__(self, broker: Broker, scopes: Mapping[str, Scope | None], required: bool) -> None:
        self._keys, self._sessions, self._scopes = ApiKeys(broker), Sessions(broker), scopes
        self._off, self._required = broker.settings.auth == "off", required

    def identify(self) -> None:
        """Sets `g.key`. A session that is over counts as none: the browser did not choose to show it."""
        g.key, g.wrong_key, g.read_only = None, False, False
        if self._off or self._needed() is None:  # /health must not wait for Redis
            return
        header = request.authorization
        if header and header.type == "bearer":
            g.key = self._keys.find(header.token or "")
            g.wrong_key = g.key is None
        elif token := request.cookies.get(COOKIE):
            g.key = self._sessions.find(token)
            if g.key and request.method not in ("GET", "HEAD"):
                refuse_other_origins()
        g.read_only = g.key is not None and not g.key.scope.includes(Scope.ADMIN)

    def enforce(self) -> Response | None:
        """Answers 401 or 403 to those who may not."""
        needed, key = self._needed(), g.key
        if self._off or needed is None:
            return None
        if key is None and (self._required or g.wrong_key):
            return _unknown()
        if key and not key.scope.includes(needed):
            abort(403, f"This needs a key with the scope {needed}; the key {key.name} has {key.scope}.")
        return None

    def login(self) -> Response:
        """Gives a session to the browser that sends a key in a form."""
        refuse_other_origins()
        key = self._keys.find(request.form.get("key", "").strip())
        if key is None:
            _note_wrong_key()
            return dashboard.login_page(WRONG_KEY)
        return self._enter(key)

    def logout(self) -> Response:
        """Ends the session of this browser."""
        self._sessions.close(request.cookies.get(COOKIE, ""))
        response = _to_dashboard()
        response.delete_cookie(COOKIE, path=None, httponly=True, samesite="Strict")
        return response

    def _enter(self, key: ApiKey) -> Response:
        secure = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
        response = _to_dashboard()
        # Without a path the browser takes the folder of /login, which only it knows behind a proxy.
        response.set_cookie(
            COOKIE, self._sessions.open(key), max_age=SESSION, path=None, secure=secure, httponly=True,
            samesite="Strict",
        )  # fmt: skip
        return response

    def _needed(self) -> Scope | None:
        return self._scopes.get(request.endpoint or "", Scope.READ)


def refuse_other_origins() -> None:
    """What a cookie lets a browser do, only pages of this gateway may ask for: those of another port, or of
    another subdomain, get the cookie sent as well. The rules are those of Go's `CrossOriginProtection`:
    `Sec-Fetch-Site` tells, else `Origin`, and what sends neither is no browser.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    hosts = (request.host, request.headers.get("X-Forwarded-Host"))  # as asked for, where a proxy is between
    same = site in ("same-origin", "none") if site else not origin or urlsplit(origin).netloc in hosts
    if not same:
        abort(403, "A page of another site must not change this queue.")


def _unknown() -> Response:
    """401: the page to log in for who wants to see the dashboard, else a sentence."""
    if g.wrong_key:
        _note_wrong_key()
    if request.endpoint == "dashboard.show_page":
        return dashboard.login_page(WRONG_KEY if g.wrong_key else "")
    challenge = WWWAuthenticate("bearer", {"error": "invalid_token"} if g.wrong_key else None)
    abort(401, WRONG_KEY if g.wrong_key else NO_KEY, www_authenticate=challenge)


def _to_dashboard() -> Response:
    return Response(status=303, headers={"Location": "dashboard", "Cache-Control": "no-store"})


def _note_wrong_key() -> None:
    log.warning("a wrong API key from %s", request.remote_addr)
