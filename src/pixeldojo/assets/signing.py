"""Signed asset URLs: whoever holds one may download that file until it expires, without an API key."""

import hashlib
import hmac
import re
from urllib.parse import parse_qsl, urlsplit

from pixeldojo import clock, errors

PREFIX = "/api/v1/assets/"
_TIME = re.compile(r"0|[1-9][0-9]{0,14}")  # as `url_path` writes it: a file has one URL, not many that work


class Signer:
    """Makes and checks the URLs of assets with one secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def _signature(self, key: str, expires: int) -> str:
        return hmac.new(self._secret, f"{key}\n{expires}".encode(), hashlib.sha256).hexdigest()[:40]

    def url_path(self, key: str, *, expires_ms: int) -> str:
        """`/api/v1/assets/<key>?expires=…&signature=…`; expiry in whole seconds, rounded down."""
        expires = expires_ms // 1000
        return f"{PREFIX}{key}?expires={expires}&signature={self._signature(key, expires)}"

    def key_of(self, url: str) -> str | None:
        """The key of the file that this URL of ours opens, whatever host it names; None for any other URL.

        Raises `Expired` for one of ours whose time has passed.
        """
        try:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query, strict_parsing=True))
        except ValueError:
            return None
        _, ours, key = parts.path.rpartition(PREFIX)  # the service's address may have a path of its own before it
        if not ours or set(query) != {"expires", "signature"}:
            return None
        try:
            self.check(key, expires=query["expires"], signature=query["signature"])
        except errors.NotFound:
            return None
        return key

    def check(self, key: str, *, expires: str, signature: str) -> None:
        """Raises `NotFound` for a wrong signature and `Expired` for a right one whose time has passed."""
        number = int(expires) if _TIME.fullmatch(expires) else -1
        if not hmac.compare_digest(self._signature(key, number).encode(), signature.encode("utf-8", "replace")):
            raise errors.NotFound("There is no such file, or the URL was changed: use it exactly as the job gives it.")
        if number * 1000 <= clock.now_ms():
            raise errors.Expired("This file has expired and was removed.")
