"""Rate limits: how many calls a key may make, or an address that shows no right key.

All gateways of a queue count together, in Redis: each caller has a list of the times of its last calls. So
`50/second` holds for every second, wherever it begins; to count by the clock's seconds would let 100 calls
pass around a full second. The times come from the gateways, so their clocks should agree.
"""

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import redis
from flask import Flask, Response, g, request
from flask_limiter import Limiter

from dtq.gateway.access import KeyPolicy
from dtq.queue.broker import Broker
from dtq.transient import Outage

WITH_KEYS = "50/second"  # where keys are required and nothing else is said
OPEN = "GET /health"  # a program that watches the system must not be refused
log = logging.getLogger("dtq.gateway")
logging.getLogger("flask-limiter").setLevel(logging.WARNING)  # what is refused stands in the request log


def install(app: Flask, broker: Broker, policy: KeyPolicy) -> None:
    """Adds the step that answers 429, and the headers that state the limit. `Auth.identify` comes before it,
    and `Auth.enforce` after it: whoever tries out keys meets the limit of their address.
    """
    limit = broker.settings.rate_limit or (WITH_KEYS if policy is KeyPolicy.REQUIRED else "off")
    if limit == "off":
        return
    # This client sends no command twice, so each call counts once.
    pool = {"connection_pool": broker.once.connection_pool, "key_prefix": broker.keys.rate.removesuffix(":")}
    away = broker.settings.rate_limit_away
    together = Counter(limit, "redis://", refuse=away == "refuse", storage_options=pool)
    counters = [together]
    if away == "local":  # a second one, in this process alone, counts what the first one could not
        spare: dict[str, Any] = {"application_limits_exempt_when": lambda: bool(together.current_limits)}
        counters.append(Counter(limit, "memory://", **spare))
    for counter in counters:
        counter.init_app(app)
    app.after_request(partial(add_headers, counters))


class Counter(Limiter):
    """Counts the calls of each caller, and answers 429 where there are too many. Flask-Limiter does not count
    static files, so the files of the dashboard are free.

    Args:
        limit: as `50/second`.
        storage: the address of the counts.
        refuse: what to do while the storage is away: refuse all calls, or count none.
        options: further arguments of `Limiter`.
    """

    def __init__(self, limit: str, storage: str, refuse: bool = False, **options: Any) -> None:
        super().__init__(
            caller, application_limits=[limit], strategy="moving-window", storage_uri=storage,
            request_identifier=lambda: request.endpoint or "unknown", **options,
        )  # fmt: skip
        self._refuse, self._outage = refuse, Outage(log)
        self.request_filter(lambda: request.endpoint == OPEN)

    def _check_request_limit(self, *args: Any, **options: Any) -> None:  # Flask calls it before each request
        try:
            super()._check_request_limit(*args, **options)
            if self.current_limits:  # empty where the call is not counted
                self._outage.over()
        except redis.RedisError as error:
            self._outage.failed(error)
            if self._refuse:
                raise


def caller() -> str:
    """The name under which a call is counted: its key, or its address. Behind a proxy that is the address of
    the proxy, because anybody can send the header that names another one.
    """
    return f"key={g.key.id}" if g.key else f"address={request.remote_addr}"


def add_headers(counters: Sequence[Limiter], response: Response) -> Response:
    """Adds the headers of the draft standard draft-ietf-httpapi-ratelimit-headers, and Retry-After to 429."""
    now, policies, states = time.time(), [], []
    for limit in [limit for counter in counters for limit in counter.current_limits]:
        try:
            reset, remaining = limit.window
        except redis.RedisError:
            return response
        seconds = max(1, math.ceil(reset - now))
        policies.append(f'"{limit.limit}";q={limit.limit.amount};w={limit.limit.get_expiry()}')
        states.append(f'"{limit.limit}";r={remaining};t={seconds}')
        if limit.breached:
            response.headers["Retry-After"] = str(seconds)
    if policies:
        response.headers["RateLimit-Policy"], response.headers["RateLimit"] = map(
            ", ".join, (policies, states)
        )
    return response
