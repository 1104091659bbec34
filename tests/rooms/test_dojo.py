"""The embedded model, with its real weights: what a caller may rely on, whatever the pictures look like."""

import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema_rs
import msgspec
import numpy as np
import pytest
from hypothesis import strategies
from numpy.typing import NDArray
from PIL import Image

import pixeldojo
from pixeldojo.engines import engine as engines
from pixeldojo.engines.dojo import canvas, engine, sampler, wording

CARD: dict[str, Any] = msgspec.json.decode(
    (Path(pixeldojo.__file__).parent / "catalogue/cards/dojo-mini.json").read_bytes()
)
DEFAULTS = {name: spec["default"] for name, spec in CARD["schema"]["properties"].items() if "default" in spec}
QUICK = DEFAULTS | {"prompt": "hamburger", "seed": 3, "steps": 4}


class Listener:
    """A context that remembers, and cancels once it was asked `patience` times."""

    inputs: Mapping[str, Path] = {}

    def __init__(self, *, patience: int | None = None, curious: bool = False) -> None:
        self.previews: list[bytes] | None = [] if curious else None
        self.heard: list[float] = []
        self.asked = 0
        self.patience = patience

    def progress(self, fraction: float) -> None:
        self.heard.append(fraction)

    def preview_due(self) -> bool:
        return self.previews is not None

    def preview(self, picture: bytes, content_type: str) -> None:
        assert self.previews is not None and content_type == "image/webp"
        self.previews.append(picture)

    def cancelled(self) -> bool:
        self.asked += 1
        return self.patience is not None and self.asked > self.patience


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


def pixels(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)))


def object_box(file: bytes) -> tuple[int, int]:
    """Width and height in pixels of what differs from the top left corner's colour."""
    picture = pixels(file).astype(int)
    rows, columns = np.nonzero(np.abs(picture - picture[0, 0]).max(axis=2) > 60)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def test_the_same_input_gives_the_same_bytes_in_another_process(draw: Draw, tmp_path: Path) -> None:
    here = draw()
    (tmp_path / "params.json").write_bytes(msgspec.json.encode(QUICK))
    script = (
        "import sys, json, pathlib; from unittest.mock import Mock\n"
        "from pixeldojo.engines.dojo.engine import DojoEngine\n"
        "out = pathlib.Path(sys.argv[1]); made = DojoEngine(threads=1); made.load()\n"
        "context = Mock(cancelled=lambda: False)\n"
        "made.generate(json.loads((out / 'params.json').read_text()), out, context)\n"
    )
    source = Path(pixeldojo.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, cwd=source, timeout=60)
    assert (tmp_path / "0.png").read_bytes() == here[0]


def test_a_picture_of_a_batch_is_the_picture_of_its_own_seed(draw: Draw) -> None:
    top = 2**32 - 2
    batch = draw(seed=top, num_outputs=4)
    alone = [draw(seed=seed)[0] for seed in (top, top + 1, 0, 1)]
    assert batch == alone
    assert len(set(batch)) == 4


