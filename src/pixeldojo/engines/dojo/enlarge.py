"""The learned upscaler: RGBA pixels go in, twice or four times as many each way come out.

Works tile by tile, several at once. Each tile is drawn with as much of its surroundings as the network looks at, so
there are no seams, and what is held in memory beside the two pictures does not grow with them.
"""

import concurrent.futures
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixeldojo.engines.dojo import graphs
from pixeldojo.engines.dojo.graphs import Floats

Bytes = NDArray[np.uint8]

SCALES = (2, 4)
TILE = 128  # pixels of the input
OPAQUE = np.array([0, 0, 0, 255], np.uint8).view(np.uint32)[0]  # alpha alone, in a pixel taken as one number
EVERY_BIT = np.uint32(0xFFFFFFFF)
SURROUNDINGS = 12  # pixels of the input: eleven 3×3 convolutions one after another see eleven to each side


class Tile(NamedTuple):
    """A part of the input, in its pixels; the bottom and the right edge are outside."""

    top: int
    left: int
    bottom: int
    right: int


class Enlarger:
    """The two loaded graphs. Any number of threads may use them at once."""

    def __init__(self, folder: Path = graphs.WEIGHTS) -> None:
        self._graphs: Mapping[int, onnxruntime.InferenceSession] = {
            scale: graphs.session(folder / f"upscale{scale}.onnx") for scale in SCALES
        }

    def enlarge(self, small: Bytes, scale: int) -> Bytes:
        """`small`, uint8 (height, width, 4), colour not multiplied, at 2 or 4 times its size, in this thread."""
        large = blank(small, scale)
        for tile in tiles(*small.shape[:2]):
            draw(self._graphs[scale], small, large, tile)
        return large

    def tile_by_tile(self, small: Bytes, large: Bytes, pool: ThreadPoolExecutor) -> Generator[None]:
        """The same into `large` (see `blank`), on the pool's threads; yields after each tile.

        Tiles that have not begun when the iterator is closed never do.
        """
        graph = self._graphs[large.shape[0] // small.shape[0]]
        drawing = [pool.submit(draw, graph, small, large, tile) for tile in tiles(*small.shape[:2])]
        try:
            for each in concurrent.futures.as_completed(drawing):
                each.result()
                yield
        finally:
            for each in drawing:
                each.cancel()


def blank(small: Bytes, scale: int) -> Bytes:
    """Room for the enlarged picture."""
    height, width = small.shape[:2]
    return np.zeros((height * scale, width * scale, 4), np.uint8)


def tiles(height: int, width: int) -> Iterator[Tile]:
    """The parts of a picture, row by row; the last ones are what is left."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield Tile(top, left, min(top + TILE, height), min(left + TILE, width))


def draw(graph: onnxruntime.InferenceSession, small: Bytes, large: Bytes, tile: Tile) -> None:
    """Enlarge one part of `small` into its place in `large`."""
    scale = large.shape[0] // small.shape[0]
    top, left = max(tile.top - SURROUNDINGS, 0), max(tile.left - SURROUNDINGS, 0)
    around = small[top : tile.bottom + SURROUNDINGS, left : tile.right + SURROUNDINGS]
    (found,) = graph.run(None, {"picture": multiplied(around)[None]})
    rows, columns = slice(tile.top - top, tile.bottom - top), slice(tile.left - left, tile.right - left)
    wide = found[0][:, rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
    pixels = divided(wide)
    alpha = small[..., 3]
    seen = alpha[max(tile.top - 1, 0) : tile.bottom + 1, max(tile.left - 1, 0) : tile.right + 1]
    if seen.min() == 255:
        pixels[..., 3] = 255
    elif seen.max() == 0:
        pixels[:] = 0
    else:
        settle(pixels, around[..., 3], rows, columns)
    large[tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale] = pixels


def settle(pixels: Bytes, alpha: Bytes, rows: slice, columns: slice) -> None:
    """Make opaque what lies amid opaque pixels and clear what lies amid transparent ones.

    `pixels` are those of `alpha[rows, columns]`, enlarged. The network is off by a level here and there, which nobody
    sees and every later program stumbles over.
    """
    solid, clear = (amid(alpha == level)[rows, columns] for level in (255, 0))
    (height, width), scale = solid.shape, len(pixels) // len(solid)
    whole = pixels.view(np.uint32).reshape(height, scale, width, scale)
    whole |= np.where(solid, OPAQUE, 0).astype(np.uint32)[:, None, :, None]
    whole &= np.where(clear, 0, EVERY_BIT).astype(np.uint32)[:, None, :, None]


def amid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of a mask has it in its eight neighbours too; beyond the border it goes on as it is."""
    padded = np.pad(mask, 1, mode="edge")
    columns = padded[:-2] & padded[1:-1] & padded[2:]
    inside: NDArray[np.bool_] = columns[:, :-2] & columns[:, 1:-1] & columns[:, 2:]
    return inside


def multiplied(pixels: Bytes) -> Floats:
    """What the networks read: (4, height, width), 0 to 1, colour multiplied by alpha."""
    values: Floats = np.empty((4, *pixels.shape[:2]), np.float32)
    for channel in range(4):
        np.divide(pixels[..., channel], np.float32(255), out=values[channel])
    values[:3] *= values[3]
    return values


def divided(values: Floats) -> Bytes:
    """The way back: uint8 (height, width, 4). Where there is no alpha, there is no colour."""
    alpha = values[3]
    scales = np.float32(255) / np.maximum(alpha, np.float32(1 / 255))
    scales *= alpha >= np.float32(0.5 / 255)
    whole = np.empty((*alpha.shape, 4), np.uint8)
    for channel, factors in enumerate((scales, scales, scales, np.float32(255))):
        levels = values[channel] * factors
        levels += np.float32(0.5)
        whole[..., channel] = levels.clip(0, 255, out=levels)
    return whole
