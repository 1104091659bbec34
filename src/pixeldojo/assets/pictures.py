"""Input pictures that nobody vouches for: bytes or a `data:` URI in, a `Picture` or a `PictureError` out.

A file is judged by its content alone. Its structure is walked first, which finds the size and the bombs
before a decoder allocates anything; then it is decoded once, because only that shows that it is whole.
"""

import asyncio
import binascii
import io
import re
import urllib.parse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MAX_PIXELS = 2**25  # 8K video frames and 24-megapixel photographs fit
MAX_SIDE = 16_384
MAX_PARTS = 16_384  # chunks of a PNG file, segments of a JPEG file: each costs Pillow some 10 µs and an object
MAX_SCANS = 50  # of a JPEG file: each is a pass over all its pixels, and may be a few bytes long
_MAX_JUNK = 1024  # bytes between two JPEG segments, which Pillow skips one by one
_MAX_HEAD = 200  # characters before the comma of a data URI, which are kept with the job
_MAX_PERCENT = 2**20  # characters of a percent-encoded URI: unquoting takes forty times its size

_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp")
_WANTED = "send PNG, JPEG or WebP"
_SPACES = b" \t\r\n\f"

# Oddities in metadata are of no interest here, and a warning on stderr tells nobody anything.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PictureError(ValueError):
    """The picture can't be used. The message is for the caller: what is wrong, and the remedy."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What an accepted picture is. Width and height are in pixels as stored, before any EXIF rotation."""

    format: str  # "png", "jpeg" or "webp"
    content_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    start: re.Pattern[bytes]
    size: Callable[[bytes], tuple[int, int]]
    open: Callable[[io.BytesIO], ImageFile.ImageFile]


def decode_data_uri(uri: str, *, max_bytes: int) -> bytes:
    """The bytes in a `data:` URI (RFC 2397), at most `max_bytes`. The type it claims is not trusted, but must
    be one of ours. Line breaks in base64 are accepted, since command-line tools make them."""
    head, comma, payload = uri.partition(",")
    if head[:5].lower() != "data:":
        raise PictureError("not a data URI: it must start with data:image/png;base64,")
    if not comma:
        raise PictureError("the data URI has no comma before its data")
    content_type, *parameters = (part.strip().lower() for part in head[5:].split(";"))
    if content_type not in _TYPES:
        raise PictureError(f"the data URI has the type {content_type[:80]!r}: {_WANTED}")
    if len(head) > _MAX_HEAD:
        raise PictureError("the data URI has too much before its comma: send data:image/png;base64,")
    try:
        raw = payload.encode("ascii")
    except UnicodeEncodeError:
        raise PictureError("the data URI contains characters that are not ASCII") from None
    data = _from_base64(raw, max_bytes) if "base64" in parameters else _from_percent(raw)
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    if not data:
        raise PictureError("the data URI is empty")
    return data


def _from_base64(raw: bytes, max_bytes: int) -> bytes:
    if b"%" in raw:
        for escape, char in ((b"2B", b"+"), (b"2F", b"/"), (b"3D", b"="), (b"0A", b""), (b"0D", b"")):
            raw = raw.replace(b"%" + escape, char).replace(b"%" + escape.lower(), char)
    raw = raw.translate(None, _SPACES)
    if len(raw) // 4 * 3 > max_bytes + 3:  # before a byte of it is decoded
        raise too_large(max_bytes)
    try:
        if len(raw) % 4 or raw.endswith(b"==="):  # Python versions differ in what they make of these
            raise binascii.Error
        return binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        raise PictureError("the data URI is not valid base64 (standard alphabet, padded with =)") from None


def _from_percent(raw: bytes) -> bytes:
    if len(raw) > _MAX_PERCENT:
        raise PictureError("the data URI is too long for percent-encoding: use base64")
    return urllib.parse.unquote_to_bytes(raw.translate(None, _SPACES))


def too_large(max_bytes: int) -> PictureError:
    """What to raise for a picture of more bytes than allowed."""
    return PictureError(f"the picture is larger than {max_bytes:,} bytes")


