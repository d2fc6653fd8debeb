"""Answers every error with {"error": a sentence}. A stack trace goes into the log alone."""

import logging

import redis
from flask import Response, request
from werkzeug.exceptions import HTTPException

from dtq.errors import Refused
from dtq.gateway.models import answer
from dtq.transient import is_transient

AWAY = "Redis does not answer just now; try again."
REFUSES = "Redis refuses this; the gateway's log tells why."
FULL = "Redis is full and takes no new task; try again when old ones are done."
TOO_MANY = "Too many calls: the limit is {} for each key or address; wait as long as Retry-After says."
RETRY = {"Retry-After": "1"}  # seconds
log = logging.getLogger("dtq.gateway")


def answer_error(error: Exception) -> Response:
    """The answer to a request that raised this."""
    if isinstance(error, HTTPException):
        sentence = "The body has more than 1 MiB." if error.code == 413 else error.description
        kept = {name: value for name, value in error.get_headers() if name in ("Allow", "WWW-Authenticate")}
        if error.code == 429:
            sentence, kept = TOO_MANY.format(error.description), RETRY
        return answer({"error": sentence}, error.code or 500, kept)
    if isinstance(error, Refused):
        return answer({"error": str(error)}, 422)
    if isinstance(error, redis.RedisError):
        return answer({"error": refusal(error)}, 503, RETRY)
    log.error("%s %r failed", request.method, request.path, exc_info=error)
    return answer({"error": "The gateway made a mistake; its log tells which."}, 500)


def refusal(error: redis.RedisError) -> str:
    """The sentence on an error of Redis. One that does not pass by itself is logged, for somebody to mend."""
    if "maxmemory" in str(error):  # it has a class since Redis 7
        return FULL
    if is_transient(error):
        return AWAY
    log.error("Redis refuses %s %r", request.method, request.path, exc_info=error)
    return REFUSES
