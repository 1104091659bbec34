"""Fields of displacements, by what `warp.onnx` makes of them."""

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixeldojo.engines.dojo import field, graphs, stage
from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.dojo.stage import SEEN, Scene, Square

CELLS = 32
Warp = Any  # a session; onnxruntime has no types


@pytest.fixture(scope="module")
def warp() -> Warp:
    return graphs.session(graphs.WEIGHTS / "warp.onnx")


def frames(warp: Warp, layer: Floats, moved: Floats, phases: Floats) -> Floats:
    (drawn,) = warp.run(None, {"picture": layer[None], "field": moved[None], "phases": phases.astype(np.float32)})
    found: Floats = drawn
    return found


def scene(size: tuple[int, int], disk: tuple[int, int, int]) -> Scene:
    """An orange disk (x, y, radius) on nothing."""
    picture = Image.new("RGBA", (4 * size[0], 4 * size[1]))
    x, y, radius = (4 * length for length in disk)
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 150, 40, 255))
    return stage.set_up(picture.reduce(4), size)


def pushed(across: float, down: float) -> Floats:
    """A field by which all comes from there, in fractions of the side, when sin φ is 1, and nothing else."""
    made = np.zeros((16, CELLS, CELLS), np.float32)
    made[0], made[1] = across, down
    return made


def some(seed: int) -> Floats:
    """A smooth field of all waves."""
    coarse = np.random.default_rng(seed).normal(0, 0.03, (16, 4, 4)).astype(np.float32)
    large = [np.asarray(Image.fromarray(each).resize((CELLS, CELLS), Image.Resampling.BICUBIC)) for each in coarse]
    return np.stack(large)


def middle(layer: Floats) -> tuple[float, float]:
    """Where the disk is, across and down, in pixels."""
    weight = layer[3] / layer[3].sum()
    rows, columns = np.indices(weight.shape) + 0.5
    return float((weight * columns).sum()), float((weight * rows).sum())


QUARTER = np.array([math.pi / 2])


def test_displacements_are_those_of_the_graph(warp: Warp) -> None:
    drawn = frames(warp, scene((200, 120), (100, 60, 20)).layer, pushed(-0.1, 0.05), QUARTER)[0]
    assert middle(drawn) == pytest.approx((100 + 0.1 * 200, 60 - 0.05 * 200), abs=0.3)
    moved = field.displacements(pushed(-0.1, 0.05), QUARTER)
    assert np.allclose(moved[0, 0], -0.1) and np.allclose(moved[0, 1], 0.05)
    whole = field.displacements(some(1), np.array([0, 2 * math.pi]))
    assert np.abs(whole).max() < 1e-5, "it begins and ends with the picture"


