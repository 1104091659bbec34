"""The embedded upscaler, with its real weights: what a caller may rely on for any picture."""

import io
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from PIL import Image, ImageDraw

import studio
from pixeldojo.assets import pictures
from pixeldojo.engines import engine as engines
from pixeldojo.engines.dojo import canvas, upscale
from pixeldojo.engines.dojo import enlarge as enlarging
from studio import Listener, encoded, on_white, pixels

CARD = studio.card("dojo-upscale")
DEFAULTS = studio.defaults(CARD)
INK, SUN, SEA, CLEAR = (60, 30, 20, 255), (255, 200, 40, 255), (40, 120, 220, 255), (0, 0, 0, 0)

Enlarge = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def loaded() -> upscale.UpscaleEngine:
    made = upscale.UpscaleEngine(threads=2)
    made.load()
    return made


@pytest.fixture
def enlarge(loaded: upscale.UpscaleEngine, tmp_path: Path) -> Enlarge:
    """The result for a picture or a file's bytes; the parameters are the defaults and what is given."""

    def one(source: Image.Image | bytes, **params: Any) -> Image.Image:
        (tmp_path / "in").write_bytes(source if isinstance(source, bytes) else encoded(source))
        (output,) = loaded.generate(DEFAULTS | params, tmp_path, Listener({"image_url": tmp_path / "in"}))
        with Image.open(tmp_path / output.file) as made:
            made.load()
        assert (output.width, output.height, output.content_type) == (*made.size, Image.MIME[made.format or ""])
        return made

    return one


def drawn(shape: str, side: int = 192) -> Image.Image:
    """A picture with sharp edges on a transparent ground, smoothed by drawing it four times as large."""
    large = 4 * side
    picture = Image.new("RGBA", (large, large), CLEAR)
    pen, at = ImageDraw.Draw(picture), large / 100
    if shape == "face":
        pen.ellipse((6 * at, 6 * at, 94 * at, 94 * at), fill=SUN)
        for left in (28, 60):
            pen.ellipse((left * at, 30 * at, (left + 12) * at, 50 * at), fill=INK)
        pen.arc((26 * at, 34 * at, 74 * at, 80 * at), 20, 160, fill=INK, width=round(5 * at))
    elif shape == "house":
        pen.polygon([(50 * at, 6 * at), (94 * at, 46 * at), (6 * at, 46 * at)], fill=(200, 50, 50, 255))
        pen.rectangle((16 * at, 46 * at, 84 * at, 94 * at), fill=SUN)
        pen.rectangle((42 * at, 62 * at, 60 * at, 94 * at), fill=INK)
    else:
        points = [
            (at * (50 + r * math.sin(n * math.pi / 5)), at * (52 - r * math.cos(n * math.pi / 5)))
            for n, r in enumerate([46, 19] * 5)
        ]
        pen.polygon(points, fill=SEA, outline=INK, width=round(3 * at))
    return picture.reduce(4)


def shrunk(picture: Image.Image, scale: int) -> Image.Image:
    return picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)


def psnr(found: Image.Image, wanted: Image.Image) -> float:
    """In decibels, on white."""
    one, other = (pixels(on_white(each.convert("RGBA")), "RGB") for each in (found, wanted))
    return float(10 * np.log10(255**2 / max(np.square(one - other).mean(), 1e-6)))


@pytest.mark.parametrize("shape", ["face", "house", "star"])
def test_it_comes_closer_to_the_truth_than_bicubic_enlargement(enlarge: Enlarge, shape: str) -> None:
    wanted = drawn(shape)
    for scale in enlarging.SCALES:
        small = shrunk(wanted, scale)
        plain = small.resize(wanted.size, Image.Resampling.BICUBIC)
        assert psnr(enlarge(small, scale=scale), wanted) >= psnr(plain, wanted) + 1


@pytest.mark.parametrize("scale", enlarging.SCALES)
def test_tiles_leave_no_seams(enlarge: Enlarge, monkeypatch: pytest.MonkeyPatch, scale: int) -> None:
    small = drawn("star", 100)
    whole = pixels(enlarge(small, scale=scale))
    monkeypatch.setattr(enlarging, "TILE", 24)
    assert len(list(enlarging.tiles(100, 100))) == 25
    difference = np.abs(pixels(enlarge(small, scale=scale)) - whole)
    opaque = whole[..., 3] > 200
    assert difference[opaque].max() <= 1
    assert difference[..., 3].max() <= 1


