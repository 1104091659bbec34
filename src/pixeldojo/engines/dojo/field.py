"""Motions as numbers: fields of displacements go in, and come out mirrored, laid on a part of the frame, or weaker.

A field is float32 (4K, n, n) over a square: for the waves k = 1 … K of the phase φ, sin kφ and 1 − cos kφ, each across
and down. A displacement is in fractions of the square's side and says where a pixel comes from.
"""

import math

import numpy as np

from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.dojo.stage import SEEN, Scene, Square

PHASES = np.arange(1, 16) * np.float32(2 * math.pi / 16)  # at which is looked how far a motion goes
LEAST_ROOM = 0.03  # of the side: what stands nearer to an edge of the frame may move so far all the same


def mirrored(field: Floats) -> Floats:
    """The same motion of the picture in the mirror."""
    other = np.ascontiguousarray(field[..., ::-1])
    other[0::2] *= -1
    return other


def spread(field: Floats, part: Square, whole: Square) -> Floats:
    """The field of `part` as one of `whole`; what is beyond the part moves like its edge."""
    cells = field.shape[-1]
    across = _blend(cells, (whole.left - part.left) / part.side, whole.side / part.side)
    down = _blend(cells, (whole.top - part.top) / part.side, whole.side / part.side)
    laid: Floats = np.einsum("ij,cjk,lk->cil", down, field, across)
    return laid * np.float32(part.side / whole.side)


def _blend(cells: int, start: float, length: float) -> Floats:
    """Weights of the old cells, a row for each new one. The new ones begin at `start` and span `length` old squares."""
    places = (start + (np.arange(cells) + 0.5) / cells * length) * cells - 0.5
    weights = 1 - np.abs(places.clip(0, cells - 1)[:, None] - np.arange(cells))
    return weights.clip(0).astype(np.float32)


def displacements(field: Floats, phases: Floats) -> Floats:
    """(phases, 2, n, n): across and down."""
    waves = len(field) // 4
    turned = phases[:, None] * np.arange(1, waves + 1)
    wave = np.stack([np.sin(turned), 1 - np.cos(turned)], axis=-1).reshape(len(phases), -1)
    return np.tensordot(wave.astype(np.float32), field.reshape(2 * waves, 2, *field.shape[1:]), axes=1)


def amount(field: Floats, alpha: Floats) -> float:
    """How far what is seen moves, on average over the loop, in fractions of the side. `alpha` is (n, n)."""
    away = displacements(field, PHASES)[:, :, alpha > SEEN]
    return float(np.hypot(away[:, 0], away[:, 1]).mean()) if away.size else 0.0


def within(field: Floats, scene: Scene) -> Floats:
    """The field, as much weaker as it takes to keep what is seen within the frame.

    Where it is cut off by the frame, nothing is asked: there `warp.onnx` holds the motion. What is nearer to an edge
    than `LEAST_ROOM`, and not cut off, may still move so far.
    """
    cells = field.shape[-1]
    seen = scene.view(scene.whole, cells)[3] > SEEN
    away = -displacements(field, PHASES)[:, :, seen]  # pictures are pulled: what comes from the left moves right
    down, across = (np.argwhere(seen).T + 0.5) / cells
    height, width = scene.layer.shape[1:]
    gain, half = 1.0, 0.5 / cells
    for axis, places, length in ((0, across, width), (1, down, height)):
        reach = length / scene.whole.side / 2
        for side in (-1, 1):
            cut = scene.layer[3].take(-1 if side > 0 else 0, axis=1 - axis).max() > SEEN
            if cut or not len(places):
                continue
            rooms = reach - side * (places - 0.5) - half
            rooms += max(0.0, LEAST_ROOM - rooms.min())
            gain = min(gain, 1 / max(1.0, float((side * away[:, axis] / rooms).max())))
    return field * np.float32(gain)
