"""Small things that want to become large: the tables of them. Made when they are asked for, since that takes time."""

import functools
import gzip
import io
import struct
import zlib
from typing import Any

from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 1, extra: bytes = b"", rows: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = _chunk(b"IDAT", zlib.compress(rows or bytes(64), 9))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra + body + _chunk(b"IEND", b"")


def _webp(width: int, height: int) -> bytes:
    canvas = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + b"VP8L" + struct.pack("<I", 8) + bytes(8)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _saved(form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, form, **options)
    return out.getvalue()


def _nested(depth: int, start: str, end: str) -> bytes:
    return (start * depth + "1" + end * depth).encode()


@functools.cache
def pictures() -> dict[str, bytes]:
    """What is sent as a picture."""
    bomb = zlib.compress(bytes(20_000_000), 9)
    tiff = b"II*\0\x08\0\0\0\x02\0" + b"".join(struct.pack("<HHII", tag, 4, 1, 100_000) for tag in (256, 257))
    scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    return {
        "a PNG of 60,000 × 60,000": png(60_000, 60_000),
        "a PNG of 2³¹ × 2³¹": png(2**31 - 1, 2**31 - 1),
        "a PNG that is one line": png(2**25 + 8, 1),
        "a PNG with more rows than it says": png(8, 8, rows=bytes(20_000_000)),
        "a PNG with a text of 20 MB": png(8, 8, extra=_chunk(b"zTXt", b"k\0\0" + bomb)),
        "a PNG with a text of 20 MB, international": png(8, 8, extra=_chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)),
        "a PNG with a profile of 20 MB": png(8, 8, extra=_chunk(b"iCCP", b"k\0\0" + bomb)),
        "a PNG with a hundred profiles": png(8, 8, extra=_chunk(b"iCCP", b"k\0\0" + bomb[:1000]) * 100),
        "a PNG of a million chunks": png(8, 8, extra=_chunk(b"tEXt", b"k\0v") * 20_000),
        "a WebP canvas of 16,777,216 × 16,777,216": _webp(2**24, 2**24),
        "a WebP canvas of 16,383 × 16,383": _webp(16_383, 16_383),
        "a JPEG of 65,535 × 65,535": b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xd9",
        "a JPEG of ten thousand scans": _saved("JPEG")[:-2] + scan * 10_000 + b"\xff\xd9",
        "a GIF of 65,535 × 65,535": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        "a GIF": _saved("GIF"), "a TIFF of 100,000 × 100,000": tiff + bytes(8), "a TIFF": _saved("TIFF"),
        "a BMP of 2³¹ × 2³¹": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 2**31 - 1, 2**31 - 1, 1, 24) + bytes(24),
        "an ICO": _saved("ICO"), "a PPM of 10¹⁰": b"P6 100000 100000 255 " + bytes(100), "a TGA": _saved("TGA"),
        "JPEG 2000": _saved("JPEG2000"), "a PDF": _saved("PDF"),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run",
        "an SVG of laughs": b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><svg>&c;</svg>',
        "an SVG that reads files": b'<svg xmlns:x="http://www.w3.org/1999/xlink"><image x:href="file:///etc/passwd"/></svg>',
        "a script for ImageMagick": b'push graphic-context\nimage over 0,0 0,0 "|id"\npop graphic-context',
        "an archive": b"PK\x03\x04" + bytes(100), "a gzip of 20 MB": gzip.compress(bytes(20_000_000)),
        "Brotli, perhaps": b"\xce\xb2\xcf\x81" + bytes(100), "a program": b"\x7fELF" + bytes(100),
        "null bytes": bytes(1000),
    }  # fmt: skip


@functools.cache
def bodies() -> dict[str, bytes]:
    """What is sent as JSON."""
    return {
        "deep lists": b'{"prompt": ' + _nested(100_000, "[", "]") + b"}",
        "deep objects": b'{"prompt": ' + _nested(100_000, '{"a":', "}") + b"}",
        "lists that never end": b"[" * 1_000_000,
        "a million names": b"{" + b",".join(b'"k%d":1' % i for i in range(1_000_000)) + b"}",
        "twenty thousand names": b"{" + b",".join(b'"k%d":1' % i for i in range(20_000)) + b"}",
        "wrong names in 60 kB": b'{"prompt":"x","metadata":{'
        + b",".join(b'"k %d":1' % i for i in range(5_000)) + b"}}",
        "few wrong names around large values": b'{"prompt":"x","metadata":{'
        + b",".join(b'"k %d":"%s"' % (i, b"z" * 40_000) for i in range(200)) + b"}}",
        "names of a megabyte": b'{"prompt":"x","metadata":{'
        + b",".join(b'"%d %s":[]' % (i, b"z" * 10**6) for i in range(9)) + b"}}",
        "four million lists": b'{"prompt":[' + b",".join([b"[]"] * 4_000_000) + b"]}",
        "a long list of words": b'{"prompt":"x","webhook_events_filter":[' + b",".join([b'"start"'] * 9_000) + b"]}",
        "a number of a million digits": b'{"prompt":"x","seed":' + b"9" * 1_000_000 + b"}",
        "a fraction of a million digits": b'{"prompt":"x","seed":0.' + b"1" * 1_000_000 + b"}",
        "an exponent": b'{"prompt":"x","seed":1e1000000000}',
        "a small exponent": b'{"prompt":"x","seed":1e-1000000000, "num_outputs": 1e-400}',
        "a million escapes": b'{"prompt":"' + b"\\u0041" * 1_000_000 + b'"}',
        "a million blanks": b'{"prompt":' + b" " * 1_000_000 + b"1}",
        "a million quotes": b'{"prompt":"' + b'\\"' * 1_000_000 + b'"}',
    }  # fmt: skip
