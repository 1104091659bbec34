"""The embedded image model, with its real weights: what a caller may rely on, whatever the pictures look like.

Given pictures are in `test_dojo_edits.py`, prompts in `test_dojo_wording.py`.
"""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import numpy as np
import pytest
from PIL import Image

import pixeldojo
import studio
from pixeldojo.engines import engine as engines
from pixeldojo.engines.dojo import canvas, engine, graphs, painter, wording
from studio import Listener, pixels

CARD = studio.card("dojo-mini")
PROPERTIES = CARD["schema"]["properties"]
DEFAULTS = studio.defaults(CARD)
QUICK = DEFAULTS | {"prompt": "a red apple", "seed": 3, "steps": 4, "size": 256}
SOURCE = Path(pixeldojo.__file__).parents[1]


@pytest.fixture(scope="module")
def loaded() -> engine.DojoEngine:
    made = engine.DojoEngine(threads=2)
    made.load()
    return made


Draw = Callable[..., list[bytes]]


@pytest.fixture
def draw(loaded: engine.DojoEngine, tmp_path: Path) -> Draw:
    """Files of one job, as bytes; the parameters are `QUICK` and what is given."""

    def files(**params: Any) -> list[bytes]:
        outputs = loaded.generate(QUICK | params, tmp_path, Listener())
        return [(tmp_path / output.file).read_bytes() for output in outputs]

    return files


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


