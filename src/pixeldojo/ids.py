"""Identifiers and secrets. Ids sort by the time they were made; secrets carry their entropy in bits.

An id is a prefix, `_`, and 26 Crockford base-32 characters: 48 bits of milliseconds, then 80 random bits
(the ULID layout). Listings page by id alone, because newer ids are greater.
"""

import hashlib
import os
import secrets

from pixeldojo import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]  # ten bits at a time: half the steps of five

KEY_PREFIX_CHARS = 11  # "pd_" and eight characters: enough to tell keys apart, useless to guess the rest


def new(prefix: str) -> str:
    """A fresh id such as `job_01jd3k0c8m4x8y2v7q5n6r9tzw`."""
    number = (clock.now_ms() << 80) | int.from_bytes(os.urandom(10))
    tail = "".join(
        [_PAIRS[(number >> shift) & 1023] for shift in (120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0)]
    )
    return f"{prefix}_{tail}"


def new_key() -> str:
    """A fresh API key: `pd_` and 192 random bits in URL-safe base 64."""
    return "pd_" + secrets.token_urlsafe(24)


def new_secret() -> str:
    """256 random bits as 64 hexadecimal characters."""
    return secrets.token_hex(32)


def key_hash(key: str) -> str:
    """What is stored of a key. The key is random, so a plain SHA-256 can't be searched backwards."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_seed() -> int:
    """A random seed in 0 … 2³²−1."""
    return int.from_bytes(os.urandom(4))
