"""API keys: what each of them allows, and who needs one. A key is shown once; Redis holds its SHA-256 alone.

A fast hash is right here, unlike for passwords: 192 random bits cannot be guessed, however fast one tries.
"""

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, TypeVar, cast

import msgspec
import redis

from dtq.errors import ConfigError, DtqError
from dtq.queue.broker import Broker

MAKE_KEY = "dtq key create --name me --scope admin"
SECRET = 24  # bytes
ID = slice(len("dtq_"), len("dtq_") + 8)  # where the id stands in a key's text
SESSION = 12 * 3600  # seconds that a login lasts
T = TypeVar("T")
log = logging.getLogger("dtq.gateway")


class Scope(StrEnum):
    """What a key may do. Each includes the ones before it."""

    READ = "read"  # look at everything
    SUBMIT = "submit"  # submit tasks and cancel them
    ADMIN = "admin"  # decide on dead tasks

    def includes(self, needed: "Scope") -> bool:
        scopes = list(Scope)
        return scopes.index(self) >= scopes.index(needed)


class KeyPolicy(StrEnum):
    """Who needs an API key."""

    OFF = "off"  # nobody: the gateway looks at no key
    OPTIONAL = "optional"  # nobody, but a key that somebody shows must be right
    REQUIRED = "required"  # everybody

    @classmethod
    def decide(cls, auth: str, reachable: bool | None) -> "KeyPolicy":
        """The policy of a gateway.

        Args:
            auth: the setting DTQ_AUTH.
            reachable: whether other machines reach the gateway. None: nobody knows, which counts as yes.
        """
        if auth == "off":
            return cls.OFF
        if auth == "auto" and reachable is False:
            return cls.OPTIONAL
        return cls.REQUIRED


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key; `sha256` is that of its whole text."""

    id: str
    name: str
    scope: Scope
    created_at: datetime
    sha256: str


# Stands in for the key of an unknown id. No text has this hash, and a comparison takes as long as any other.
NOBODY = ApiKey(id="", name="", scope=Scope.READ, created_at=datetime.min, sha256="0" * 64)
_parse = msgspec.json.Decoder(ApiKey).decode


class ApiKeys:
    """The keys of a queue. All its gateways know them, and a change counts from the next request on."""

    def __init__(self, broker: Broker) -> None:
        self._redis, self._place = broker.redis, broker.keys.access_keys

    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._redis.hlen(self._place))

    def list(self) -> Sequence[ApiKey]:
        """All of them, the oldest first."""
        return sorted(map(_parse, self._redis.hvals(self._place)), key=attrgetter("created_at"))

    def find(self, text: str) -> ApiKey | None:
        """The key of this text. A wrong text takes the same steps as a right one, and so the same time."""
        key = self.get(text[ID]) or NOBODY
        right = hmac.compare_digest(key.sha256, _sha256(text))
        return key if right else None

    def get(self, key_id: str) -> ApiKey | None:
        """The key of this id."""
        stored = self._redis.hget(self._place, key_id)
        return _parse(stored) if stored else None

    def create(self, name: str, scope: Scope) -> tuple[ApiKey, str]:
        """Makes a key. Returns it, and its text, which nobody can find out later.

        Raises:
            DtqError: the name is taken, or none that a key can have.
        """
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            raise DtqError(f"{name!r} cannot be a key's name: take 1 to 64 letters, digits, '.', '_' or '-'.")

        def add(pipe: Any, keys: Sequence[ApiKey]) -> tuple[ApiKey, str]:
            if name in [key.name for key in keys]:
                raise DtqError(
                    f"There is a key {name} already: revoke it, rotate it, or choose another name."
                )
            now = datetime.now(UTC)
            return self._write(pipe, NOBODY, id=secrets.token_hex(4), name=name, scope=scope, created_at=now)

        return self._change(add)

    def revoke(self, which: str) -> ApiKey:
        """Ends a key, by name or id, and its logins. DtqError: there is none."""

        def remove(pipe: Any, keys: Sequence[ApiKey]) -> ApiKey:
            key = _find(keys, which)
            pipe.hdel(self._place, key.id)
            return key

        return self._change(remove)

    def rotate(self, which: str) -> tuple[ApiKey, str]:
        """Gives a key, by name or id, a new secret; the old one ends. DtqError: there is none."""
        return self._change(lambda pipe, keys: self._write(pipe, _find(keys, which)))

    def _write(self, pipe: Any, key: ApiKey, **changes: Any) -> tuple[ApiKey, str]:
        """Stores a key with these changes and a secret of its own."""
        text = f"dtq_{changes.get('id', key.id)}_{secrets.token_hex(SECRET)}"
        key = msgspec.structs.replace(key, **changes, sha256=_sha256(text))
        pipe.hset(self._place, key.id, msgspec.json.encode(key))
        return key, text

    def _change(self, change: Callable[[Any, Sequence[ApiKey]], T]) -> T:
        """Changes the keys; begins again where somebody else changed them meanwhile."""

        def attempt(pipe: Any) -> T:
            keys = [_parse(stored) for stored in pipe.hvals(self._place)]
            pipe.multi()
            return change(pipe, keys)

        return cast(T, self._redis.transaction(attempt, self._place, value_from_callable=True))


class Sessions:
    """Logins: a random token stands for a key, so that the key itself is not kept in a browser."""

    def __init__(self, broker: Broker) -> None:
        self._redis, self._place, self._keys = broker.redis, broker.keys.session, ApiKeys(broker)

    def open(self, key: ApiKey) -> str:
        """Returns the token."""
        token = secrets.token_urlsafe(SECRET)
        self._redis.set(self._place + _sha256(token), f"{key.id} {key.sha256}", ex=SESSION)
        return token

    def find(self, token: str) -> ApiKey | None:
        """The key that the token stands for, until the time is over or the key is revoked or rotated."""
        stored = self._redis.get(self._place + _sha256(token))
        key_id, sha256 = stored.decode().split() if stored else ("", "")
        key = self._keys.get(key_id)
        return key if key and key.sha256 == sha256 else None

    def close(self, token: str) -> None:
        """Ends the login."""
        self._redis.delete(self._place + _sha256(token))


def policy_to_start_with(broker: Broker) -> KeyPolicy:
    """Decides the policy for the address that the settings name.

    Raises:
        ConfigError: other machines reach the gateway, and there is no key that they could show.
    """
    settings = broker.settings
    reachable = is_reachable(settings.host)
    policy = KeyPolicy.decide(settings.auth, reachable)
    if policy is KeyPolicy.REQUIRED and reachable and not _has_key(broker):
        raise ConfigError(
            f"Other machines reach {settings.host}, and there is no API key: make one with `{MAKE_KEY}`, "
            "or set DTQ_AUTH=off to serve everybody who reaches this address."
        )
    return policy


def warn(policy: KeyPolicy, broker: Broker) -> None:
    """Warns where the policy may surprise: it lets nobody in, or everybody."""
    host = broker.settings.host
    if policy is KeyPolicy.REQUIRED and not _has_key(broker):
        log.warning("there is no API key, so nobody is answered: make one with `%s`", MAKE_KEY)
    if policy is KeyPolicy.OFF and is_reachable(host):
        log.warning("DTQ_AUTH=off: whoever reaches %s may do everything", host)


def is_reachable(host: str) -> bool:
    """Whether other machines reach this address. An empty one stands for all addresses of this machine."""
    found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return not all(ipaddress.ip_address(str(address[0])).is_loopback for *_, address in found)


def _has_key(broker: Broker) -> bool:
    try:
        return ApiKeys(broker).any()
    except redis.RedisError:  # Nobody can know now. The gateway lets nobody in without a key in any case.
        return True


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _find(keys: Sequence[ApiKey], which: str) -> ApiKey:
    for key in keys:
        if which in (key.id, key.name):
            return key
    raise DtqError(f"There is no key {which}: `dtq key list` shows those that there are.")
