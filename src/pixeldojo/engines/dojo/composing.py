"""From a prompt to a picture of one thing or of several, before it is enlarged: what both engines that paint share.

A prompt that `layout.py` takes apart becomes several paintings laid together, any other one.
"""

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pixeldojo.engines.dojo import canvas, enlarge, layout
from pixeldojo.engines.dojo.canvas import Frame
from pixeldojo.engines.dojo.enlarge import Bytes
from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.dojo.layout import Layout
from pixeldojo.engines.dojo.painter import Ending, Given, Painter, Text

SHARPEST = 320  # pixels: a thing that were to be drawn larger is better enlarged with the whole picture

Look = Callable[[], Bytes]  # the canvas as it would end, uint8 (height, width, 4), colour not multiplied
Tick = Callable[[Look | None], None]


class Plan(NamedTuple):
    """What is to be painted: `whole`, or each thing of the layout."""

    frame: Frame
    whole: Text
    layout: Layout | None
    texts: Mapping[str, Text]  # of the layout, by what is said
    spread: int  # how many times as large as its canvas the picture is laid out

    @property
    def paintings(self) -> int:
        """How many there are."""
        return 1 if self.layout is None else len(layout.paintings(self.layout, 0))

    @property
    def scale(self) -> int:
        """How many times the picture has still to be enlarged: 1, 2 or 4."""
        return self.frame.scale // self.spread


def plan(painter: Painter, prompt: str, frame: Frame, *, apart: bool = True) -> Plan:
    """What a prompt comes to in a frame; with `apart` its things are painted one by one. Raises `Refusal`."""
    said, whole = painter.understood(prompt)
    found = layout.read(said, painter.meanings) if apart else None
    square = painter.spec.canvases["1:1"]
    if found is None or (layout.alone(found) and frame.cells == square):
        return Plan(frame, whole, None, {}, 1)
    words = {item.prompt for item in found.items} | set(found.land.around if found.land is not None else ())
    usual = layout.spots(found, [(1.0, 1.0)] * len(found.items), frame.canvas)
    spread = 2 if frame.scale > 1 and 2 * max(max(spot.width, spot.height) for spot in usual) <= SHARPEST else 1
    return Plan(frame, whole, found, {each: painter.encoded(each) for each in words}, spread)


def paint(
    painter: Painter,
    plan: Plan,
    *,
    seed: int,
    steps: int | None = None,
    guidance: float | None = None,
    tick: Tick = lambda look: None,
    given: Given | None = None,
) -> Bytes:
    """The canvas, `plan.spread` times its size. `tick` is called before each step of each painting and at its end, and
    may raise to stop it; from the second call of a painting on it is given the way to look at what is there.
    """
    found = plan.layout
    if found is None:

        def look_at(ending: Ending | None) -> None:
            tick(None if ending is None else lambda: canvas.cleaned(painter.show(ending())))

        return canvas.cleaned(
            painter.paint(
                plan.whole,
                cells=plan.frame.cells,
                seed=seed,
                steps=steps,
                guidance=guidance,
                tick=look_at,
                given=given,
            )
        )
    done: list[Floats] = []

    def together(*endings: Floats, spread: int = 1) -> Bytes:
        pictures = [*done, *(cut_out(painter.show(each)) for each in endings)]
        return enlarge.divided(layout.laid(found, pictures, plan.frame.canvas, spread=spread, seed=seed))

    def look_on(ending: Ending | None) -> None:
        tick(None if ending is None else lambda: together(ending()))

    for n, said in enumerate(layout.paintings(found, seed)):
        painted = painter.paint(
            plan.texts[said],
            cells=painter.spec.canvases["1:1"],
            seed=(seed, n) if n else seed,
            steps=steps,
            guidance=guidance,
            tick=look_on,
        )
        done.append(cut_out(painted))
    return together(spread=plan.spread)


def enlarged(
    enlarger: enlarge.Enlarger, small: Bytes, scale: int, *, pool: ThreadPoolExecutor, tick: Callable[[], None]
) -> Bytes:
    """The canvas at 1, 2 or 4 times its size; `tick` is called after each tile, and may raise to stop it."""
    if scale == 1:
        return small
    large = enlarge.blank(small, scale)
    with contextlib.closing(enlarger.tile_by_tile(small, large, pool)) as parts:
        for _ in parts:
            tick()
    return large


def cut_out(picture: Floats) -> Floats:
    """The picture without specks in what is clear."""
    return enlarge.multiplied(canvas.cleaned(picture))
