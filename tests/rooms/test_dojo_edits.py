"""Pictures given to the embedded image model: image-to-image, inpainting, and every kind of wrong file."""

import io
import struct
import zlib
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
from pixeldojo.engines.dojo import canvas, edits, engine, reading
from studio import Listener, encoded, pixels

CARD = studio.card("dojo-mini")
QUICK = studio.defaults(CARD) | {"prompt": "a red apple", "seed": 3, "steps": 4}

Edit = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def loaded() -> engine.DojoEngine:
    made = engine.DojoEngine(threads=2)
    made.load()
    return made


@pytest.fixture
def edit(loaded: engine.DojoEngine, tmp_path: Path) -> Edit:
    """The result for a picture, and a mask where there is one; the parameters are `QUICK` and what is given."""

    def one(source: Image.Image | bytes | None, mask: Image.Image | bytes | None = None, **params: Any) -> Image.Image:
        inputs = {}
        for name, each in (("image_url", source), ("mask_url", mask)):
            if each is not None:
                inputs[name] = tmp_path / name
                inputs[name].write_bytes(each if isinstance(each, bytes) else encoded(each))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        (output,) = loaded.generate(QUICK | params, out, Listener(inputs))
        with Image.open(out / output.file) as made:
            made.load()
        assert (output.width, output.height) == made.size
        return made

    return one


def ball(size: tuple[int, int] = (300, 300), *, ground: Any = (0, 0, 0, 0)) -> Image.Image:
    """A green ball in the middle."""
    picture = Image.new("RGBA", (size[0] * 2, size[1] * 2), ground)
    middle, reach = picture.width / 2, min(picture.size) * 0.4
    box = (middle - reach, picture.height / 2 - reach, middle + reach, picture.height / 2 + reach)
    ImageDraw.Draw(picture).ellipse(box, fill=(40, 170, 70, 255))
    return picture.reduce(2)


def left_half(size: tuple[int, int]) -> Image.Image:
    """A mask whose left half is white."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def png_of(width: int, height: int) -> bytes:
    """A PNG file that only says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


# -- image-to-image ---------------------------------------------------------------------------------------------------


def test_strength_says_how_far_it_goes(edit: Edit) -> None:
    given = ball((256, 256))
    away = [
        float(np.abs(pixels(edit(given, strength=strength, size=256)) - pixels(given)).mean())
        for strength in (0.1, 0.5, 1.0)
    ]
    assert away[0] < away[1] < away[2], away
    assert away[0] < 12, "nearly as it was"