def test_outputs_are_described_in_order(loaded: engine.DojoEngine, tmp_path: Path) -> None:
    outputs = loaded.generate(QUICK | {"num_outputs": 2, "format": "webp", "aspect_ratio": "3:2"}, tmp_path, Listener())
    assert outputs == [
        engines.Output("0.webp", "image", "image/webp", 672, 448, 3),
        engines.Output("1.webp", "image", "image/webp", 672, 448, 4),
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.webp", "1.webp"]


def test_prompt_steps_and_guidance_matter(draw: Draw) -> None:
    assert len({draw(**each)[0] for each in ({}, {"prompt": "panda"}, {"steps": 5}, {"guidance": 2.5})}) == 4


@pytest.mark.parametrize("ratio", CARD["schema"]["properties"]["aspect_ratio"]["enum"])
def test_every_ratio_has_its_exact_size_and_an_unstretched_object(draw: Draw, ratio: str) -> None:
    square = object_box(draw(steps=8)[0])
    (file,) = draw(steps=8, aspect_ratio=ratio)
    width, height = canvas.SIZES[ratio]
    across, down = map(int, ratio.split(":"))
    assert pixels(file).shape == (height, width, 3)
    assert width * down == height * across
    assert width % 8 == height % 8 == 0
    scale = min(width, height) / 512
    assert object_box(file) == pytest.approx((square[0] * scale, square[1] * scale), abs=4)


def test_the_ground_is_one_colour_to_the_edge(draw: Draw) -> None:
    for ratio in ("1:1", "16:9", "9:16"):
        picture = pixels(draw(prompt="koala on a blue background", steps=8, aspect_ratio=ratio)[0])
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert np.ptp(edge, axis=0).max() <= 1
        red, _, blue = edge[0]
        assert blue > red + 30


def test_an_object_that_touches_the_border_is_neither_smeared_nor_cut_hard() -> None:
    square = np.full((3, 128, 128), 255, np.float32)
    square[:, 40:80, 60:] = 0
    picture = np.asarray(canvas.finish(square, aspect_ratio="16:9")).astype(int)
    assert (picture[:, -150:] == 255).all()
    assert np.abs(np.diff(picture[216, :, 0])).max() < 128


def test_all_card_ratios_and_formats_are_drawn() -> None:
    properties = CARD["schema"]["properties"]
    assert list(canvas.SIZES) == properties["aspect_ratio"]["enum"]
    assert list(canvas.CONTENT_TYPES) == list(canvas.ENCODING) == properties["format"]["enum"]


def test_the_cards_examples_are_valid() -> None:
    schema = CARD["schema"]
    for example in CARD["examples"]:
        jsonschema_rs.validate(schema, example)
    for prompt in schema["properties"]["prompt"]["examples"]:
        jsonschema_rs.validate(schema, DEFAULTS | {"prompt": prompt})


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_every_format_decodes_and_tells_nothing(draw: Draw, encoding: str) -> None:
    (file,) = draw(format=encoding)
    (reference,) = draw()
    picture = Image.open(io.BytesIO(file))
    assert picture.format == encoding.upper()
    assert picture.mode == "RGB"
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background"}
    assert not picture.getexif()
    assert b"hamburger" not in file
    assert np.abs(pixels(file).astype(int) - pixels(reference)).mean() < 4


@pytest.mark.parametrize("prompt", [" ", "\t\n", "...", "!?", "\u200d\u200b", "\ufe0f", "— “”", "[", "\U000f0000"])
def test_a_prompt_that_says_nothing_is_refused(loaded: engine.DojoEngine, tmp_path: Path, prompt: str) -> None:
    with pytest.raises(engines.Refusal, match="no word this model can read"):
        loaded.generate(QUICK | {"prompt": prompt}, tmp_path, Listener())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "prompt",
    ["❤️", "👩🏽‍🚀", "🇯🇵", "1️⃣", "تفاحة حمراء", "\u202eelppa", "[CLS] [SEP] [MASK]", "red " * 125, "\ufeffcat", "a\x07b"],
)  # fmt: skip
def test_odd_unicode_is_drawn(draw: Draw, prompt: str) -> None:
    assert pixels(draw(prompt=prompt)[0]).shape == (512, 512, 3)


@hypothesis.given(strategies.text(min_size=1, max_size=500))
@hypothesis.example("x" * 500)
@hypothesis.example("e\u0301\u0302" * 160)
@hypothesis.example("ﷺ İ ß")
@hypothesis.example("white background " * 29)
@hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_any_text_is_read_or_refused(loaded: engine.DojoEngine, prompt: str) -> None:
    assert loaded._sampler is not None
    try:
        ids = wording.token_ids(loaded._sampler.tokenizer, prompt=prompt)
    except wording.NoMeaning:
        return
    assert 3 <= len(ids) <= wording.MAX_IDS


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("😀", "grinning face"),
        ("❤️ on a pink background", "heart \ufe0f on a pink background"),
        ("🖤", "black heart"),
        ("🐼", "panda"),
        ("a  strawberry on a plain white background", "a strawberry"),
        ("owl, white background", "owl"),
        ("White background", "White background"),
        ("off-white backgrounds", "off-white backgrounds"),
    ],
)
def test_wording(prompt: str, said: str) -> None:
    assert wording.plain(prompt) == said


