"""The embedded video model, with its real weights: what a caller may rely on for any picture and any prompt."""

import io
import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import jsonschema_rs
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import footage
import pixeldojo
import studio
from pixeldojo.assets import pictures
from pixeldojo.catalogue import card as cards
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.engines import engine as engines
from pixeldojo.engines.dojo import canvas, enlarge, film, motion, stage
from pixeldojo.errors import ValidationError
from studio import Listener, encoded, pixels

CARD = cards.read(Path(pixeldojo.__file__).parent / "catalogue/cards/dojo-motion.json")
SHORT: dict[str, Any] = {"duration": 1, "fps": 16, "resolution": 256, "seed": 1}
SUN, INK, CLEAR, SKY = (255, 200, 40, 255), (60, 30, 20, 255), (0, 0, 0, 0), (150, 200, 240, 255)

Frames = list[NDArray[np.int64]]
Shoot = Callable[..., tuple[engines.Output, Frames]]


@pytest.fixture(scope="module")
def loaded() -> motion.MotionEngine:
    made = motion.MotionEngine(threads=2)
    made.load()
    return made


@pytest.fixture
def shoot(loaded: motion.MotionEngine, tmp_path: Path) -> Shoot:
    """The clip of a picture, a file's bytes or, without either, a prompt; defaults and `SHORT` fill in the rest."""

    def one(source: Image.Image | bytes | None = None, **params: Any) -> tuple[engines.Output, Frames]:
        inputs = {}
        if source is not None:
            inputs["image_url"] = tmp_path / "in"
            inputs["image_url"].write_bytes(source if isinstance(source, bytes) else encoded(source))
        (output,) = loaded.generate(CARD.defaults | SHORT | params, tmp_path, Listener(inputs))
        assert (output.type, output.content_type) == ("video", film.CONTENT_TYPES[output.file.partition(".")[2]])
        frames = footage.frames(tmp_path / output.file)
        assert {frame.shape[:2] for frame in frames} == {(output.height, output.width)}
        return output, frames

    return one


def drawn(size: tuple[int, int] = (256, 256), ground: tuple[int, int, int, int] = CLEAR) -> Image.Image:
    """A face on plain ground, smoothed by drawing it four times as large."""
    side, across, down = min(size), size[0] / 2, size[1] / 2
    picture = Image.new("RGBA", (4 * size[0], 4 * size[1]), ground)
    pen = ImageDraw.Draw(picture)

    def ellipse(x: float, y: float, wide: float, tall: float, fill: tuple[int, int, int, int]) -> None:
        box = (
            across + (x - wide) * side,
            down + (y - tall) * side,
            across + (x + wide) * side,
            down + (y + tall) * side,
        )
        pen.ellipse([4 * edge for edge in box], fill=fill)

    ellipse(0, 0, 0.36, 0.36, SUN)
    ellipse(-0.13, -0.08, 0.05, 0.08, INK)
    ellipse(0.13, -0.08, 0.05, 0.08, INK)
    return picture.reduce(4)


def photo(size: tuple[int, int]) -> Image.Image:
    """A picture that fills its frame, with something else in every place."""
    levels = np.random.default_rng(5).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def on(colour: tuple[int, int, int, int], picture: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture)