def test_tiles_cover_every_pixel_once() -> None:
    for height, width in ((1, 1), (enlarging.TILE, enlarging.TILE + 1), (500, 3)):
        seen = np.zeros((height, width), int)
        for tile in enlarging.tiles(height, width):
            seen[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (97, 5), (129, 33)])
@pytest.mark.parametrize("scale", enlarging.SCALES)
def test_odd_sizes(enlarge: Enlarge, size: tuple[int, int], scale: int) -> None:
    made = enlarge(Image.new("RGB", size, (30, 200, 90)), scale=scale)
    assert made.size == (size[0] * scale, size[1] * scale)
    assert made.mode == "RGB"
    assert np.abs(pixels(made, "RGB") - (30, 200, 90)).max() <= 12


@pytest.mark.parametrize("mode", studio.MODES)
def test_every_colour_mode_is_read(enlarge: Enlarge, mode: str) -> None:
    data, transparent = studio.of_mode(drawn("face", 40), mode)
    pictures.check(data)  # what reaches an engine has passed it
    made = enlarge(data)
    assert made.size == (80, 80)
    assert made.mode == ("RGBA" if transparent else "RGB")
    wanted = drawn("face", 40).convert("RGBA").resize((80, 80), Image.Resampling.BICUBIC)
    shown, meant = (on_white(each.convert("RGBA")).convert("L") for each in (made, wanted))
    if mode == "1":
        meant = meant.point(lambda level: 255 * (level > 127))
    assert np.abs(pixels(shown, "L") - pixels(meant, "L")).mean() < 6
    if transparent:
        alpha = pixels(made)[..., 3]
        assert alpha[0, 0] == 0
        assert alpha[40, 20] > 250


def test_alpha_is_kept_and_hidden_colours_stay_hidden(enlarge: Enlarge) -> None:
    values = np.zeros((48, 48, 4), np.uint8)
    values[..., :3] = (255, 0, 255)  # of the transparent pixels, which nobody may see
    values[12:36, 12:36] = (20, 160, 60, 255)
    made = pixels(enlarge(Image.fromarray(values), scale=4))
    alpha = made[..., 3]
    assert (alpha[64:128, 64:128] == 255).all()
    assert (made[:40] == 0).all(), "clear, without the colour"
    seen = alpha > 128
    assert np.abs(made[seen][:, :3] - (20, 160, 60)).max() <= 48
    halves = pixels(enlarge(Image.new("RGBA", (20, 20), (200, 100, 50, 128))))
    assert np.abs(halves[4:-4, 4:-4] - (200, 100, 50, 128)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_is_held_upright(enlarge: Enlarge, orientation: int) -> None:
    """The file holds the picture turned, and says so; the result is upright."""
    upright = Image.new("RGB", (24, 16), "white")
    upright.paste((220, 30, 30), (0, 0, 8, 8))
    made = enlarge(studio.stored_turned(upright, orientation))
    assert made.size == (48, 32)
    assert np.abs(pixels(made, "RGB")[6, 6] - (220, 30, 30)).max() < 12
    assert not made.getexif()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"]
)
def test_damaged_metadata_are_no_obstacle(enlarge: Enlarge, exif: bytes) -> None:
    assert enlarge(encoded(Image.new("RGB", (9, 5)), "JPEG", exif=exif)).size == (18, 10)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(enlarge: Enlarge, form: str) -> None:
    first, then = (Image.new("RGB", (16, 16), colour) for colour in ((20, 30, 200), (200, 30, 20)))
    data = encoded(first, form, save_all=True, append_images=[then], lossless=True)
    made = enlarge(data)
    assert getattr(made, "n_frames", 1) == 1
    assert np.abs(pixels(made, "RGB") - (20, 30, 200)).max() <= 12


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_every_format(enlarge: Enlarge, encoding: str) -> None:
    made = enlarge(drawn("face", 64), format=encoding)
    reference = enlarge(drawn("face", 64))
    assert (made.format, made.size) == (encoding.upper(), (128, 128))
    assert made.mode == ("RGB" if encoding == "jpeg" else "RGBA")
    assert psnr(made, reference) > 30
    if encoding == "jpeg":
        assert (pixels(made, "RGB")[0, 0] > 250).all(), "on white"


