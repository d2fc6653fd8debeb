"""Finds out who sends a request, by an API key in the header or the cookie of a login, and what it may do."""

import logging
from collections.abc import Mapping

from flask import Response, abort, g, request
from werkzeug.datastructures import WWWAuthenticate

from dtq.gateway import dashboard, origin
from dtq.gateway.access import SESSION, ApiKey, ApiKeys, KeyPolicy, Scope, Sessions
from dtq.queue.broker import Broker

COOKIE = "dtq_session"
NO_KEY = "An API key is needed, in the header `Authorization: Bearer dtq_…`."
WRONG_KEY = "This API key is unknown, or it was revoked."
log = logging.getLogger("dtq.gateway")


class Auth:
    """Steps before each request, and the calls that log a browser in and out.

    Args:
        broker: of the queue whose keys count.
        scopes: the scope that each endpoint needs. None is open to everybody; what is not here needs `read`.
        policy: who needs a key.
    """

    def __init__(self, broker: Broker, scopes: Mapping[str, Scope | None], policy: KeyPolicy) -> None:
        self._keys, self._sessions, self._scopes = ApiKeys(broker), Sessions(broker), scopes
        self._policy = policy

    def identify(self) -> None:
        """Sets `g.key`. A session that is over counts as none: the browser did not choose to show it."""
        g.key, g.wrong_key, g.read_only = None, False, False
        if self._needed_scope() is None:  # /health must not wait for Redis
            return
        header = request.authorization
        if header and header.type == "bearer":
            g.key = self._keys.find(header.token or "")
            g.wrong_key = g.key is None
        elif token := request.cookies.get(COOKIE):
            g.key = self._sessions.find(token)
            if g.key and origin.is_change():
                origin.refuse_other_origins()
        g.read_only = g.key is not None and not g.key.scope.includes(Scope.ADMIN)

    def enforce(self) -> Response | None:
        """Answers 401 where a right key is missing, and 403 where the key does not allow the call."""
        needed, key = self._needed_scope(), g.key
        if needed is None:
            return None
        if key is None and (self._policy is KeyPolicy.REQUIRED or g.wrong_key):
            return _ask_for_key()
        if key and not key.scope.includes(needed):
            abort(403, f"This needs a key with the scope {needed}; the key {key.name} has {key.scope}.")
        return None

    def login(self) -> Response:
        """Gives a session to the browser that sends a key in a form."""
        origin.refuse_other_origins()
        key = self._keys.find(request.form.get("key", "").strip())
        if key is None:
            _log_wrong_key()
            return dashboard.login_page(WRONG_KEY)
        return self._start_session(key)

    def logout(self) -> Response:
        """Ends the session of this browser."""
        self._sessions.close(request.cookies.get(COOKIE, ""))
        response = _redirect_to_dashboard()
        response.delete_cookie(COOKIE, path=None, httponly=True, samesite="Strict")
        return response

    def _start_session(self, key: ApiKey) -> Response:
        secure = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
        response = _redirect_to_dashboard()
        # Without a path the browser takes the folder of /login, which only it knows behind a proxy.
        response.set_cookie(
            COOKIE, self._sessions.open(key), max_age=SESSION, path=None, secure=secure, httponly=True,
            samesite="Strict",
        )  # fmt: skip
        return response

    def _needed_scope(self) -> Scope | None:
        """The scope that this request needs of a key; None where the gateway looks at no key."""
        if self._policy is KeyPolicy.OFF:
            return None
        return self._scopes.get(request.endpoint or "", Scope.READ)


def _ask_for_key() -> Response:
    """401: the login page in place of the dashboard, and a sentence in place of all else."""
    if g.wrong_key:
        _log_wrong_key()
    if request.endpoint == "dashboard.show_page":
        return dashboard.login_page(WRONG_KEY if g.wrong_key else "")
    challenge = WWWAuthenticate("bearer", {"error": "invalid_token"} if g.wrong_key else None)
    abort(401, WRONG_KEY if g.wrong_key else NO_KEY, www_authenticate=challenge)


def _redirect_to_dashboard() -> Response:
    return Response(status=303, headers={"Location": "dashboard", "Cache-Control": "no-store"})


def _log_wrong_key() -> None:
    log.warning("a wrong API key from %s", request.remote_addr)