def test_only_the_first_words_are_read(loaded: engine.DojoEngine, draw: Draw) -> None:
    long = "red apple " * 20
    assert draw(prompt=long) == draw(prompt=long + "castle")


@pytest.mark.parametrize("count", [1, 3])
def test_progress_rises_to_one(loaded: engine.DojoEngine, tmp_path: Path, count: int) -> None:
    listener = Listener()
    loaded.generate(QUICK | {"num_outputs": count}, tmp_path, listener)
    assert len(listener.heard) >= count * QUICK["steps"]
    assert listener.heard == sorted(listener.heard)
    assert 0 < listener.heard[0] < 0.2
    assert listener.heard[-1] == 1


def test_previews_come_near_the_picture_and_change_nothing(
    loaded: engine.DojoEngine, draw: Draw, tmp_path: Path
) -> None:
    listener = Listener(curious=True)
    params = {"steps": 16, "num_outputs": 2}
    out = tmp_path / "watched"
    out.mkdir()
    loaded.generate(QUICK | params, out, listener)
    assert [path.read_bytes() for path in sorted(out.iterdir())] == draw(**params)  # as if nobody had looked
    assert listener.previews is not None and len(listener.previews) > 4

    def small(data: bytes | Path) -> NDArray[np.float32]:
        picture = Image.open(data if isinstance(data, Path) else io.BytesIO(data)).convert("RGB").resize((64, 64))
        return np.asarray(picture, np.float32)

    made = small(out / "0.png")
    distance = [float(np.abs(small(preview) - made).mean()) for preview in listener.previews]
    assert distance[-1] < 10 < distance[0], distance


def test_cancelling_ends_within_a_step(
    loaded: engine.DojoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = 0
    real = sampler.Sampler.draw

    def counted(self: sampler.Sampler, text: Any, *, tick: Callable[[Any], None], **params: Any) -> sampler.Floats:
        def count(ending: Any) -> None:
            nonlocal ticks
            ticks += 1
            tick(ending)

        return real(self, text, tick=count, **params)

    monkeypatch.setattr(sampler.Sampler, "draw", counted)
    listener = Listener(patience=3)
    with pytest.raises(engines.Cancelled):
        loaded.generate(QUICK | {"steps": 50, "num_outputs": 4}, tmp_path, listener)
    # Two pictures are under way: each may finish its step, and the two that wait look once and leave.
    assert ticks <= 3 + 2 * 2 + 4
    assert not list(tmp_path.iterdir())


def test_a_failing_context_ends_the_work_too(loaded: engine.DojoEngine, tmp_path: Path) -> None:
    class Broken(Listener):
        def progress(self, fraction: float) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        loaded.generate(QUICK | {"steps": 50, "num_outputs": 4}, tmp_path, Broken())
    assert not list(tmp_path.iterdir())


_GROWTH = """
import pathlib, resource, sys, tempfile
from pixeldojo.engines.dojo.engine import DojoEngine
import msgspec

class Deaf:
    inputs = {}
    def progress(self, fraction): pass
    def preview_due(self): return True
    def preview(self, picture, content_type): pass
    def cancelled(self): return False

engine, params = DojoEngine(), msgspec.json.decode(sys.argv[1])
engine.load()

def draw(**more):
    with tempfile.TemporaryDirectory() as folder:
        engine.generate({**params, **more}, pathlib.Path(folder), Deaf())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for ratio in ("1:1", "16:9"):
    before = draw(num_outputs=4, aspect_ratio=ratio)
for seed in range(3):
    after = draw(num_outputs=4, seed=seed, aspect_ratio="16:9", prompt="a red apple " * seed + "bear")
print(before, after)
"""


def test_memory_stays_flat() -> None:
    """In a process of its own: this one's memory is everybody's. The peak, in KiB."""
    source = Path(pixeldojo.__file__).parent.parent
    command = [sys.executable, "-c", _GROWTH, msgspec.json.encode(QUICK).decode()]
    done = subprocess.run(command, check=True, cwd=source, timeout=60, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 40 * 1024
    assert after < 700 * 1024


def test_the_family_is_registered_and_takes_the_cards_options() -> None:
    spec = CARD["engine"]
    assert isinstance(engines.build(spec["family"], spec["options"]), engine.DojoEngine)
