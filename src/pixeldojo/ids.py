"""Identifiers and secrets. Ids sort by the time they were made; secrets carry their entropy in bits.

An id is a prefix, `_`, and 32 hexadecimal digits: 48 bits of milliseconds, then 80 random bits. Listings
page by id alone, because newer ids are greater.
"""

import base64
import hashlib
import os
import random
import secrets
import threading

from pixeldojo import clock

KEY_PREFIX_CHARS = 11  # "pd_" and eight characters: enough to tell keys apart, useless to guess the rest

_turn = threading.Lock()
_random = random.Random()  # noqa: S311 - seeded by the system; an id is unique, not secret
os.register_at_fork(after_in_child=_random.seed)
_last = (-1, 0)  # the millisecond and the random part of the newest id


def new(prefix: str) -> str:
    """A fresh id such as `job_019aae5bb2a94f1c0d3e5b7a9c8d6e2f`, greater than this process's earlier ones.

    Within one millisecond the random part only grows: a charge and its refund are listed in that order.
    """
    global _last
    with _turn:
        now = clock.now_ms()
        grown = _last[1] + 1 + _random.getrandbits(40) if now == _last[0] else 0
        _last = (now, grown or _random.getrandbits(79))
        return f"{prefix}_{now:012x}{_last[1]:020x}"


def first(prefix: str, *, at_ms: int) -> str:
    """Sorts after every id made before `at_ms`, and before all others."""
    return f"{prefix}_{at_ms:012x}"


def made_ms(made: str) -> int:
    """When an id was made, in milliseconds since 1970."""
    return int(made.partition("_")[2][:12], 16)


def new_key() -> str:
    """A fresh API key: `pd_` and 192 random bits in URL-safe base 64."""
    return "pd_" + secrets.token_urlsafe(24)


def new_secret() -> str:
    """256 random bits as 64 hexadecimal characters."""
    return secrets.token_hex(32)


def new_webhook_secret() -> str:
    """256 random bits in the form of the Standard Webhooks specification: `whsec_` and base 64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def key_hash(key: str) -> str:
    """What is stored of a key. The key is random, so a plain SHA-256 can't be searched backwards."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_seed() -> int:
    """A random seed in 0 … 2³²−1."""
    return int.from_bytes(os.urandom(4))