@pytest.mark.parametrize(
    ("size", "scale", "says"),
    [
        ((1025, 10), 4, "would become 4100 × 40, and the limit is 4096 pixels a side: "
                        "send one of at most 1024 pixels a side, or ask for scale 2."),
        ((2049, 10), 4, "send one of at most 1024 pixels a side."),
        ((10, 2049), 2, "would become 20 × 4098, and the limit is 4096 pixels a side: "
                        "send one of at most 2048 pixels a side."),
    ],
)  # fmt: skip
def test_what_would_be_too_large_is_refused(enlarge: Enlarge, size: tuple[int, int], scale: int, says: str) -> None:
    with pytest.raises(engines.Refusal) as refused:
        enlarge(Image.new("L", size), scale=scale)
    assert str(refused.value).startswith(f"image_url: the picture of {size[0]} × {size[1]} pixels ")
    assert str(refused.value).endswith(says)


def test_the_largest_side_is_made(enlarge: Enlarge) -> None:
    assert enlarge(Image.new("L", (1024, 3)), scale=4).size == (4096, 12)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_truncated_files_and_others_are_refused(enlarge: Enlarge, form: str) -> None:
    whole = encoded(on_white(drawn("star", 64)), form)
    for data in (whole[: len(whole) // 2], whole[:20], b"", b"GIF89a" + whole):
        with pytest.raises(engines.Refusal, match="send a whole PNG, JPEG or WebP file"):
            enlarge(data)


def test_the_same_picture_gives_the_same_bytes_on_any_number_of_cores(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(encoded(drawn("house", 150)))
    made = set()
    for threads in (1, 3, 3):
        engine = upscale.UpscaleEngine(threads=threads)
        engine.load()
        engine.generate(DEFAULTS, tmp_path, Listener({"image_url": tmp_path / "in"}))
        made.add((tmp_path / "0.png").read_bytes())
    assert len(made) == 1


def test_progress_and_previews(loaded: upscale.UpscaleEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enlarging, "TILE", 64)
    (tmp_path / "in").write_bytes(encoded(drawn("face", 192)))
    listener = Listener({"image_url": tmp_path / "in"}, curious=True)
    loaded.generate(DEFAULTS, tmp_path, listener)
    assert listener.heard == [pytest.approx(done / 10) for done in range(1, 10)]
    assert len(listener.previews) == 9
    first, last = (Image.open(io.BytesIO(listener.previews[n])) for n in (0, -1))
    assert first.size == last.size == (192, 192)
    assert pixels(first)[..., 3].sum() < pixels(last)[..., 3].sum(), "tile after tile"
    assert all(len(each) < 64 * 1024 for each in listener.previews)


def test_cancelling_ends_within_a_tile(
    loaded: upscale.UpscaleEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[enlarging.Tile] = []
    draw, lock = enlarging.draw, threading.Lock()

    def counted(graph: Any, small: enlarging.Bytes, large: enlarging.Bytes, tile: enlarging.Tile) -> None:
        with lock:
            begun.append(tile)
        draw(graph, small, large, tile)

    monkeypatch.setattr(enlarging, "draw", counted)
    monkeypatch.setattr(enlarging, "TILE", 32)
    (tmp_path / "in").write_bytes(encoded(Image.new("RGB", (512, 512))))
    with pytest.raises(engines.Cancelled):
        loaded.generate(DEFAULTS, tmp_path, Listener({"image_url": tmp_path / "in"}, patience=2))
    assert 3 <= len(begun) < 64, "of 256"
    assert not (tmp_path / "0.png").exists()


def test_the_card_tells_what_the_engine_does() -> None:
    properties = CARD["schema"]["properties"]
    assert tuple(properties["scale"]["enum"]) == enlarging.SCALES
    assert properties["format"]["enum"] == list(canvas.ENCODING)
    assert f"at most {upscale.MOST_SIDE} pixels" in CARD["limits"][0]
    for scale in enlarging.SCALES:
        assert str(upscale.MOST_SIDE // scale) in properties["image_url"]["description"]


def test_the_cards_examples_are_enlarged(enlarge: Enlarge) -> None:
    for example in CARD["examples"]:
        jsonschema_rs.validate(CARD["schema"], example)
        data = pictures.decode_data_uri(example["image_url"], max_bytes=2000)
        params = {name: value for name, value in example.items() if name != "image_url"}
        assert enlarge(data, **params).mode == "RGBA"
