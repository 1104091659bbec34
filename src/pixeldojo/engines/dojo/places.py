"""Landscapes: sky above land, which code draws and things stand in."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pixeldojo.engines.dojo.graphs import Floats

Colour = tuple[int, int, int]  # 8-bit sRGB


class Land(NamedTuple):
    """A landscape: colours of the sky's top, its bottom and the land, its words, and what may stand around."""

    top: Colour
    bottom: Colour
    land: Colour
    words: tuple[str, ...]
    around: tuple[str, ...]
    also: tuple[str, ...] = ()  # other words for it, which the model was not told of
    horizon: float = 0.66  # of the height, above the land

    @property
    def has_floor(self) -> bool:
        """Whether things stand there; in space and under water they float."""
        return self.horizon < 0.8


LANDS: Mapping[str, Land] = MappingProxyType(
    {
        "grass": Land(
            (126, 190, 250),
            (216, 238, 255),
            (122, 196, 92),
            ("on the grass", "in a meadow", "on a green lawn under a blue sky"),
            ("sun", "cloud", "deciduous tree", "tulip"),
            also=("on grass", "in the grass", "in a field", "in the park", "in a garden"),
        ),
        "snow": Land(
            (150, 190, 228),
            (226, 238, 250),
            (246, 249, 254),
            ("in the snow", "on a snowy field", "in winter"),
            ("evergreen tree", "snowflake", "snowman without snow"),
            also=("in snow",),
        ),
        "desert": Land(
            (118, 196, 240),
            (253, 232, 196),
            (238, 198, 128),
            ("in the desert", "on the sand", "in the desert under the sun"),
            ("cactus", "sun"),
            also=("in a desert",),
        ),
        "beach": Land(
            (112, 196, 248),
            (190, 232, 250),
            (246, 222, 168),
            ("on the beach", "at the seaside", "on a sunny beach"),
            ("palm tree", "sun", "spiral shell"),
            also=("on a beach", "at the beach", "by the sea"),
        ),
        "sea": Land(
            (140, 206, 252),
            (224, 242, 254),
            (52, 136, 206),
            ("on the sea", "on the water", "at sea"),
            ("sun", "cloud"),
            also=("in the sea", "on the ocean"),
        ),
        "night": Land(
            (18, 24, 66),
            (58, 62, 122),
            (38, 58, 74),
            ("at night", "under the night sky", "at night under the moon"),
            ("crescent moon", "star", "star"),
            also=("under the stars", "under the moon"),
        ),
        "space": Land(
            (12, 12, 36),
            (36, 24, 72),
            (36, 24, 72),
            ("in space", "in outer space", "among the stars"),
            ("ringed planet", "star", "star", "comet"),
            horizon=2.0,
        ),
        "sunset": Land(
            (250, 142, 96),
            (254, 214, 140),
            (124, 82, 112),
            ("at sunset", "at dusk under an orange sky", "in the evening"),
            ("sun", "cloud"),
        ),
        "underwater": Land(
            (44, 150, 214),
            (14, 70, 148),
            (226, 202, 150),
            ("under water", "in the ocean", "at the bottom of the sea"),
            ("coral", "bubbles", "tropical fish"),
            horizon=0.85,
            also=("underwater", "in the water", "under the sea"),
        ),
    }
)
IN_THE_SKY = frozenset(
    {
        "sun",
        "cloud",
        "crescent moon",
        "star",
        "snowflake",
        "ringed planet",
        "comet",
        "bubbles",
        "tropical fish",
    }
)


HILL = 0.05  # of the height: so much lower does the land begin at the sides


def drawn(land: Land, size: tuple[int, int]) -> Floats:
    """(4, height, width), 0 to 1 and opaque, of a size given as height and width."""
    height, width = size
    down = np.linspace(0, 1, height, dtype=np.float32)[None, :, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, None, :]
    colours = np.array((land.top, land.bottom, land.land), np.float32) / 255
    top, bottom, ground = colours[..., None, None]
    cover = ((down - land.horizon - HILL * across**2) * height / 1.5 + 0.5).clip(0, 1)
    shade = 1.06 - 0.16 * ((down - land.horizon) / max(1e-3, 1 - land.horizon)).clip(0, 1)
    picture = np.ones((4, height, width), np.float32)
    picture[:3] = (top + (bottom - top) * down) * (1 - cover) + (ground * shade).clip(0, 1) * cover
    return picture