def psnr(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """In decibels, of the light in them: colour has half the pixels in yuv420p, whatever the encoder does."""
    off = (one - other)[..., :3] @ (0.2126, 0.7152, 0.0722)
    return float(10 * np.log10(255**2 / max(np.square(off).mean(), 1e-6)))


@pytest.mark.parametrize("ground", [SKY, (255, 255, 255, 255)])
def test_the_first_frame_is_the_picture(shoot: Shoot, ground: tuple[int, int, int, int]) -> None:
    source = drawn(ground=ground)
    _, frames = shoot(source)
    assert psnr(frames[0], pixels(source)) > 40
    inside = np.s_[170:190, 110:150]  # away from edges, where colours are mixed
    assert np.abs(frames[0][inside] - pixels(source)[inside]).max() <= 4


@pytest.mark.parametrize("seed", range(2))
def test_it_moves_and_the_loop_closes(loaded: motion.MotionEngine, seed: int) -> None:
    """In the frames as they are drawn: what an encoder makes of slow motion is another matter."""
    scene = stage.set_up(drawn(ground=SKY), (256, 256))
    moved = loaded._motion_of(scene, loaded._no_words, CARD.defaults | SHORT | {"duration": 2, "seed": seed})
    frames = [frame.copy() for frame in loaded._frames(scene.layer, moved, 24)]
    assert len(frames) == 24 and (frames[0] == scene.layer).all()
    steps = [255 * float(np.abs(after - before).mean()) for before, after in itertools.pairwise([*frames, frames[0]])]
    assert max(steps) > 0.1, "not frozen"
    assert 0 < steps[-1] <= max(steps[:-1]), "the frame after the last one would be the first"


def test_ground_stays(shoot: Shoot) -> None:
    source = drawn((320, 180), ground=SKY)
    _, frames = shoot(source)
    corners = np.stack([frame[:24, :24, :3] for frame in frames])
    assert np.abs(corners - SKY[:3]).max() <= 4


def test_edges_of_photos_stay_however_far_the_inside_moves(loaded: motion.MotionEngine) -> None:
    still = stage.set_up(photo((288, 216)).convert("RGBA"), (288, 216)).layer
    push = np.zeros((16, 32, 32), np.float32)
    push[:2] = 0.05  # of the side, where sin φ is 1
    for number, frame in enumerate(loaded._frames(still, motion.Motion(push, loops=1), 8)):
        assert frame[3].min() > 0.999, "opaque as it was"
        off = 255 * np.abs(frame - still)[:3]
        for edge in (np.s_[:, :2], np.s_[:, -2:], np.s_[:, :, :2], np.s_[:, :, -2:]):
            assert off[edge].mean() < 2
        assert off[:, 80:136, 100:188].mean() > 5 or number in (0, 4)


@pytest.mark.parametrize(("duration", "fps", "count"), [(1, 16, 16), (1.5, 17, 26)])
def test_duration_and_rate(loaded: motion.MotionEngine, tmp_path: Path, duration: float, fps: int, count: int) -> None:
    (tmp_path / "in").write_bytes(encoded(drawn((48, 48))))
    listener = Listener({"image_url": tmp_path / "in"})
    params = CARD.defaults | SHORT | {"duration": duration, "fps": fps}
    (output,) = loaded.generate(params, tmp_path, listener)
    assert (output.duration_s, output.seed) == (duration, 1)
    with av.open(str(tmp_path / output.file)) as container:
        stream = container.streams.video[0]
        assert stream.frames == count
        assert stream.duration is not None and stream.time_base is not None
        assert stream.duration * stream.time_base == duration
    assert listener.heard == [pytest.approx(done / (count + 1)) for done in range(1, count + 1)]


@pytest.mark.parametrize(
    ("given", "params", "size"),
    [
        ((64, 64), {}, (256, 256)),
        ((64, 64), {"aspect_ratio": "16:9"}, (320, 180)),
        ((64, 36), {}, (320, 180)),
        ((36, 64), {}, (180, 320)),
        ((40, 30), {}, (288, 216)),
        ((100, 73), {}, (298, 218)),
        ((301, 299), {"aspect_ratio": "9:16"}, (180, 320)),
        ((301, 299), {"aspect_ratio": "2:3"}, (208, 312)),
        ((1, 1), {}, (256, 256)),
        ((3, 5000), {}, (180, 320)),
        ((5000, 3), {}, (320, 180)),
        ((200, 100), {"resolution": 512}, (640, 360)),
    ],
)
def test_sizes(given: tuple[int, int], params: Mapping[str, Any], size: tuple[int, int]) -> None:
    found = stage.size_of(params.get("aspect_ratio"), resolution=params.get("resolution", 256), shape=given)
    assert found == size
    for picture in (Image.new("RGBA", given, SUN), Image.new("RGBA", given), photo(given).convert("RGBA")):
        assert stage.set_up(picture, size).layer.shape == (4, size[1], size[0])


def test_nothing_is_stretched(loaded: motion.MotionEngine, tmp_path: Path) -> None:
    for source in (drawn((200, 100)), drawn((200, 100), SKY)):
        (tmp_path / "in").write_bytes(encoded(source))
        first = first_frame(loaded, tmp_path, aspect_ratio="1:1").astype(int)
        yellow = np.argwhere(np.abs(first[..., :3] - SUN[:3]).max(axis=-1) < 24)
        tall, wide = np.ptp(yellow, axis=0)
        assert (first.shape, abs(tall - wide) <= 3) == ((256, 256, 4), True)
        assert np.abs(yellow.mean(axis=0) - 128).max() < 3, "in the middle, with ground above and below"
    cut = Image.new("RGB", (300, 100), (40, 40, 200))
    cut.paste((200, 40, 40), (100, 0, 200, 100))
    cut.paste((40, 200, 40), (120, 20, 180, 80))
    cut.paste(photo((100, 100)), (0, 0))
    (tmp_path / "in").write_bytes(encoded(cut))
    first = first_frame(loaded, tmp_path, aspect_ratio="1:1").astype(int)
    assert np.abs(first[128, 128, :3] - (40, 200, 40)).max() < 16
    assert np.abs(first[128, 12, :3] - (200, 40, 40)).max() < 16, "cut at the middle"


def test_webp_keeps_transparency_and_mp4_lays_a_ground_under_it(
    shoot: Shoot, loaded: motion.MotionEngine, tmp_path: Path
) -> None:
    source = drawn()
    _, frames = shoot(source, format="webp")
    assert np.abs(frames[0] - pixels(source))[..., 3].max() == 0
    assert all((frame[:8, :8, 3] == 0).all() and frame[128, 128, 3] == 255 for frame in frames)
    _, frames = shoot(source, background="skyblue")
    assert psnr(frames[0], pixels(on((135, 206, 235, 255), source))) > 40
    for params, colour in (({}, (255, 255, 255)), ({"format": "webp", "background": "#102030"}, (16, 32, 48))):
        first = first_frame(loaded, tmp_path, **params)
        assert (first[..., 3] == 255).all()
        assert np.abs(first[4, 4, :3].astype(int) - colour).max() <= 3


def test_from_a_prompt(shoot: Shoot) -> None:
    output, frames = shoot(prompt="a red heart on a blue background", aspect_ratio="4:3")
    assert (output.width, output.height, len(frames)) == (288, 216, 16)
    blue = np.median(frames[0][:8].reshape(-1, 4), axis=0)
    assert blue[2] > blue[0] + 40, "as the prompt says"


def test_previews_of_the_painting_are_of_the_clip(
    loaded: motion.MotionEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "cleaned", lambda picture: np.zeros((*picture.shape[1:], 4), np.uint8))
    listener = Listener(patience=3, curious=True)
    params = {"prompt": "a red heart on a navy background", "aspect_ratio": "16:9"}
    with pytest.raises(engines.Cancelled):
        loaded.generate(CARD.defaults | SHORT | params, tmp_path, listener)
    for preview in listener.previews:
        with Image.open(io.BytesIO(preview)) as shown:
            assert (shown.size, shown.mode) == ((256, 144), "RGB")
            assert np.abs(pixels(shown, "RGB") - (0, 0, 128)).max() < 8, "the ground, where nothing is painted"
    assert listener.previews


def test_cancelling_ends_within_a_tile(
    loaded: motion.MotionEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0
    draw, lock = enlarge.draw, threading.Lock()

    def counted(*told: Any) -> None:
        nonlocal begun
        with lock:
            begun += 1
        draw(*told)

    monkeypatch.setattr(enlarge, "draw", counted)
    monkeypatch.setattr(enlarge, "TILE", 32)
    patience = loaded._painter.spec.steps + 3
    with pytest.raises(engines.Cancelled):
        loaded.generate(
            CARD.defaults | SHORT | {"prompt": "a bell", "resolution": 512}, tmp_path, Listener(patience=patience)
        )
    assert 3 <= begun < 32, "of 64"


def test_of_a_panorama_as_much_is_kept_as_the_clip_shows(loaded: motion.MotionEngine, tmp_path: Path) -> None:
    for size, kept in (((6000, 600), (6000, 600)), ((5000, 2100), (2500, 1050))):
        (tmp_path / "in").write_bytes(encoded(Image.new("RGB", size, SUN[:3]), "JPEG"))
        assert loaded._read(tmp_path / "in", CARD.defaults).picture.size == kept


def test_progress_and_previews(loaded: motion.MotionEngine, tmp_path: Path) -> None:
    listener = Listener(curious=True)
    params = {"prompt": "🍎", "format": "webp", "background": "transparent"}
    loaded.generate(CARD.defaults | SHORT | params, tmp_path, listener)
    steps = loaded._painter.spec.steps + 1
    assert listener.heard == [pytest.approx(done / (steps + 17)) for done in range(1, steps + 17)]
    assert len(listener.previews) == steps - 1 + 16, "of every step but the first, then of every frame"
    assert all(len(preview) < 64 * 1024 for preview in listener.previews)
    frames = footage.frames(tmp_path / "0.webp")
    assert all((frame[0, :, 3] == 0).mean() > 0.9 and frame[..., 3].max() > 200 for frame in frames)


@pytest.mark.parametrize("mode", studio.MODES)
def test_every_colour_mode_is_read(loaded: motion.MotionEngine, tmp_path: Path, mode: str) -> None:
    data, transparent = studio.of_mode(drawn((96, 96)), mode)
    pictures.check(data)  # what reaches an engine has passed it
    (tmp_path / "in").write_bytes(data)
    first = first_frame(loaded, tmp_path, format="webp")
    assert (first[0, 0, 3] == 0) == transparent
    meant = on((255, 255, 255, 255), drawn((96, 96))).resize((256, 256), Image.Resampling.LANCZOS).convert("L")
    if mode == "1":
        meant = meant.point(lambda level: 255 * (level > 127))
    shown = studio.on_white(Image.fromarray(first)).convert("L")
    assert np.abs(pixels(shown) - pixels(meant)).mean() < 5


def first_frame(loaded: motion.MotionEngine, folder: Path, **params: Any) -> NDArray[np.uint8]:
    """The frame that a clip of the file `in` begins with, before it is encoded."""
    listener = Listener({"image_url": folder / "in"}, patience=1, curious=True)
    with pytest.raises(engines.Cancelled):
        loaded.generate(CARD.defaults | SHORT | params, folder, listener)
    return np.asarray(Image.open(io.BytesIO(listener.previews[0])).convert("RGBA"))


def test_of_an_animation_the_first_frame_is_taken(loaded: motion.MotionEngine, tmp_path: Path) -> None:
    blue, red = (Image.new("RGB", (64, 64), colour) for colour in ((20, 30, 200), (200, 30, 20)))
    (tmp_path / "in").write_bytes(encoded(blue, "WEBP", save_all=True, append_images=[red], lossless=True))
    assert np.abs(first_frame(loaded, tmp_path)[..., :3].astype(int) - (20, 30, 200)).max() < 12


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_camera_is_held_upright(loaded: motion.MotionEngine, tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (90, 60), (20, 30, 200))
    upright.paste((200, 30, 20), (60, 0, 90, 60))
    (tmp_path / "in").write_bytes(studio.stored_turned(upright, orientation))
    first = first_frame(loaded, tmp_path).astype(int)
    assert first.shape[1] > first.shape[0]
    assert np.abs(first[100, -10, :3] - (200, 30, 20)).max() < 16
    assert np.abs(first[100, 10, :3] - (20, 30, 200)).max() < 16


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (4000, 7)])
@pytest.mark.parametrize("encoding", ["mp4", "webp"])
def test_odd_sizes(loaded: motion.MotionEngine, tmp_path: Path, size: tuple[int, int], encoding: str) -> None:
    (tmp_path / "in").write_bytes(encoded(Image.new("RGB", size, SUN[:3])))
    params = CARD.defaults | SHORT | {"format": encoding}
    (output,) = loaded.generate(params, tmp_path, Listener({"image_url": tmp_path / "in"}))
    frames = footage.frames(tmp_path / output.file)
    assert all(np.abs(frame[..., :3] - SUN[:3]).max() <= 4 for frame in (frames[0], frames[-1]))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_truncated_files_and_others_are_refused(shoot: Shoot, form: str) -> None:
    whole = encoded(on(SKY, drawn((64, 64))).convert("RGB"), form)
    for data in (whole[: len(whole) // 2], whole[:20], b"", b"GIF89a" + whole):
        with pytest.raises(engines.Refusal, match=r"image_url: .* send a whole PNG, JPEG or WebP file"):
            shoot(data)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, r"prompt: .* say what to show, or give a picture as image_url\."),
        ({"prompt": "?!"}, "prompt: "),
        (
            {"prompt": "a cat", "background": "transparent"},
            "background: MP4 has no transparency: ask for the format webp",
        ),
        ({"prompt": "a cat", "background": "blurple"}, "background: 'blurple' is no colour"),
    ],
)
def test_what_can_not_be_done_is_refused(shoot: Shoot, params: Mapping[str, Any], says: str) -> None:
    with pytest.raises(engines.Refusal, match=says):
        shoot(**params)