def test_the_same_input_gives_the_same_bytes_in_another_process(draw: Draw, tmp_path: Path) -> None:
    params = QUICK | {"size": 700, "background": "transparent"}
    here = draw(**params)
    (tmp_path / "params.json").write_bytes(msgspec.json.encode(params))
    script = (
        "import sys, json, pathlib; from unittest.mock import Mock\n"
        "from pixeldojo.engines.dojo.engine import DojoEngine\n"
        "out = pathlib.Path(sys.argv[1]); made = DojoEngine(threads=1); made.load()\n"
        "context = Mock(cancelled=lambda: False, inputs={})\n"
        "made.generate(json.loads((out / 'params.json').read_text()), out, context)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, cwd=SOURCE, timeout=60)
    assert (tmp_path / "0.png").read_bytes() == here[0]


def test_a_picture_of_a_batch_is_the_picture_of_its_own_seed(draw: Draw) -> None:
    top = 2**32 - 2
    batch = draw(seed=top, num_outputs=4)
    alone = [draw(seed=seed)[0] for seed in (top, top + 1, 0, 1)]
    assert batch == alone
    assert len(set(batch)) == 4


def test_outputs_are_described_in_order(loaded: engine.DojoEngine, tmp_path: Path) -> None:
    wanted = {"num_outputs": 2, "format": "webp", "aspect_ratio": "3:2", "size": 384}
    outputs = loaded.generate(QUICK | wanted, tmp_path, Listener())
    assert outputs == [
        engines.Output("0.webp", "image", "image/webp", 384, 256, 3),
        engines.Output("1.webp", "image", "image/webp", 384, 256, 4),
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.webp", "1.webp"]


def test_prompt_seed_steps_and_guidance_matter(draw: Draw) -> None:
    ways: list[dict[str, Any]] = [{}, {"prompt": "a panda"}, {"seed": 4}, {"steps": 5}, {"guidance": 1.5}]
    assert len({draw(**each)[0] for each in ways}) == len(ways)


# -- what is seen ---------------------------------------------------------------------------------------------------


def test_a_red_apple_is_red_and_stands_free(draw: Draw) -> None:
    made = pixels(opened(draw(steps=12, background="transparent")[0]))
    colour, alpha = made[..., :3], made[..., 3]
    red, green, blue = colour[96:160, 96:160].reshape(-1, 3).mean(axis=0)
    assert red > green + 60 and red > blue + 60
    assert (alpha[112:144, 112:144] == 255).all()
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert (border == 0).mean() > 0.8
    assert (alpha == 0).mean() > 0.1 and (alpha == 255).mean() > 0.2
    assert (colour[alpha == 0] == 0).all(), "where nothing is seen, nothing is hidden"


def test_larger_pictures_show_the_same_sharper(draw: Draw) -> None:
    small, large = (opened(draw(steps=12, size=size)[0]) for size in (256, 1024))
    assert large.size == (1024, 1024)
    again = large.resize((256, 256), Image.Resampling.BOX)
    error = np.square(pixels(again, "RGB") - pixels(small, "RGB")).mean()
    assert 10 * np.log10(255**2 / error) > 28
    plain = small.resize((1024, 1024), Image.Resampling.BICUBIC)

    def steepest(picture: Image.Image) -> float:
        return float(np.quantile(np.abs(np.diff(pixels(picture, "L"), axis=1)), 0.999))

    assert steepest(large) > 1.5 * steepest(plain), "edges are drawn anew, not only stretched"


# -- shapes and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", PROPERTIES["aspect_ratio"]["enum"])
def test_every_ratio_has_its_exact_size(draw: Draw, ratio: str) -> None:
    width, height = opened(draw(aspect_ratio=ratio, size=512)[0]).size
    across, down = map(int, ratio.split(":"))
    assert max(width, height) == 512
    assert abs(width * down - height * across) <= max(across, down) / 2, "exact to half a pixel"


@pytest.mark.parametrize("ratio", PROPERTIES["aspect_ratio"]["enum"])
@pytest.mark.parametrize("side", [64, 512, 1024])
def test_a_frame_is_the_middle_of_a_canvas_without_stretching(ratio: str, side: int) -> None:
    spec = graphs.spec()
    frame = canvas.frame(spec, canvas.ratio_of(ratio), side=side)
    left, top, right, bottom = frame.box
    height, width = (cells * spec.latent_stride for cells in frame.cells)
    assert frame.canvas == (height, width)
    assert left + right == pytest.approx(width) and top + bottom == pytest.approx(height)
    assert (right - left) / (bottom - top) == pytest.approx(canvas.ratio_of(ratio))
    assert (right - left) * (bottom - top) > 0.95 * width * height, "little is cropped"
    assert all(cells % spec.patch == 0 for cells in frame.cells)
    assert frame.cells == spec.canvases.get(ratio, frame.cells), "the one trained for it"
    assert 0.75 < height * width / 256**2 < 1.2, "about as much to look at as in training"


def test_any_ratio_up_to_the_narrowest_has_a_canvas() -> None:
    spec = graphs.spec()
    most = max(map(max, spec.canvases.values())) * spec.latent_stride
    for ratio in np.geomspace(1 / 4, 4, 60):
        frame = canvas.frame(spec, float(ratio), side=1000)
        left, top, right, bottom = frame.box
        assert left >= 0 and top >= 0 and right <= frame.canvas[1] <= most and bottom <= frame.canvas[0] <= most
        assert frame.size[0] / frame.size[1] == pytest.approx(ratio, rel=0.01)
        assert max(frame.size) == 1000


@pytest.mark.parametrize("side", [64, 255, 257, 640, 1023, 1024])
def test_any_size_is_made(draw: Draw, side: int) -> None:
    assert opened(draw(size=side)[0]).size == (side, side)


def test_512_is_the_usual_size(loaded: engine.DojoEngine, tmp_path: Path) -> None:
    params = {name: value for name, value in QUICK.items() if name != "size"}
    (output,) = loaded.generate(params | {"aspect_ratio": "16:9"}, tmp_path, Listener())
    assert (output.width, output.height) == (512, 288)


# -- grounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "top", "bottom"),
    [
        ({}, (255, 255, 255), (255, 255, 255)),
        ({"background": "tomato"}, (255, 99, 71), (255, 99, 71)),
        ({"background": "#123456"}, (18, 52, 86), (18, 52, 86)),
        ({"background": "#fc0"}, (255, 204, 0), (255, 204, 0)),
        ({"prompt": "a red apple on a blue background"}, (170, 206, 245), (170, 206, 245)),
        ({"prompt": "a red apple on a blue background", "background": "black"}, (0, 0, 0), (0, 0, 0)),
        ({"prompt": "a red apple on a gradient from pink to blue"}, (252, 205, 222), (170, 206, 245)),
    ],
)
def test_the_ground_is_exact(draw: Draw, params: dict[str, Any], top: Any, bottom: Any) -> None:
    made = opened(draw(steps=12, **params)[0])
    assert made.mode == "RGB"
    apple = pixels(opened(draw(steps=12, background="transparent")[0]))
    clear = apple[..., 3] == 0
    drawn = pixels(made, "RGB")
    wanted = np.rint(np.linspace(top, bottom, 256)).astype(int)[:, None].repeat(256, axis=1)
    assert clear.any() and (drawn[clear] == wanted[clear]).all()
    solid = apple[..., 3] == 255
    assert (drawn[solid] == apple[solid][:, :3]).all(), "the same apple on every ground"


@pytest.mark.parametrize(
    "params", [{"background": "transparent"}, {"prompt": "a red apple on a transparent background"}]
)
@pytest.mark.parametrize("encoding", ["png", "webp"])
def test_transparency(draw: Draw, params: dict[str, Any], encoding: str) -> None:
    made = opened(draw(steps=12, format=encoding, size=300, **params)[0])
    assert made.mode == "RGBA"
    assert made.getchannel("A").getextrema() == (0, 255)


def test_steps_follow_a_direction_that_turns_evenly_and_stop_guessing_near_the_picture() -> None:
    times = painter.step_times(12, 1.0, 3.0)
    bends = painter.bends(times)
    assert bends[0] == 0 and (bends[times[1:] > painter.BENT_UNTIL] == 0).all()
    place, before = 0.0, 0.0
    for now, then, bend in zip(times, times[1:], bends, strict=False):
        if bend == 0 < now:
            break
        direction = 3 * now - 1  # so that the place is 1.5 t² - t but for what the first step missed
        place, before = place + (then - now) * (direction + bend * (direction - before)), direction
    assert place == pytest.approx(1.5 * now**2 - now - 1.5 * times[1] ** 2, abs=1e-6)
    assert painter.bends(painter.step_times(1, 1.0, 3.0)).tolist() == [0]


def test_jpeg_has_no_transparency(loaded: engine.DojoEngine, draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(engines.Refusal, match="JPEG has no transparency: ask for the format png or webp"):
        loaded.generate(QUICK | {"background": "transparent", "format": "jpeg"}, tmp_path, Listener())
    made = opened(draw(prompt="a red apple, cut out", format="jpeg")[0])
    assert pixels(made, "RGB")[0, 0].min() > 250, "what the prompt alone asks for gives way"


@pytest.mark.parametrize("background", ["blurple", "none", "Transparent", "inherit"])
def test_what_is_no_colour_is_refused(loaded: engine.DojoEngine, tmp_path: Path, background: str) -> None:
    jsonschema_rs.validate(CARD["schema"], {"prompt": "x", "background": background})
    with pytest.raises(engines.Refusal, match=f"^background: '{background}' is no colour: say transparent"):
        loaded.generate(QUICK | {"background": background}, tmp_path, Listener())


@pytest.mark.parametrize("background", ["", "#12", "#12345g", "rgb(1,2,3)", "url(x)", "red;", 5, None])
def test_the_schema_refuses_what_can_be_no_colour(background: Any) -> None:
    assert not jsonschema_rs.is_valid(CARD["schema"], {"prompt": "x", "background": background})


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_every_format_decodes_and_tells_nothing(draw: Draw, encoding: str) -> None:
    (file,) = draw(format=encoding)
    picture = opened(file)
    assert picture.format == encoding.upper()
    assert picture.mode == "RGB"
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background"}
    assert not picture.getexif()
    assert b"apple" not in file
    assert np.abs(pixels(picture, "RGB") - pixels(opened(draw()[0]), "RGB")).mean() < 4


# -- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", [" ", "\t\n", "...", "!?", "\u200d\u200b", "\ufe0f", "— “”", "[", "\U000f0000", "🇯🇵", ", ,"]
)
def test_a_prompt_that_says_nothing_is_refused(loaded: engine.DojoEngine, tmp_path: Path, prompt: str) -> None:
    with pytest.raises(engines.Refusal, match=r"^prompt: there is no word in it that this model can read"):
        loaded.generate(QUICK | {"prompt": prompt}, tmp_path, Listener())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "prompt",
    ["❤️", "👩🏽‍🚀", "1️⃣", "تفاحة حمراء", "ein roter Apfel", "りんご", "\u202eelppa", "[CLS] [SEP] [MASK]", "red " * 125,
     "\ufeffcat", "a\x07b", "White background", "xqzvw"],
)  # fmt: skip
def test_odd_prompts_are_drawn(draw: Draw, prompt: str) -> None:
    assert opened(draw(prompt=prompt)[0]).size == (256, 256)


