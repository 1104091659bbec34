"""The files that the pages for people load, all from this service: their bytes, types and addresses."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent / "assets"
_FILES = {
    "docs.css": ("docs.css", "text/css"),
    "docs.js": ("docs.js", "text/javascript"),
    "reference.css": ("reference.css", "text/css"),
    "reference.js": ("reference.js", "text/javascript"),
    "logo.svg": ("logo.svg", "image/svg+xml"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui-LICENSE.txt": ("swagger-ui/LICENSE", "text/plain"),
    "swagger-ui-NOTICE.txt": ("swagger-ui/NOTICE", "text/plain"),
    "swagger-ui-bundle.js.LICENSE.txt": ("swagger-ui/swagger-ui-bundle.js.LICENSE.txt", "text/plain"),
}
NAMES = tuple(_FILES)


class Asset(NamedTuple):
    """A file. `version` changes with its bytes."""

    body: bytes
    media_type: str
    version: str


@functools.cache
def read(name: str) -> Asset:
    """The file of this name. Raises KeyError."""
    path, media_type = _FILES[name]
    body = (_FOLDER / path).read_bytes()
    return Asset(body, media_type, hashlib.sha256(body).hexdigest()[:12])


def address(name: str) -> str:
    """Where the file lies, with its version, so that it may be kept for ever."""
    return f"/docs/assets/{name}?v={read(name).version}"