def check(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Which picture `data` holds. Of an animation only the first frame counts. Raises `PictureError` alone.

    Takes up to two seconds and some 300 MB for the largest picture: run it in a thread.
    """
    form = next((form for form in _FORMATS if form.start.match(data)), None)
    if form is None:
        raise PictureError(f"the data is not a picture in a format we read: {_WANTED}")
    width, height = form.size(data)
    if not width or not height:
        raise PictureError("the picture has no pixels")
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise PictureError(
            f"the picture is too large at {width} × {height}: at most {max_pixels:,} pixels, no side over {MAX_SIDE:,}"
        )
    try:
        with form.open(io.BytesIO(data)) as image:
            same = image.size == (width, height)
            if same:
                image.draft(None, (1, 1))  # libjpeg makes 1/64 of the pixels, but has to read the whole file
                image.load()
    except Exception:  # a decoder given hostile data may raise anything, and all of it means the same
        raise _damaged(form.name.upper()) from None
    if not same:
        raise PictureError(f"the {form.name.upper()} picture states two sizes")
    return Picture(form.name, f"image/{form.name}", width, height)


def _damaged(name: str) -> PictureError:
    return PictureError(f"the {name} picture is damaged or incomplete")


def _png_size(data: bytes) -> tuple[int, int]:
    """(width, height). Layout: PNG specification, section 5: length, type, data, CRC."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise _damaged("PNG")
    at, profiles = 8, 0
    for _ in range(MAX_PARTS):
        kind = data[at + 4 : at + 8]
        profiles += kind == b"iCCP"
        if profiles > 1:  # each is unpacked, a kilobyte into a megabyte
            raise PictureError("the PNG picture has more than one colour profile: save it anew")
        if len(kind) < 4 or kind == b"IEND":
            return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        at += 12 + int.from_bytes(data[at : at + 4])
    raise PictureError(f"the PNG picture has more than {MAX_PARTS:,} chunks: save it anew")


_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a scan holds stuffed zeros and restart markers


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height). Layout: ITU T.81, annex B. Only DCT frames, as draft mode can't scale others."""
    at, scans, size = 2, 0, (0, 0)
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at, at + _MAX_JUNK)
        if found is None:
            raise _damaged("JPEG")
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            return size
        if marker in _BARE:  # a length read here would let scans hide from the count
            continue
        segment = data[at : at + int.from_bytes(data[at : at + 2])]
        at += max(len(segment), 2)
        if marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
            if len(segment) < 7 or size != (0, 0):
                raise _damaged("JPEG")
            size = int.from_bytes(segment[5:7]), int.from_bytes(segment[3:5])
        elif marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xCB, 0xCD, 0xCE, 0xCF):
            raise PictureError("the JPEG picture is lossless or hierarchical: save it as a common JPEG")
        elif marker == 0xDA:
            scans += 1
            following = _AFTER_SCAN.search(data, at)
            if scans > MAX_SCANS:
                raise PictureError(f"the JPEG picture has more than {MAX_SCANS} scans: save it anew")
            if following is None:  # some cameras leave the end marker out; the decoder knows whether data lacks
                return size
            at = following.start()
    raise PictureError(f"the JPEG picture has more than {MAX_PARTS:,} segments: save it anew")


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the canvas. Layout: RFC 9649, sections 2.5 to 2.7.

    Needed before the decoder is made: that allocates the canvas, and the header may ask for 17 GB."""
    chunk = data[12:16]
    if len(data) < 30:
        raise _damaged("WEBP")
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


# The classes themselves and not `Image.open`: nothing but these three decoders can ever run.
_FORMATS = (
    _Format("png", re.compile(rb"\x89PNG\r\n\x1a\n"), _png_size, PngImagePlugin.PngImageFile),
    _Format("jpeg", re.compile(rb"\xff\xd8\xff"), _jpeg_size, JpegImagePlugin.JpegImageFile),
    _Format("webp", re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL), _webp_size, WebPImagePlugin.WebPImageFile),
)


_aside = asyncio.Semaphore(2)  # a decoded picture is large: two at a time bound the memory


async def check_aside(data: bytes) -> Picture:
    """`check` on a thread, two at a time in the whole process."""
    async with _aside:
        return await asyncio.to_thread(check, data)