def test_seven_tenths_is_the_usual_strength(edit: Edit) -> None:
    given = ball((256, 256))
    assert edit(given).tobytes() == edit(given, strength=edits.STRENGTH).tobytes()
    assert f"{edits.STRENGTH}," in CARD["schema"]["properties"]["strength"]["description"]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((300, 200), (300, 200)), ((40, 30), (256, 192)), ((1, 1), (256, 256)), ((2000, 1500), (1024, 768)),
     ((77, 300), (77, 300)), ((3, 2), (256, 171)), ((501, 499), (501, 499))],
)  # fmt: skip
def test_the_result_has_the_pictures_own_shape_and_size(
    edit: Edit, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert edit(ball(size, ground="white")).size == wanted


def test_size_and_ratio_can_be_asked_for(edit: Edit) -> None:
    assert edit(ball((300, 200)), size=400).size == (400, 267)
    assert edit(ball((300, 200)), size=400, aspect_ratio="1:1").size == (400, 400)
    assert edit(ball((100, 900)), aspect_ratio="16:9", size=320).size == (320, 180)


@pytest.mark.parametrize("size", [(2047, 1000), (2048, 1000), (4096, 1100)])
def test_what_is_cropped_is_as_large_as_the_picture_has_it(edit: Edit, size: tuple[int, int]) -> None:
    assert edit(Image.new("RGB", size, "navy"), aspect_ratio="1:1").size == (min(1024, size[1]),) * 2


def test_another_ratio_crops_what_is_opaque_and_widens_what_is_not(edit: Edit) -> None:
    stripes = Image.new("RGB", (400, 200), "red")
    stripes.paste("blue", (100, 0, 300, 200))
    cropped = pixels(edit(stripes, strength=0.1, aspect_ratio="1:1"), "RGB").mean(axis=(0, 1))
    assert cropped[2] > 2 * cropped[0], "the middle"
    widened = pixels(edit(ball((300, 300)), strength=0.1, aspect_ratio="16:9"))
    assert widened.shape[:2] == (300, 533)
    assert (widened[:, :60, 3] < 20).mean() > 0.95
    assert widened[150, 266, 3] > 200


def test_nothing_is_stretched(edit: Edit) -> None:
    """A ball stays round on every canvas."""
    for size in ((320, 180), (180, 320), (256, 192)):
        made = pixels(edit(ball(size), strength=0.1))
        rows, columns = np.nonzero(made[..., 3] > 128)
        assert np.ptp(columns) == pytest.approx(np.ptp(rows), rel=0.06)
        assert np.ptp(rows) == pytest.approx(0.8 * min(size), rel=0.08)


def test_what_is_transparent_stays_so_unless_a_ground_is_asked_for(edit: Edit) -> None:
    given = ball((256, 256))
    kept = edit(given, strength=0.2)
    assert kept.mode == "RGBA" and kept.getpixel((2, 2)) == (0, 0, 0, 0)
    laid = edit(given, strength=0.2, background="tomato")
    assert laid.mode == "RGB" and laid.getpixel((2, 2)) == (255, 99, 71)
    jpeg = edit(given, strength=0.2, format="jpeg")
    assert pixels(jpeg, "RGB")[2, 2].min() > 250
    assert edit(ball((256, 256), ground="navy"), strength=0.2).mode == "RGB"
    assert edit(ball((256, 256), ground="navy"), background="transparent", strength=0.2).mode == "RGBA"


def test_the_prompts_ground_is_left_to_the_model(edit: Edit) -> None:
    """So it is a part of the prompt, as it is not where there is no picture."""
    given = ball((256, 256), ground="navy")
    assert edit(given, prompt="a ball").tobytes() != edit(given, prompt="a ball on a yellow background").tobytes()


# -- inpainting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (97, 203), (1024, 768)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_untouched_pixels_come_back_byte_for_byte(edit: Edit, size: tuple[int, int], mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    given = Image.fromarray(noise)
    made = edit(given, left_half(size), prompt="a house", size=max(size))
    assert (made.size, made.mode) == (size, mode)
    middle = size[0] // 2
    assert (pixels(made, mode)[:, middle:] == pixels(given, mode)[:, middle:]).all()
    assert np.abs(pixels(made, mode)[:, : middle - 8] - pixels(given, mode)[:, : middle - 8]).mean() > 10


def test_at_another_size_the_untouched_part_is_the_resized_picture(edit: Edit) -> None:
    given = ball((300, 300), ground="navy").convert("RGB")
    made = edit(given, left_half((300, 300)), size=512)
    wanted = given.convert("RGBA").resize((512, 512), Image.Resampling.BICUBIC)
    assert (pixels(made, "RGB")[:, 260:] == pixels(wanted, "RGB")[:, 260:]).all()


def test_a_soft_mask_blends(edit: Edit) -> None:
    given = Image.new("RGB", (256, 256), "navy")
    hard, soft = (edit(given, Image.new("L", (256, 256), level)) for level in (255, 128))
    wanted = pixels(given, "RGB") + (pixels(hard, "RGB") - pixels(given, "RGB")) * (128 / 255)
    assert np.abs(pixels(soft, "RGB") - wanted).max() <= 1.5


def test_what_is_left_transparent_in_an_opaque_picture_is_filled_from_around() -> None:
    given = Image.new("RGBA", (64, 64), (10, 120, 200, 255))
    painted = Image.new("RGBA", (64, 64))
    painted.paste((250, 0, 0, 255), (8, 8, 16, 16))

    def finished(mask: Image.Image | None) -> Image.Image:
        return edits.finish(painted, edits.around(edits.Edit(given, mask), (64, 64), opaque=True))

    values = pixels(finished(left_half((64, 64))))
    assert (values[..., 3] == 255).all()
    assert (values[8:16, 8:16] == (250, 0, 0, 255)).all()
    assert np.abs(values[20:, :30] - (10, 120, 200, 255)).max() <= 2
    everything = finished(Image.new("L", (64, 64), 255))
    assert everything.getpixel((40, 40)) == (255, 255, 255, 255), "where there are no surroundings, white"
    unmasked = pixels(finished(None))
    assert (unmasked[8:16, 8:16] == (250, 0, 0, 255)).all()
    assert np.abs(unmasked[20:] - (10, 120, 200, 255)).max() <= 2, "without a mask, as along the border"


def test_a_ground_that_is_asked_for_is_not_filled_over(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ball((256, 256), ground="navy")
    monkeypatch.setattr(canvas, "cleaned", lambda picture: np.zeros((*picture.shape[1:], 4), np.uint8))
    for params, wanted in (({}, (0, 0, 128)), ({"background": "white"}, (255, 255, 255))):
        for mask in (left_half((256, 256)), None):
            made = edit(given, mask, **params)
            assert made.getpixel((3, 3)) == wanted, "where the model painted nothing"


def test_a_mask_is_of_any_mode(edit: Edit) -> None:
    given = ball((256, 256), ground="navy")
    white = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    white.paste((255, 255, 255, 255), (0, 0, 128, 256))
    plain = left_half((256, 256))
    wanted = edit(given, plain)
    deep = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
    for mask in (white, plain.convert("1"), plain.convert("RGB"), plain.convert("P"), plain.convert("LA"), deep):
        assert edit(given, mask).tobytes() == wanted.tobytes(), mask.mode
    jpeg = edit(given, encoded(plain.convert("CMYK"), "JPEG", quality=100))
    assert (pixels(jpeg, "RGB")[:, 140:] == pixels(wanted, "RGB")[:, 140:]).all()


def test_traces_in_a_mask_paint_nothing(edit: Edit) -> None:
    given = Image.fromarray(np.random.default_rng(4).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    soiled = left_half((256, 256)).point([7, *range(1, 256)])
    assert edit(given, soiled).tobytes() == edit(given, left_half((256, 256))).tobytes()
    with pytest.raises(engines.Refusal, match=r"^mask_url: nothing in the mask is white"):
        edit(given, Image.new("L", (256, 256), 7))
    speck = Image.new("L", (2048, 2048))
    speck.putpixel((1000, 1000), 255)
    with pytest.raises(engines.Refusal, match=r"^mask_url: what is white in the mask is too small to paint"):
        edit(given, speck)
    with pytest.raises(engines.Refusal, match=r"or outside the part that aspect_ratio keeps\.$"):
        edit(Image.new("RGB", (400, 200)), left_strip((400, 200)), aspect_ratio="1:1")


def left_strip(size: tuple[int, int]) -> Image.Image:
    """A mask with a white strip at its left edge."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, 20, size[1]))
    return mask


def test_a_mask_of_another_size_is_scaled(edit: Edit) -> None:
    given = ball((256, 256), ground="navy")
    made = edit(given, left_half((64, 64)))
    assert (pixels(made, "RGB")[:, 134:] == pixels(given, "RGB")[:, 134:]).all()
    whole = pixels(edit(given, left_half((256, 256))), "RGB")
    assert np.abs(pixels(made, "RGB") - whole).mean() < 0.5 * np.abs(pixels(given, "RGB") - whole).mean()
    assert edit(ball((300, 200), ground="navy"), Image.new("L", (30, 20), 255)).size == (300, 200)


def test_a_picture_and_its_mask_are_turned_and_cropped_together(edit: Edit) -> None:
    upright = Image.fromarray(np.random.default_rng(2).integers(0, 256, (200, 320, 3), dtype=np.uint8))
    made = edit(studio.stored_turned(upright, 6), left_half((320, 200)))
    assert (pixels(made, "RGB")[:, 160:] == pixels(upright, "RGB")[:, 160:]).all()
    square = edit(upright, left_half((320, 200)), aspect_ratio="1:1", size=200)
    assert (pixels(square, "RGB")[:, 100:] == pixels(upright, "RGB")[:, 160:260]).all()


def test_the_same_bytes_on_any_number_of_cores(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(encoded(ball((320, 240))))
    (tmp_path / "mask").write_bytes(encoded(left_half((320, 240))))
    made = set()
    for threads in (1, 3):
        one = engine.DojoEngine(threads=threads)
        one.load()
        listener = Listener({"image_url": tmp_path / "in", "mask_url": tmp_path / "mask"})
        one.generate(QUICK | {"size": 400}, tmp_path, listener)
        made.add((tmp_path / "0.png").read_bytes())
    assert len(made) == 1


def test_previews_of_an_edit_show_what_is_kept(loaded: engine.DojoEngine, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(encoded(ball((256, 256), ground="navy")))
    (tmp_path / "mask").write_bytes(encoded(left_half((256, 256))))
    listener = Listener({"image_url": tmp_path / "in", "mask_url": tmp_path / "mask"}, curious=True)
    loaded.generate(QUICK, tmp_path, listener)
    for each in listener.previews:
        shown = pixels(Image.open(io.BytesIO(each)), "RGB")
        assert np.abs(shown[5, 250] - (0, 0, 128)).max() < 30
    assert listener.previews


# -- any file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", studio.MODES)
def test_every_colour_mode_is_read(tmp_path: Path, mode: str) -> None:
    data, transparent = studio.of_mode(ball((128, 128)), mode)
    pictures.check(data)  # what reaches an engine has passed it
    (tmp_path / "in").write_bytes(data)
    found = reading.read(tmp_path / "in", name="image_url")
    assert reading.is_opaque(found) is not transparent
    shown, meant = (studio.on_white(each).convert("L") for each in (found, ball((128, 128))))
    if mode == "1":
        meant = meant.point(lambda level: 255 * (level > 127))
    assert np.abs(pixels(shown, "L") - pixels(meant, "L")).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_is_held_upright(orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (24, 16), "white")
    upright.paste((220, 30, 30), (0, 0, 8, 8))
    (tmp_path / "in").write_bytes(studio.stored_turned(upright, orientation))
    assert reading.read(tmp_path / "in", name="image_url").convert("RGB").tobytes() == upright.tobytes()


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(edit: Edit, form: str) -> None:
    first, then = (Image.new("RGB", (256, 256), colour) for colour in ((20, 30, 200), (200, 30, 20)))
    data = encoded(first, form, save_all=True, append_images=[then], lossless=True)
    made = edit(data, left_half((256, 256)))
    assert made.getpixel((200, 100)) == (20, 30, 200)
    assert getattr(made, "n_frames", 1) == 1


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("WEBP", "RGBA")],
)
def test_large_pictures_are_reduced_while_they_are_read(tmp_path: Path, form: str, mode: str) -> None:
    """In bands, whose seams don't show: the same as reducing the whole."""
    grey = Image.linear_gradient("L").resize((2001, 1203))
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    (tmp_path / "in").write_bytes(encoded(wide, form))
    found = reading.read(tmp_path / "in", name="image_url", enough=600)
    assert found.mode == "RGBA"
    assert 600 <= found.height <= 602 and found.width / found.height == pytest.approx(2001 / 1203, rel=0.01)
    wanted = grey.convert("RGBA").resize(found.size, Image.Resampling.BOX)
    assert np.abs(pixels(found) - pixels(wanted)).max() <= 8


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_truncated_files_and_others_are_refused(edit: Edit, form: str) -> None:
    whole = encoded(studio.on_white(ball((64, 64))), form)
    says = "the picture is damaged or incomplete: send a whole PNG, JPEG or WebP file"
    for data in (whole[: len(whole) // 2], whole[:20], b"", b"GIF89a" + whole, b"<svg/>"):
        with pytest.raises(engines.Refusal, match=f"^image_url: {says}"):
            edit(data)
        with pytest.raises(engines.Refusal, match=f"^mask_url: {says}"):
            edit(ball((64, 64)), data)


@pytest.mark.parametrize("size", [(20_000, 20_000), (5000, 5000), (2**20, 17)])
def test_what_is_too_large_is_refused_before_it_is_decoded(edit: Edit, size: tuple[int, int]) -> None:
    says = "the picture is too large: send one of at most 16,777,216 pixels"
    with pytest.raises(engines.Refusal, match=f"^image_url: {says}"):
        edit(png_of(*size))
    with pytest.raises(engines.Refusal, match=f"^mask_url: {says}"):
        edit(ball((64, 64)), png_of(*size))


@pytest.mark.parametrize("size", [(410, 100), (1, 5), (1000, 3)])
def test_what_is_too_narrow_is_refused_unless_a_ratio_is_asked_for(edit: Edit, size: tuple[int, int]) -> None:
    with pytest.raises(engines.Refusal, match=r"^image_url: the picture is too long and narrow: one side may be 4"):
        edit(Image.new("RGB", size, "navy"))
    assert edit(Image.new("RGB", size, "navy"), aspect_ratio="4:3", size=256).size == (256, 192)


def test_a_mask_needs_a_picture_of_its_shape_and_something_white(edit: Edit) -> None:
    with pytest.raises(engines.Refusal, match=r"^mask_url: a mask needs the picture it belongs to: send image_url too"):
        edit(None, left_half((64, 64)))
    assert not jsonschema_rs.is_valid(CARD["schema"], {"prompt": "x", "mask_url": "https://example.com/a.png"})
    with pytest.raises(engines.Refusal, match=r"^mask_url: the mask has another shape than the picture, 64 × 32"):
        edit(ball((64, 64)), left_half((64, 32)))
    with pytest.raises(engines.Refusal, match=r"^mask_url: nothing in the mask is white"):
        edit(ball((64, 64)), Image.new("L", (64, 64)))
    with pytest.raises(engines.Refusal, match=r"^mask_url: nothing in the mask is white"):
        edit(ball((64, 64)), Image.new("RGBA", (64, 64), (255, 255, 255, 0)))