def test_a_picture_needs_no_words(shoot: Shoot) -> None:
    plain, mumbled = (shoot(drawn((64, 64)), **words)[1] for words in ({}, {"prompt": "?!"}))
    assert all((one == other).all() for one, other in zip(plain, mumbled, strict=True))


def test_the_seed_decides(loaded: motion.MotionEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").write_bytes(encoded(drawn((64, 64))))

    def made(threads: int, **params: Any) -> bytes:
        monkeypatch.setattr(loaded, "_threads", threads)
        (output,) = loaded.generate(CARD.defaults | SHORT | params, tmp_path, Listener({"image_url": tmp_path / "in"}))
        return (tmp_path / output.file).read_bytes()

    assert made(1) == made(3), "on any number of cores"
    assert len({made(2, seed=seed) for seed in (2, 3)}) == 2


def test_memory_is_bounded_and_cancelling_is_quick(
    loaded: motion.MotionEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, added, ahead = 0, 0, []
    lock, draw, add = threading.Lock(), motion.MotionEngine._drawn, film.Film.add

    def counted(self: motion.MotionEngine, layer: Any, moved: Any, phase: float) -> Any:
        nonlocal begun
        with lock:
            begun += 1
        return draw(self, layer, moved, phase)

    def adding(self: film.Film, frame: Any) -> None:
        nonlocal added
        with lock:
            added += 1
            ahead.append(begun - added)
        add(self, frame)

    monkeypatch.setattr(motion.MotionEngine, "_drawn", counted)
    monkeypatch.setattr(film.Film, "add", adding)
    (tmp_path / "in").write_bytes(encoded(drawn((64, 64))))
    params = CARD.defaults | SHORT | {"duration": 2}
    loaded.generate(params, tmp_path, Listener({"image_url": tmp_path / "in"}))
    assert (added, begun) == (32, 31)
    assert max(ahead) <= 3

    (tmp_path / "0.mp4").unlink()
    begun = added = 0
    with pytest.raises(engines.Cancelled):
        loaded.generate(params, tmp_path, Listener({"image_url": tmp_path / "in"}, patience=8))
    assert (added, begun <= 12) == (9, True)
    assert not (tmp_path / "0.mp4").exists()
    with pytest.raises(engines.Cancelled):
        loaded.generate(params | {"prompt": "a cat"}, tmp_path, Listener(patience=2))
    assert added == 9, "while it painted"


def test_the_card_tells_what_the_engine_does() -> None:
    properties = CARD.schema["properties"]
    assert properties["aspect_ratio"]["enum"] == list(stage.SIZES)
    assert tuple(properties["resolution"]["enum"]) == stage.RESOLUTIONS
    assert properties["format"]["enum"] == list(film.CONTENT_TYPES)
    for width, height in stage.SIZES.values():
        assert (width % 2, height % 2) == (0, 0)
        assert width < height or f"{width}×{height}" in properties["resolution"]["description"]
    assert CARD.modality == "video" and set(CARD.capabilities) == {"text-to-video", "image-to-video"}
    for example in CARD.examples:
        jsonschema_rs.validate(CARD.schema, example)


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"": "must have prompt or image_url"}),
        ({"prompt": " "}, {"prompt": "must not be blank"}),
        ({"duration": 0.5}, {"duration": "must be at least 1, not 0.5"}),
        ({"duration": 5}, {"duration": "must be at most 4, not 5"}),
        ({"duration": 1.25}, {"duration": "must be a multiple of 0.5, not 1.25"}),
        ({"duration": "2"}, {"duration": "must be a number, not '2'"}),
        ({"fps": 60}, {"fps": "must be at most 24, not 60"}),
        ({"fps": 8}, {"fps": "must be at least 16, not 8"}),
        ({"resolution": 1080}, {"resolution": "must be one of 256, 512, not 1080"}),
        ({"aspect_ratio": "21:9"}, {"aspect_ratio": "must be one of 1:1, 4:3, 3:4, 3:2, 2:3, 16:9, 9:16, not '21:9'"}),
        ({"strength": 9, "format": "gif"}, {"strength": "must be at most 1.5, not 9",
                                            "format": "must be one of mp4, webp, not 'gif'"}),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_told_before_anything_is_charged(body: dict[str, Any], faults: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Catalogue([CARD]).order("dojo-motion", body if "prompt" in body or not body else {"prompt": "a cat", **body})
    assert {detail.path: detail.message for detail in caught.value.details} == faults


def test_a_second_has_its_price() -> None:
    catalogue = Catalogue([CARD])
    each_milli = msgspec.convert(CARD.price.amount * 1000, int, strict=False)
    for duration, halves in ((1, 2), (1.5, 3), (2.0, 4), (3.5, 7), (4, 8)):
        order = catalogue.order("dojo-motion", {"prompt": "a cat", "duration": duration})
        assert order.cost_milli * 2 == each_milli * halves
    assert catalogue.order("dojo-motion", {"prompt": "a cat"}).cost_milli == 2 * each_milli
