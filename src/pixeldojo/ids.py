"""Identifiers and secrets. Ids sort by the time they were made; secrets carry their entropy in bits.

An id is a prefix, `_`, and 32 hexadecimal digits: 48 bits of milliseconds, then 80 random bits. Listings
page by id alone, because newer ids are greater.
"""

import hashlib
import os
import secrets

from pixeldojo import clock

KEY_PREFIX_CHARS = 11  # "pd_" and eight characters: enough to tell keys apart, useless to guess the rest


def new(prefix: str) -> str:
    """A fresh id such as `job_019aae5bb2a94f1c0d3e5b7a9c8d6e2f`."""
    return f"{prefix}_{clock.now_ms():012x}{os.urandom(10).hex()}"


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
