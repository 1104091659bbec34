"""The engine family `dojo`: a prompt goes in, one to four files come out.

Ties the prompt's wording, the sampler and the canvas to the `Engine` interface. Every picture is made alone
from its own seed, so picture i of a batch has the same bytes as the one picture of seed + i. Several are
made at once, one a core: that doubles the pictures a second on two cores, where two cores for one picture
would only be a seventh faster and burn twice the time.
"""

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from pixeldojo.engines.dojo import canvas, sampler, wording
from pixeldojo.engines.engine import Cancelled, Context, Output, Refusal

WEIGHTS = Path(__file__).parent
SEEDS = 2**32

# What a drawing thread tells the one that may speak to the context; bytes are a preview.
STEPPED, ENDED = "stepped", "ended"
Ticks = queue.SimpleQueue[str | bytes]


class DojoEngine:
    """Text to image on the CPU. `threads` is how many pictures are drawn at once; 0 asks the machine."""

    def __init__(self, *, threads: int = 0) -> None:
        self._threads = threads or sampler.machine_threads()
        self._sampler: sampler.Sampler | None = None

    def load(self) -> None:
        """Build the three graphs from the weights beside this file (about 40 MB)."""
        self._sampler = sampler.Sampler(WEIGHTS)

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: Context) -> list[Output]:
        """Make `num_outputs` pictures; see the card for the parameters and their ranges."""
        loaded = self._sampler
        assert loaded is not None, "load() comes first"
        text = loaded.read(ids_of(loaded, params["prompt"]))
        count: int = params["num_outputs"]
        ticks: Ticks = queue.SimpleQueue()
        stop, peek = threading.Event(), threading.Event()

        def make(index: int) -> Output:
            def tick(ending: sampler.Floats | None) -> None:
                if stop.is_set():
                    raise Cancelled
                if index == 0 and ending is not None and peek.is_set():  # of several pictures, the first is shown
                    peek.clear()
                    ticks.put(canvas.preview(loaded.show(ending)))
                ticks.put(STEPPED)

            try:
                seed = (params["seed"] + index) % SEEDS
                square = loaded.draw(text, seed=seed, steps=params["steps"], guidance=params["guidance"], tick=tick)
                picture = canvas.finish(square, aspect_ratio=params["aspect_ratio"])
                return write(picture, out_dir, name=f"{index}", encoding=params["format"], seed=seed)
            finally:
                ticks.put(ENDED)

        with ThreadPoolExecutor(min(count, self._threads), thread_name_prefix="dojo") as pool:
            made = [pool.submit(make, index) for index in range(count)]
            try:
                follow(ticks, context, count=count, ticks_each=params["steps"] + 1, peek=peek)
            finally:
                stop.set()  # whatever went wrong here, the drawing ends at its next step
        return [each.result() for each in made]


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
        context.progress(done / (count * (ticks_each + 1)))


def ids_of(loaded: sampler.Sampler, prompt: str) -> list[int]:
    """The prompt's token ids; a prompt that says nothing is refused."""
    try:
        return wording.token_ids(loaded.tokenizer, prompt=prompt)
    except wording.NoMeaning:
        message = "The prompt has no word this model can read. Name one object in English, or use an emoji."
        raise Refusal(message) from None


def write(picture: Image.Image, out_dir: Path, *, name: str, encoding: str, seed: int) -> Output:
    """Save one finished picture and describe it."""
    file = f"{name}.{encoding}"
    canvas.save(picture, out_dir / file, encoding=encoding)
    return Output(file, "image", canvas.CONTENT_TYPES[encoding], picture.width, picture.height, seed)