def test_the_amount_of_motion_is_that_of_what_is_seen() -> None:
    left, everywhere = np.zeros((CELLS, CELLS), np.float32), np.ones((CELLS, CELLS), np.float32)
    left[:, : CELLS // 2] = 1
    moved = pushed(0.03, 0.04)
    moved[:, :, CELLS // 2 :] = 0
    sine = float(np.abs(np.sin(field.PHASES)).mean())
    assert field.amount(moved, left) == pytest.approx(0.05 * sine, rel=1e-4)
    assert field.amount(moved, everywhere) == pytest.approx(0.025 * sine, rel=1e-4)
    assert field.amount(moved, 0 * left) == 0


def test_a_mirrored_field_moves_the_mirrored_picture(warp: Warp) -> None:
    layer, moved, phases = scene((160, 100), (60, 45, 25)).layer, some(2), np.array([1.0, 2.5, 4.0])
    other = frames(warp, np.ascontiguousarray(layer[..., ::-1]), field.mirrored(moved), phases)
    assert np.abs(other[..., ::-1] - frames(warp, layer, moved, phases)).max() < 1e-3
    assert (field.mirrored(field.mirrored(moved)) == moved).all()


def test_the_field_of_a_part_moves_it_as_the_whole_would_move(warp: Warp) -> None:
    whole = Square(0, 0, 256)
    assert np.allclose(field.spread(some(3), whole, whole), some(3), atol=1e-6)
    large, small = scene((256, 256), (128, 128, 96)), scene((320, 180), (200, 90, 48))
    assert small.thing.side == pytest.approx(large.thing.side / 2, rel=0.05)
    moved = some(4)
    one = frames(warp, large.layer, field.spread(moved, large.thing, large.whole), QUARTER)[0]
    other = frames(warp, small.layer, field.spread(moved, small.thing, small.whole), QUARTER)[0]
    way = np.array(middle(one)) - (128, 128)
    assert np.hypot(*way) > 1
    assert np.array(middle(other)) - (200, 90) == pytest.approx(way / 2, abs=0.6)


@pytest.mark.parametrize("size", [(256, 256), (320, 180), (180, 320)])
@pytest.mark.parametrize("push", [(0.4, 0), (-0.4, 0), (0, 0.4), (0, -0.4)])
def test_what_is_seen_stays_within_the_frame(warp: Warp, size: tuple[int, int], push: tuple[float, float]) -> None:
    disk = scene(size, (size[0] // 2 - 12, size[1] // 2 + 10, min(size) // 4))
    held = field.within(pushed(*push), disk)
    gain = float(np.abs(held).max() / 0.4)
    assert 0.2 < gain < 1
    drawn = frames(warp, disk.layer, held, np.array([math.pi / 2, 3 * math.pi / 2]))
    for each in drawn:
        assert each[3].sum() == pytest.approx(disk.layer[3].sum(), rel=0.02), "nothing is lost"
    assert max(np.hypot(*(np.array(middle(each)) - middle(disk.layer))) for each in drawn) > 10
    gentle = pushed(push[0] / 20, push[1] / 20)
    assert (field.within(gentle, disk) == gentle).all()


@pytest.mark.parametrize("margin", range(1, 9))
def test_what_stands_close_to_an_edge_moves_a_little(margin: int) -> None:
    near, far = margin + 60, 255 - margin - 60  # the drawn disk has its last pixel too
    for disk, push in (
        ((near, 128, 60), (0.4, 0)), ((far, 128, 60), (0.4, 0)), ((128, near, 60), (0, 0.4)), ((128, far, 60), (0, 0.4))
    ):  # fmt: skip
        made = scene((256, 256), disk)
        assert max(made.layer[3, [0, -1]].max(), made.layer[3, :, [0, -1]].max()) < SEEN
        assert np.abs(field.within(pushed(*push), made)).max() == pytest.approx(field.LEAST_ROOM, abs=0.3 / CELLS)


def test_what_the_frame_cuts_off_is_held_there_and_not_weakened() -> None:
    cut, full = scene((256, 256), (128, 256, 90)), scene((200, 200), (100, 100, 300))
    sideways = pushed(0.02, 0)
    assert (field.within(sideways, cut) == sideways).all()
    assert (field.within(some(5), full) == some(5)).all()
    empty = stage.set_up(Image.new("RGBA", (9, 9)), (256, 256))
    assert empty.thing == empty.whole
    assert (field.within(some(5), empty) == some(5)).all()


@pytest.mark.parametrize("ground", [(255, 255, 255), (250, 250, 252), (12, 140, 200), (0, 0, 0)])
def test_a_thing_and_its_ground_give_the_picture_again(ground: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(6).normal(0, 2, (96, 96, 3))
    picture = Image.new("RGB", (96, 96), ground)
    ImageDraw.Draw(picture).ellipse((24, 24, 72, 72), fill=(230, 120, 60))
    levels = np.rint((np.asarray(picture.resize((96, 96))) + noise).clip(0, 255)).astype(np.uint8)
    opaque = Image.fromarray(levels).convert("RGBA")
    made = stage.set_up(opaque, (96, 96))
    assert made.plate is not None
    again = made.layer[:3] + (1 - made.layer[3:]) * made.plate
    assert np.abs(again * 255 - levels.transpose(2, 0, 1)).max() < 0.01
    assert (made.layer[3, :12] == 0).all() and (made.layer[3, 40:56, 40:56] == 1).all()
    assert (made.layer[:3] <= made.layer[3:] + 1e-6).all() and (made.layer >= 0).all()