def test_only_the_first_words_are_read(draw: Draw) -> None:
    long = "red apple " * 20
    assert draw(prompt=long) == draw(prompt=long + "castle")


# -- on the way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{}, {"num_outputs": 3}, {"size": 512, "aspect_ratio": "16:9", "num_outputs": 2}])
def test_progress_rises_to_one(loaded: engine.DojoEngine, tmp_path: Path, wanted: dict[str, Any]) -> None:
    listener = Listener()
    loaded.generate(QUICK | wanted, tmp_path, listener)
    assert len(listener.heard) >= wanted.get("num_outputs", 1) * QUICK["steps"]
    assert listener.heard == sorted(listener.heard)
    assert 0 < listener.heard[0] < 0.2
    assert listener.heard[-1] == 1


@pytest.mark.parametrize("background", ["auto", "transparent"])
def test_previews_come_near_the_picture_and_change_nothing(
    loaded: engine.DojoEngine, draw: Draw, tmp_path: Path, background: str
) -> None:
    listener = Listener(curious=True)
    params = {"steps": 12, "num_outputs": 2, "background": background, "aspect_ratio": "4:3"}
    out = tmp_path / "watched"
    out.mkdir()
    loaded.generate(QUICK | params, out, listener)
    assert [path.read_bytes() for path in sorted(out.iterdir())] == draw(**params)  # as if nobody had looked
    assert len(listener.previews) > 4

    def small(data: bytes | Path) -> Any:
        picture = Image.open(data if isinstance(data, Path) else io.BytesIO(data))
        assert picture.mode == ("RGB" if background == "auto" else "RGBA")
        assert picture.width == pytest.approx(picture.height * 4 / 3, abs=1)
        return pixels(picture.resize((64, 48)))

    made = small(out / "0.png")
    distance = [float(np.abs(small(preview) - made).mean()) for preview in listener.previews]
    assert distance[-1] < 10 and distance[-1] < distance[0] / 2, distance
    assert all(len(each) < 64 * 1024 for each in listener.previews)


