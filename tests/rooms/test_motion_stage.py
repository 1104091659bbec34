"""What a clip begins with: where the thing lies on the stage, and what stays behind it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixeldojo.engines.dojo import canvas, motion, stage
from studio import pixels

SUN, CLEAR = (255, 200, 40, 255), (0, 0, 0, 0)

Box = tuple[int, int, int, int]


def boxed(size: tuple[int, int], box: Box, ground: tuple[int, int, int, int] = CLEAR) -> Image.Image:
    """A yellow rectangle on plain ground."""
    picture = Image.new("RGBA", size, ground)
    picture.paste(SUN, box)
    return picture


def place(picture: Image.Image) -> Box:
    """Where something is seen."""
    found = picture.getchannel("A").point(lambda level: 255 * (level > 127)).getbbox()
    assert found is not None
    return found


def test_what_fills_its_frame_is_given_no_room() -> None:
    scenery = Image.linear_gradient("L").resize((320, 180)).rotate(90).convert("RGBA")
    for picture in (scenery, boxed((256, 256), (40, 40, 250, 250), (255, 255, 255, 255)), Image.new("RGBA", (64, 64))):
        made = stage.roomy(picture)
        assert made.size == picture.size and (pixels(made) == pixels(picture)).all()


@pytest.mark.parametrize(
    ("size", "box", "wanted"),
    [
        ((256, 256), (64, 64, 192, 192), (64, 64, 192, 192)),  # room enough
        ((256, 256), (8, 100, 72, 164), (26, 100, 90, 164)),  # moved from the left edge
        ((256, 256), (190, 4, 254, 68), (166, 26, 230, 90)),  # moved from a corner
        ((256, 256), (2, 2, 254, 254), (26, 26, 230, 230)),  # made smaller
        ((256, 256), (80, 0, 160, 80), (80, 0, 160, 80)),  # cut off at the top, with room elsewhere
        ((256, 256), (8, 120, 248, 256), (26, 140, 230, 256)),  # made smaller, cut off at the bottom still
        ((256, 256), (0, 120, 240, 256), (0, 125, 230, 256)),  # cut off at a corner
        ((256, 256), (0, 100, 256, 160), (0, 100, 256, 160)),  # cut off left and right
        ((256, 256), (0, 10, 256, 120), (0, 26, 256, 136)),  # the same, moved down
        ((320, 180), (100, 4, 220, 176), (110, 18, 210, 162)),
    ],
)
def test_a_thing_has_room_where_it_is_whole(size: tuple[int, int], box: Box, wanted: Box) -> None:
    made = stage.roomy(boxed(size, box))
    assert made.size == size
    assert np.abs(np.subtract(place(made), wanted)).max() <= 1
    for edge in range(4):  # the cut itself lies at the last pixel
        if box[edge] == (0, 0, *size)[edge]:
            assert place(made)[edge] == box[edge]


def test_a_hole_in_a_card_stays_a_hole() -> None:
    card = Image.new("RGBA", (128, 128), (250, 250, 250, 255))
    ImageDraw.Draw(card).rectangle((32, 20, 96, 30), fill=(200, 40, 40, 255))
    ImageDraw.Draw(card).ellipse((40, 40, 88, 88), fill=CLEAR)
    scene = stage.set_up(card, (320, 180))
    assert scene.plate is None
    assert (scene.layer[3, 80:100, 150:170] == 0).all() and (scene.layer[3, :, :90] == 1).all()
    assert (scene.layer[0, 60:120, 90:100] > 0.97).all(), "all of the card, amid more of its colour"
    shown = motion.over(scene.layer, motion.plate_of(scene, ((10, 120, 60),)))
    assert np.abs(shown[80:100, 150:170].astype(int) - (10, 120, 60, 255)).max() <= 1
    assert motion.over(scene.layer, motion.plate_of(scene, canvas.WHITE))[90].min() > 200, "no black rim"


def test_an_opaque_picture_needs_nothing_behind_it() -> None:
    levels = np.random.default_rng(5).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    opaque = Image.fromarray(levels).resize((256, 192), Image.Resampling.BICUBIC).convert("RGBA")
    scene = stage.set_up(opaque, (256, 192))
    assert scene.plate is None and (scene.layer[3] == 1).all()
    assert (motion.over(scene.layer, None) == pixels(opaque)).all()


@pytest.mark.parametrize(("duration", "loops"), [(1, {1}), (2, {1}), (3, {1}), (3.5, {1, 2}), (4, {1, 2})])
def test_a_motion_comes_round_once_or_in_a_long_clip_twice(duration: float, loops: set[int]) -> None:
    assert {motion.loops_of(duration, np.random.default_rng(seed)) for seed in range(100)} == loops
