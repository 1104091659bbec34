"""The engine family `dojo`: a prompt goes in, and perhaps a picture; one to four files come out.

Ties the wording, the painter and the canvas to the `Engine` interface. Every picture is made alone from its own seed,
so picture i of a batch has the same bytes as the one picture of seed + i. Several are painted at once, one a core; the
tiles of the upscaler are spread over the cores even for one.
"""

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pixeldojo.engines.dojo import canvas, composing, edits, enlarge, graphs, reading, wording
from pixeldojo.engines.dojo.composing import Look, Plan
from pixeldojo.engines.dojo.painter import Given, Painter
from pixeldojo.engines.engine import Cancelled, Context, Output

SEEDS = 2**32
SIDE, LEAST_SIDE, MOST_SIDE = 512, 256, 1024  # pixels of the longer side: the usual, and bounds for a given picture's

# What a painting thread tells the one that may speak to the context; bytes are a preview.
STEPPED, ENDED = "stepped", "ended"
Ticks = queue.SimpleQueue[str | bytes]


class Job(NamedTuple):
    """What a request comes to."""

    plan: Plan
    ground: canvas.Ground | None  # None leaves what is transparent so
    kept: edits.Around | None  # of a picture to start from
    kept_small: edits.Around | None  # the same for previews
    given: Given | None
    steps: int
    guidance: float
    encoding: str

    @property
    def ticks(self) -> int:
        """How often one picture tells that it goes on."""
        height, width = (side * self.plan.spread for side in self.plan.frame.canvas)
        tiles = len(list(enlarge.tiles(height, width))) if self.plan.scale > 1 else 0
        return (self.steps + 1) * self.plan.paintings + 1 + tiles


class DojoEngine:
    """Text to image, image to image and inpainting on the CPU. `threads` is how many pictures are painted at once;
    0 asks the machine."""

    def __init__(self, *, threads: int = 0) -> None:
        self._threads = threads or graphs.machine_threads()
        self._loaded: tuple[Painter, enlarge.Enlarger] | None = None

    def load(self) -> None:
        """Build the graphs from the weights beside this file (some 45 MB)."""
        self._loaded = Painter(), enlarge.Enlarger()

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: Context) -> list[Output]:
        """Make `num_outputs` pictures; see the card for the parameters and their ranges."""
        assert self._loaded is not None, "load() comes first"
        painter, enlarger = self._loaded
        job = understood(painter, params, context.inputs)
        count, frame = params["num_outputs"], job.plan.frame
        ticks: Ticks = queue.SimpleQueue()
        stop, peek = threading.Event(), threading.Event()

        def make(index: int) -> Output:
            def tick(look: Look | None = None) -> None:
                if stop.is_set():
                    raise Cancelled
                if index == 0 and look is not None and peek.is_set():  # of several pictures, the first is shown
                    small = canvas.fitted(look(), frame.at_canvas_size())
                    ticks.put(canvas.preview(finished(small, job.kept_small, job.ground)))
                    peek.clear()  # not sooner: what asks for the next waits for this one
                ticks.put(STEPPED)

            try:
                seed = (params["seed"] + index) % SEEDS
                painted = composing.paint(
                    painter,
                    job.plan,
                    seed=seed,
                    steps=job.steps,
                    guidance=job.guidance,
                    tick=tick,
                    given=job.given,
                )
                large = composing.enlarged(enlarger, painted, job.plan.scale, pool=tiles, tick=tick)
                picture = finished(canvas.fitted(large, frame), job.kept, job.ground)
                return write(picture, out_dir, name=f"{index}", encoding=job.encoding, seed=seed)
            finally:
                ticks.put(ENDED)

        with (
            ThreadPoolExecutor(self._threads, thread_name_prefix="tiles") as tiles,
            ThreadPoolExecutor(min(count, self._threads), thread_name_prefix="dojo") as pool,
        ):
            made = [pool.submit(make, index) for index in range(count)]
            try:
                follow(ticks, context, count=count, ticks_each=job.ticks, peek=peek)
            finally:
                stop.set()  # whatever went wrong here, the painting ends at its next step
        return [each.result() for each in made]


def understood(painter: Painter, params: Mapping[str, Any], inputs: Mapping[str, Path]) -> Job:
    """What the parameters ask for. Raises `Refusal`."""
    named = params.get("aspect_ratio")
    ratio = None if named is None else canvas.ratio_of(named)
    edit = edits.read(inputs, ratio=ratio)
    side = params.get("size")
    if edit is None:
        ratio, side = ratio or 1.0, side or SIDE
    else:
        ratio = ratio or edit.picture.width / edit.picture.height
        side = side or edits.side_of(edit.picture, least=LEAST_SIDE, most=MOST_SIDE)
    frame = canvas.frame(painter.spec, ratio, side=side)
    prompt, ground = worded(params, edit)
    fills = params["background"] == canvas.AUTO and edit is not None and reading.is_opaque(edit.picture)

    def kept(size: tuple[int, int]) -> edits.Around | None:
        return None if edit is None else edits.around(edit, size, opaque=fills)

    return Job(
        plan=composing.plan(painter, prompt, frame, apart=edit is None),
        ground=ground,
        kept=kept(frame.size),
        kept_small=kept(frame.at_canvas_size().size),
        given=None if edit is None else edits.start(painter, edit, frame, params.get("strength")),
        steps=params["steps"],
        guidance=params["guidance"],
        encoding=params["format"],
    )


def worded(params: Mapping[str, Any], edit: edits.Edit | None) -> tuple[str, canvas.Ground | None]:
    """The prompt for the model, and what is laid under its picture. Raises `Refusal`.

    A ground that is asked for by parameter replaces one in the prompt. With a picture to start from, the prompt's is
    left to the model, and what is transparent in the picture stays so.
    """
    prompt, said = wording.parted(params["prompt"])
    ground = canvas.WHITE if said is None else said or None
    if edit is not None and params["background"] == canvas.AUTO:
        prompt, ground = params["prompt"], canvas.WHITE if reading.is_opaque(edit.picture) else None
    return prompt, canvas.ground_of(params, ground)


def finished(painted: Image.Image, kept: edits.Around | None, ground: canvas.Ground | None) -> Image.Image:
    """What is painted, with what an edit leaves untouched, on its ground."""
    if kept is not None:
        painted = edits.finish(painted, kept)
    return painted if ground is None else canvas.on_ground(painted, ground)


def follow(ticks: Ticks, context: Context, *, count: int, ticks_each: int, peek: threading.Event) -> None:
    """Report progress until `count` pictures have ended, and set `peek` whenever a preview is due.

    The context is only ever used by this thread.
    """
    ended = done = 0
    while ended < count:
        told = ticks.get()
        if isinstance(told, bytes):
            context.preview(told, canvas.PREVIEW_TYPE)
            continue
        ended += told == ENDED
        done += 1
        if context.preview_due():
            peek.set()
        if context.cancelled():
            raise Cancelled
        context.progress(done / (count * ticks_each))


def write(picture: Image.Image, out_dir: Path, *, name: str, encoding: str, seed: int) -> Output:
    """Save one finished picture and describe it."""
    file = f"{name}.{encoding}"
    canvas.save(picture, out_dir / file, encoding=encoding)
    return Output(file, "image", canvas.CONTENT_TYPES[encoding], picture.width, picture.height, seed)
