"""Scenes say what they show; colours are what their words say; features find a picture again."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [training]")

from synthetic import archive, every_emoji  # noqa: E402

from training import captions, colour, features, render, scenes, train_flow, train_upscaler, writer  # noqa: E402
from training.data import read_prompts  # noqa: E402
from training.profiles import CANVASES, LATENT_STRIDE  # noqa: E402
from training.render import Ground, Layer, Scene  # noqa: E402

CPU = torch.device("cpu")
BOXES = [(0.1, 0.1, 0.9, 0.9)] * len(every_emoji())


def make(seed: int) -> writer.Writer:
    return writer.Writer(every_emoji(), BOXES, seed)


def middle(layer: Layer) -> tuple[float, float]:
    return layer.left + layer.side / 2, layer.top + layer.side / 2


def test_one_seed_gives_one_list() -> None:
    assert scenes.write(every_emoji(), BOXES, 120) == scenes.write(every_emoji(), BOXES, 120)
    assert scenes.write(every_emoji(), BOXES, 120) != scenes.write(every_emoji(), BOXES, 120, seed=6)


def test_people_weigh_less_and_composed_scenes_what_they_are_told() -> None:
    someone, *others = every_emoji()
    made = scenes.write([replace(someone, subgroup="person-role"), *others], BOXES, 120, composed=1.5)
    plain, composed = [s for s in made if s.plain], [s for s in made if not s.plain]
    weights = [sum(s.weight for s in plain if s.layers[0].emoji == row) for row in (0, 1)]
    assert weights == pytest.approx([scenes.PERSON, scenes.ANY])
    assert sum(s.weight for s in composed) == pytest.approx(1.5 * sum(s.weight for s in plain))


def test_every_kind_keeps_its_middle_on_the_canvas_and_says_something() -> None:
    source = make(1)
    for _, kind in scenes.KINDS.values():
        for _ in range(30):
            scene = kind(source)
            height, width = scenes.size_of(scene.canvas)
            assert scene.captions and all(caption == caption.strip() for caption in scene.captions)
            for layer in scene.layers:
                x, y = middle(layer)
                assert 0 < x < width and 0 < y < height


@pytest.mark.parametrize("seed", range(20))
def test_who_stands_where_is_true(seed: int) -> None:
    source = make(seed)
    one, other = source.called(source.row["cat face"]), source.called(source.row["house"])
    for _ in range(10):
        scene = scenes.beside(source, one, other)
        assert middle(scene.layers[0])[0] < middle(scene.layers[1])[0]
        assert any("left of" in c or "right of" in c or " and " in c or "next to" in c for c in scene.captions)
        above, below = (layer for layer in sorted(scenes.over(source, one, other).layers, key=lambda k: middle(k)[1]))
        assert (above.emoji, below.emoji) == (one.row, other.row)
        large, small = scenes.of_two_sizes(source, one, other).layers
        assert large.side > 1.5 * small.side


def test_counted_things_are_as_many_as_the_words_say() -> None:
    source, seen = make(3), set()
    for _ in range(80):
        scene = scenes.many(source)
        word = re.match(r"(?:a group of )?(two|three|four|five|six|\d)\b", scene.captions[0])
        if word:
            numbers = {text: number for number, text in scenes.NUMBERS.items()}
            wanted = numbers.get(word[1]) or int(word[1])
            assert len(scene.layers) == wanted
            seen.add(wanted)
    assert seen >= {2, 3, 4}


def test_no_caption_is_the_name_of_another() -> None:
    fruit, face, *others = (replace(one, group="animals-nature") for one in every_emoji())
    ape = [replace(fruit, label="banana"), replace(face, label="monkey face", tags=("banana", "ape", "red key"))]
    source = writer.Writer([*ape, replace(others[0], label="monkey"), *others[1:]], BOXES, 3)
    said = {caption for _ in range(40) for caption in source.captions(1, count=9)}
    assert {"a monkey face", "ape", "the head of a monkey"} <= said
    assert not said & {"banana", "a monkey"}
    assert any(caption.startswith("banana, ") for caption in said)  # beside the own name it may stand
    coloured = {caption for _ in range(40) for caption in source.captions(1, colour="blue")}
    assert "a blue monkey face" in coloured and "a blue monkey" not in coloured


def test_paraphrases_are_never_trained_on() -> None:
    assert all(captions.held_out(row["prompt"]) for row in read_prompts("paraphrases"))
    some = [f"a cat number {n}" for n in range(2000)]
    assert 0.01 < sum(map(captions.held_out, some)) / len(some) < 0.03


def square(rgb: tuple[float, float, float]) -> Any:
    """A coloured square with a white glint, on nothing."""
    x = torch.zeros(1, 4, 64, 64)
    x[:, 3, 8:56, 8:56] = 1
    x[:, :3, 8:56, 8:56] = torch.tensor(rgb)[:, None, None]
    x[:, :3, 12:16, 12:16] = 1
    return x


def test_oklab_there_and_back() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(colour.from_oklab(colour.to_oklab(x)), x, atol=2e-3)


@pytest.mark.parametrize("word", ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"])
@pytest.mark.parametrize("before", [(0.8, 0.2, 0.2), (0.2, 0.4, 0.9), (0.6, 0.6, 0.6)])
def test_recoloured_things_have_their_colour(word: str, before: tuple[float, float, float]) -> None:
    x = square(before)
    y = colour.recolour(x, torch.tensor([colour.OBJECT_COLOURS[word]]))
    assert features.has_colour(y, [word]) == [True]
    assert torch.equal(y[:, 3], x[:, 3]) and (y[:, :3] <= y[:, 3:] + 1e-5).all()
    assert y[0, :3, 13, 13].min() > 0.9  # the glint is still white


def test_a_leaf_stays_green() -> None:
    x = square((0.8, 0.2, 0.2))
    x[:, :3, 40:52, 40:52] = torch.tensor([0.2, 0.7, 0.3])[:, None, None]
    y = colour.recolour(x, torch.tensor([colour.OBJECT_COLOURS["purple"]]))
    assert torch.allclose(y[0, :, 46, 46], x[0, :, 46, 46], atol=0.05)


def test_a_scene_is_drawn_where_it_says(tmp_path: Path) -> None:
    rows = every_emoji()
    atlas = render.atlas(archive(tmp_path), rows)
    boxes = render.boxes(atlas)
    assert atlas.shape == (len(rows), 4, 256, 256) and (atlas[:, :3] <= atlas[:, 3:]).all()
    source = writer.Writer(rows, boxes, 1)
    layer = source.put(0, (64.0, 100.0), 60, flip=False)
    scene = Scene(CANVASES["1:1"], (layer,), Ground(), ("it",))
    (drawn,) = render.draw([scene], atlas, CPU)
    ys, xs = (drawn[3] > 0.5).nonzero(as_tuple=True)
    assert abs(float(xs.float().mean()) - 64) < 6 and abs(float(ys.float().mean()) - 100) < 6
    assert 50 <= max(int(xs.max() - xs.min()), int(ys.max() - ys.min())) <= 62
    blue = Scene(CANVASES["16:9"], (layer,), Ground("plain", (10, 20, 200)), ("it",))
    (drawn,) = render.draw([blue], atlas, CPU)
    assert drawn.shape == (4, 12 * LATENT_STRIDE, 22 * LATENT_STRIDE)
    assert torch.allclose(drawn[:, 0, 0], torch.tensor([10 / 255, 20 / 255, 200 / 255, 1.0]), atol=1e-3)


def test_features_find_a_picture_again_smaller_and_elsewhere(tmp_path: Path) -> None:
    rows = every_emoji()
    whole = render.atlas(archive(tmp_path), rows).float() / 255
    moved = torch.nn.functional.pad(
        torch.nn.functional.interpolate(whole, scale_factor=0.5, mode="bilinear", antialias=True), (100, 28, 10, 118)
    )
    found = features.ranks(features.describe(moved), features.describe(whole), list(range(len(rows))))
    assert sum(row[0] == n for n, row in enumerate(found)) >= len(rows) - 1
    empty = torch.zeros(1, 4, 64, 64)
    assert torch.isfinite(features.describe(empty)).all() and features.has_colour(empty, ["red"]) == [False]


def test_given_cells_are_a_share_of_the_samples() -> None:
    torch.manual_seed(0)
    mask = train_flow.given_cells(2000, (12, 22), 0.25, CPU)
    assert mask.shape == (2000, 1, 12, 22) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert 0.2 < float((mask.flatten(1).sum(1) > 0).float().mean()) < 0.3
    assert not (mask.flatten(1).mean(1) == 1).any()


def test_jpeg_like_blocks_lose_detail_but_keep_the_picture() -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gentle, harsh = train_upscaler.blocks(x, 1e-4), train_upscaler.blocks(x, 0.05)
    assert torch.allclose(gentle, x, atol=5e-3)
    assert (harsh - x).abs().mean() > 0.02
    assert torch.allclose(harsh.mean(), x.mean(), atol=0.02)


def test_random_scenes_for_the_autoencoder_draw(tmp_path: Path) -> None:
    from training import pictures

    found = pictures.load(archive(tmp_path), 6, CPU)
    assert len(found.composed) == 6 and len(found.held_out) == 2 and len(found.toned) == 1
    torch.manual_seed(0)
    batch = found.batch(9, 64)
    assert batch.shape == (9, 4, 64, 64) and batch.min() >= -1 and batch.max() <= 1
    assert pictures.random_scene(random.Random(1), 5) == pictures.random_scene(random.Random(1), 5)