def test_a_preview_that_is_due_once_is_made_once(
    loaded: engine.DojoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Satisfied(Listener):
        def preview_due(self) -> bool:
            return not self.previews

    shown = []
    real = painter.Painter.show

    def show(self: painter.Painter, latent: graphs.Floats) -> graphs.Floats:
        shown.append(1)
        return real(self, latent)

    monkeypatch.setattr(painter.Painter, "show", show)
    listener = Satisfied()
    loaded.generate(QUICK | {"steps": 12, "num_outputs": 4}, tmp_path, listener)
    assert (len(listener.previews), len(shown)) == (1, 5)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each step that is begun from now on."""
    begun: list[int] = []
    real = painter.Painter.paint

    def paint(self: painter.Painter, text: Any, *, tick: painter.Tick, **params: Any) -> graphs.Floats:
        def count(ending: Any) -> None:
            begun.append(1)
            tick(ending)

        return real(self, text, tick=count, **params)

    monkeypatch.setattr(painter.Painter, "paint", paint)
    return begun


def test_cancelling_ends_within_a_step(
    loaded: engine.DojoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = _counted(monkeypatch)
    with pytest.raises(engines.Cancelled):
        loaded.generate(QUICK | {"steps": 50, "num_outputs": 4}, tmp_path, Listener(patience=3))
    # Two pictures are under way: each may finish its step, and the two that wait look once and leave.
    assert len(begun) <= 3 + 2 * 2 + 4
    assert not list(tmp_path.iterdir())


def test_cancelling_ends_while_it_enlarges(loaded: engine.DojoEngine, tmp_path: Path) -> None:
    listener = Listener(patience=QUICK["steps"] + 2)
    with pytest.raises(engines.Cancelled):
        loaded.generate(QUICK | {"size": 1024}, tmp_path, listener)
    assert not list(tmp_path.iterdir())


def test_a_failing_context_ends_the_work_too(
    loaded: engine.DojoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Listener):
        def progress(self, fraction: float) -> None:
            raise BrokenPipeError

    begun = _counted(monkeypatch)
    with pytest.raises(BrokenPipeError):
        loaded.generate(QUICK | {"steps": 50, "num_outputs": 4}, tmp_path, Broken())
    assert len(begun) < 20
    assert not list(tmp_path.iterdir())


_GROWTH = """
import pathlib, sys, tempfile
from pixeldojo.engines.dojo.engine import DojoEngine
import msgspec

class Deaf:
    inputs = {}
    def progress(self, fraction): pass
    def preview_due(self): return True
    def preview(self, picture, content_type): pass
    def cancelled(self): return False

engine, params = DojoEngine(threads=2), msgspec.json.decode(sys.argv[1])
engine.load()

def draw(**more):
    with tempfile.TemporaryDirectory() as folder:
        engine.generate({**params, **more}, pathlib.Path(folder), Deaf())
    # Not `ru_maxrss`: that begins with the memory of the process this one was forked from.
    return int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

before = draw(num_outputs=4, size=1024)
after = draw(num_outputs=4, size=1024, aspect_ratio="16:9", background="transparent")
Deaf.inputs = {"image_url": pathlib.Path(sys.argv[2]), "mask_url": pathlib.Path(sys.argv[2])}
print(before, after, draw(num_outputs=4))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_memory_stays_bounded(tmp_path: Path) -> None:
    """In a process of its own: this one's memory is everybody's. The peak, in KiB, of the largest jobs."""
    deep = np.linspace(0, 65_535, 2047 * 2047).astype(np.uint16).reshape(2047, 2047)
    (tmp_path / "in").write_bytes(studio.encoded(Image.fromarray(deep)))
    command = [sys.executable, "-c", _GROWTH, msgspec.json.encode(QUICK).decode(), str(tmp_path / "in")]
    environment = {"MALLOC_ARENA_MAX": "2"}  # as `settings.child_environment` has it
    done = subprocess.run(command, check=True, cwd=SOURCE, timeout=120, capture_output=True, text=True, env=environment)
    before, after, edited = map(int, done.stdout.split())
    assert edited < 700 * 1024
    assert edited - before < 200 * 1024 and after - before < 150 * 1024


# -- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_tells_what_the_engine_does() -> None:
    spec = graphs.spec()
    assert (DEFAULTS["steps"], DEFAULTS["guidance"]) == (spec.steps, spec.guidance)
    assert list(canvas.CONTENT_TYPES) == list(canvas.ENCODING) == PROPERTIES["format"]["enum"]
    assert set(spec.canvases) <= set(PROPERTIES["aspect_ratio"]["enum"])
    assert f"{engine.SIDE}," in PROPERTIES["size"]["description"]
    assert PROPERTIES["size"]["maximum"] == engine.MOST_SIDE
    assert any(f"first {spec.text_tokens} tokens" in limit for limit in CARD["limits"])
    assert {name for name, one in PROPERTIES.items() if one.get("x-input")} == {"image_url", "mask_url"}


def test_the_cards_examples_are_drawn(draw: Draw) -> None:
    schema = CARD["schema"]
    for example in CARD["examples"]:
        jsonschema_rs.validate(schema, example)
        assert len(draw(**example)) == example.get("num_outputs", 1)
    for prompt in PROPERTIES["prompt"]["examples"]:
        jsonschema_rs.validate(schema, DEFAULTS | {"prompt": prompt})
    for background in PROPERTIES["background"]["examples"]:
        found = canvas.ground_of({"background": background, "format": "png"}, canvas.WHITE)
        assert found != canvas.WHITE and (found is None) == (background == canvas.TRANSPARENT)
    assert wording.parted(CARD["examples"][0]["prompt"])[1] is not None


def test_the_family_is_registered_and_takes_the_cards_options() -> None:
    spec = CARD["engine"]
    assert isinstance(engines.build(spec["family"], spec["options"]), engine.DojoEngine)
