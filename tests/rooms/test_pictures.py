"""Pictures that nobody vouches for: every file ends as a `Picture` or as a `PictureError`, within bounds."""

import base64
import functools
import io
import struct
import time
import urllib.parse
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixeldojo.assets import pictures
from pixeldojo.assets.pictures import PictureError

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")


@functools.cache
def saved(form: str, size: tuple[int, int] = (48, 32), *, mode: str = "RGB", frames: int = 1, **options: Any) -> bytes:
    """A gradient in `form`, so that its data is neither empty nor trivial."""
    gradient = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient))
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    more: dict[str, Any] = {}
    if frames > 1:
        later = [image.point(lambda value, i=i: (value + 40 * i) % 256) for i in range(1, frames)]
        more = {"save_all": True, "append_images": later}
    out = io.BytesIO()
    image.save(out, form, **more, **options)
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, extra: bytes = b"", rows: bytes | None = None) -> bytes:
    """A grey PNG by hand, whose header need not fit its data."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = zlib.compress(bytes((width + 1) * height) if rows is None else rows)
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND")


def jpeg_frame(data: bytes) -> int:
    """Where the frame header's height stands."""
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5


def refusal(data: bytes, **options: Any) -> str:
    with pytest.raises(PictureError) as caught:
        pictures.check(data, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", mode) for mode in MODES if mode != "CMYK"]
    + [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    + [("WEBP", mode) for mode in ("RGB", "RGBA")],
)
def test_good_pictures(form: str, mode: str) -> None:
    name = form.lower()
    assert pictures.check(saved(form, mode=mode)) == pictures.Picture(name, f"image/{name}", 48, 32)


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", progressive=True),
        saved("JPEG", (1, 1)),
        saved("JPEG", (7, 3), subsampling=0, optimize=True),
        saved("JPEG", restart_marker_blocks=1),
        saved("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", icc_profile=bytes(200_000), comment=b"hello"),
        saved("MPO", frames=3),
        saved("PNG", frames=3),
        saved("PNG", (1, 1)),
        saved("WEBP", frames=3),
        saved("WEBP", lossless=True),
        saved("WEBP", lossless=True, mode="RGBA", icc_profile=bytes(500)),
        saved("WEBP", (1, 1)),
        saved("PNG") + b"trailing bytes",
        saved("JPEG") + bytes(100_000),
    ],
)
def test_kinds_of_good_pictures(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        picture = pictures.check(data)
        assert (picture.width, picture.height) == image.size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"<!doctype html><html></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        saved("GIF"),
        saved("BMP"),
        saved("TIFF"),
        saved("PPM"),
        saved("ICO"),
        b"RIFF\0\0\0\0WAVEfmt " + bytes(30),
    ],
)
def test_other_formats_are_refused(data: bytes) -> None:
    assert "PNG, JPEG or WebP" in refusal(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_found_wherever_it_ends(form: str) -> None:
    data = saved(form, (64, 64))
    for end in range(0, len(data) - 40, max(1, len(data) // 50)):
        assert refusal(data[:end])
    progressive = saved("JPEG", (64, 64), progressive=True)
    assert "incomplete" in refusal(progressive[: len(progressive) // 2])


def test_a_flipped_byte_in_a_png_is_found() -> None:
    data = bytearray(saved("PNG", (64, 64)))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    assert "damaged" in refusal(bytes(data))


def test_bombs_are_refused_by_their_header() -> None:
    started = time.perf_counter()
    jpeg, webp, lossless, animated = (
        bytearray(data)
        for data in (saved("JPEG"), saved("WEBP"), saved("WEBP", lossless=True), saved("WEBP", frames=2))
    )
    at = jpeg_frame(bytes(jpeg))
    jpeg[at : at + 4] = b"\xff\xdc\xff\xdc"
    webp[26:30] = b"\xff\x3f\xff\x3f"
    lossless[21:25] = b"\xff\xff\xff\x0f"
    animated[24:30] = b"\xfe\xff\0\xfe\xff\0"
    for data in (jpeg, webp, lossless, animated):
        assert "too large" in refusal(bytes(data))
    for width, height in ((2**31 - 1, 2**31 - 1), (100_000, 1), (8192, 8192)):
        assert "too large" in refusal(png(width, height, rows=b"\0"))
    assert time.perf_counter() - started < 1


def test_the_limit_on_pixels() -> None:
    assert pictures.check(png(100, 100), max_pixels=10_000).width == 100
    assert "10,000 pixels" in refusal(png(101, 100), max_pixels=10_000)


def test_no_pixels() -> None:
    assert "no pixels" in refusal(png(0, 10))
    assert "no pixels" in refusal(png(10, 0))
    jpeg = bytearray(saved("JPEG"))
    at = jpeg_frame(bytes(jpeg))
    jpeg[at : at + 2] = b"\0\0"
    assert "no pixels" in refusal(bytes(jpeg))


def test_floods_of_parts_are_refused() -> None:
    started = time.perf_counter()
    jpeg = saved("JPEG")
    assert "chunks" in refusal(png(8, 8, extra=png_chunk(b"tEXt", b"a\0b") * 50_000))
    assert "segments" in refusal(jpeg[:2] + b"\xff\xe5\0\x02" * 50_000 + jpeg[2:])
    assert "damaged" in refusal(jpeg[:2] + b"\xff\xe5\0\x02" + bytes(1_000_000) + jpeg[2:])
    assert "segments" in refusal(jpeg[:2] + b"\xff\xd0" * 50_000 + jpeg[2:])
    profile = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(900_000)))
    assert "profile" in refusal(png(8, 8, extra=profile * 2))
    text = png_chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(10_000_000)))
    assert "damaged" in refusal(png(8, 8, extra=text))
    assert time.perf_counter() - started < 2


def test_a_progressive_picture_with_too_many_scans() -> None:
    data = saved("JPEG", (256, 256), progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert pictures.check(data[:-2] + scan * 5 + b"\xff\xd9").width == 256
    assert "scans" in refusal(data[:-2] + scan * 100 + b"\xff\xd9")
    # behind a marker without a length, a careless walk takes what follows for a segment
    hidden = b"\xff\xd0" + struct.pack(">BBH", 0, 0, 0) + scan * 100
    assert "scans" in refusal(data[:-2] + hidden + b"\xff\xd9")


def test_a_jpeg_of_a_rare_kind() -> None:
    data = bytearray(saved("JPEG"))
    data[data.index(b"\xff\xc0") + 1] = 0xC3
    assert "lossless" in refusal(bytes(data))


def test_an_animation_costs_one_frame() -> None:
    started = time.perf_counter()
    assert pictures.check(saved("WEBP", (16, 16), frames=400)).width == 16
    assert pictures.check(png(8, 8, extra=png_chunk(b"acTL", struct.pack(">II", 100_000, 0)))).width == 8
    assert time.perf_counter() - started < 5


@pytest.mark.filterwarnings("ignore")
def test_oddities_in_metadata_are_no_reason_to_refuse() -> None:
    no_frames = png_chunk(b"acTL", struct.pack(">II", 0, 0))
    assert pictures.check(png(8, 8, extra=no_frames)).width == 8
    jpeg = saved("JPEG")
    broken_exif = b"Exif\0\0II*\0\xff\xff\xff\xff"
    segment = b"\xff\xe1" + struct.pack(">H", len(broken_exif) + 2) + broken_exif
    assert pictures.check(jpeg[:2] + segment + jpeg[2:]).width == 48


SEEDS = (
    saved("PNG"),
    saved("PNG", mode="P"),
    saved("PNG", frames=2),
    saved("JPEG"),
    saved("JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    saved("MPO", frames=2),
    saved("WEBP"),
    saved("WEBP", lossless=True),
    saved("WEBP", frames=2),
)
EDITS = st.lists(
    st.tuples(st.sampled_from(("set", "cut", "copy", "insert")), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=600, deadline=None)
@given(seed=st.sampled_from(SEEDS), edits=EDITS, early=st.booleans())
def test_mutated_pictures_end_in_a_picture_or_a_picture_error(
    seed: bytes, edits: list[tuple[str, float, bytes]], early: bool
) -> None:
    data = bytearray(seed)
    for kind, where, new in edits:
        at = int(where * min(len(data), 64 if early else len(data)))
        if kind == "set":
            data[at : at + len(new)] = new
        elif kind == "cut":
            del data[at : at + new[0]]
        elif kind == "copy":
            data[at:at] = data[at : at + new[0]]
        else:
            data[at:at] = new
    try:
        picture = pictures.check(bytes(data))
    except PictureError as error:
        assert str(error)
    else:
        assert 0 < picture.width * picture.height <= pictures.MAX_PIXELS


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([seed[:n] for seed in SEEDS for n in (4, 12, 16, 30)]), rest=st.binary(max_size=200))
def test_noise_behind_a_good_start(start: bytes, rest: bytes) -> None:
    assert refusal(start + rest)


def uri(data: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def test_data_uris() -> None:
    data = saved("PNG")
    encoded = base64.b64encode(data).decode()
    wrapped = "\n".join(encoded[i : i + 76] for i in range(0, len(encoded), 76)) + "\r\n"
    for good in (
        uri(data),
        uri(data, "image/jpeg"),  # the content decides, not this
        uri(data, "IMAGE/PNG; charset=utf-8"),
        f"DATA:image/webp;BASE64,{encoded}",
        f"data:image/png;base64,{wrapped}",
        f"data:image/png;base64,{urllib.parse.quote(encoded, safe='')}",
        f"data:image/png,{urllib.parse.quote(data)}",
    ):
        assert pictures.decode_data_uri(good, max_bytes=len(data)) == data
    assert pictures.decode_data_uri("data:image/png;base64,+/+/", max_bytes=3) == b"\xfb\xff\xbf"
    assert pictures.decode_data_uri("data:image/png;base64,%2b%2F%2B%2f", max_bytes=3) == b"\xfb\xff\xbf"


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ("", "data:image"),
        ("https://example.com/", "data:image"),
        ("data:image/png;base64", "comma"),
        ("data:,hello", "type"),
        ("data:text/html;base64,AAAA", "type"),
        ("data:image/svg+xml,<svg/>", "type"),
        ("data:image/gif;base64,AAAA", "type"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png,", "empty"),
        ("data:image/png;base64,AAA", "base64"),
        ("data:image/png;base64,AAAA=", "base64"),
        ("data:image/png;base64,=AAA", "base64"),
        ("data:image/png;base64,AA==AAAA", "base64"),
        ("data:image/png;base64,AA-_", "base64"),
        ("data:image/png;base64,AAA%41", "base64"),
        ("data:image/png;base64,ÄÄÄÄ", "ASCII"),
        ("data:image/png;base64,\ud800", "ASCII"),
        ("data:image/png;base64," + "A" * 1004, "750 bytes"),
        ("data:image/png;base64," + "A" * 10_000_000, "750 bytes"),
        ("data:image/png," + "A" * 751, "750 bytes"),
        ("data:image/png," + "%41" * 1_000_000, "percent-encoding"),
        ("data:" + "x" * 1000 + ",", "type"),
    ],
    ids=range(22),
)
def test_bad_data_uris(bad: str, part: str) -> None:
    with pytest.raises(PictureError) as caught:
        pictures.decode_data_uri(bad, max_bytes=750)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 200


@settings(max_examples=200, deadline=None)
@given(
    head=st.sampled_from(["data:image/png;base64,", "data:image/png,", "data:", ""]),
    text=st.one_of(st.text(), st.text(alphabet="AZaz09+/=%2Bb \n")),
)
def test_any_text_gives_bytes_or_a_picture_error(head: str, text: str) -> None:
    try:
        assert len(pictures.decode_data_uri(head + text, max_bytes=10)) <= 10
    except PictureError as error:
        assert str(error)
