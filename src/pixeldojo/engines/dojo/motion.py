"""The engine family `dojo-motion`: a prompt or a picture goes in, a short clip that loops comes out.

The first frame is the given picture, or one that the image model paints. A small network says how such a thing may
move (`motion.onnx`: a few motions, each a field of displacements that comes back to nothing), the seed takes one of
them, and every frame is the first one pulled along (`warp.onnx`). Frames are drawn on all cores and go straight into
the film, so memory does not grow with the clip.
"""

import contextlib
import math
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pixeldojo.engines.dojo import canvas, composing, enlarge, field, film, graphs, painter, reading, stage, wording
from pixeldojo.engines.dojo.graphs import Floats
from pixeldojo.engines.engine import Cancelled, Context, Output, Refusal

READ_SIDE = 1024  # pixels: a picture whose shorter side is twice as long is reduced while it is read
PREVIEW_SIDE = 256
VIEW = 64  # pixels of the square that the network looks at

PERIOD_S = (2.0, 3.0)  # after which the emoji that the network learnt from are back at their first frame
VIGOUR = (0.85, 1.15)  # by which the seed makes a motion weaker or stronger
STILL = 1e-4  # of the side: so far as this seems to move what does not, so that even that has a chance


class Beginning(NamedTuple):
    """What a clip starts from."""

    picture: Image.Image  # RGBA
    ground: canvas.Ground | None  # what lies behind what is transparent in it; None for nothing
    words: Floats  # (1, width), the prompt as the motion network reads it; zeros for no words


class Planned(NamedTuple):
    """What a clip without a picture starts from."""

    plan: composing.Plan
    ground: canvas.Ground | None  # as above


class Motion(NamedTuple):
    """How a scene moves: displacements (see `field.py`) over the square around it, and how often they come round."""

    field: Floats
    loops: int


class Progress:
    """What is done of a job, told step by step to its context."""

    def __init__(self, context: Context, *, steps: int) -> None:
        self._context, self._steps, self._done = context, steps, 0

    def step(self) -> bool:
        """One step more. Whether a preview of it is wanted. Raises `Cancelled`."""
        self.check()
        self._done += 1
        self._context.progress(self._done / (self._steps + 1))
        return self._context.preview_due()

    def check(self) -> None:
        """Raises `Cancelled`."""
        if self._context.cancelled():
            raise Cancelled

    def show(self, picture: Image.Image) -> None:
        """Show how it will look."""
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        self._context.preview(canvas.preview(picture), canvas.PREVIEW_TYPE)


class MotionEngine:
    """Clips on the CPU. `threads` is how many frames are drawn at once; 0 asks the machine."""

    def __init__(self, *, threads: int = 0) -> None:
        self._threads = threads or graphs.machine_threads()

    def load(self) -> None:
        """Build the graphs from the weights beside this file."""
        self._painter = painter.Painter()
        self._enlarger = enlarge.Enlarger()
        self._motion = graphs.session(graphs.WEIGHTS / "motion.onnx")
        _, words = self._motion.get_inputs()
        self._no_words: Floats = np.zeros(words.shape, np.float32)
        self._warp = graphs.session(graphs.WEIGHTS / "warp.onnx")

    def generate(self, params: Mapping[str, Any], out_dir: Path, context: Context) -> list[Output]:
        """Make the clip; see the card for the parameters and their ranges."""
        duration = Fraction(str(params["duration"]))
        count = math.ceil(duration * params["fps"])
        given = context.inputs.get("image_url")
        if given is not None:
            progress = Progress(context, steps=count)
            start = self._read(given, params)
        else:
            planned = self._planned(params)
            progress = Progress(context, steps=count + planned.plan.paintings * (self._painter.spec.steps + 1))
            start = self._painted(planned, params["seed"], progress)
        size = stage.size_of(params.get("aspect_ratio"), resolution=params["resolution"], shape=start.picture.size)
        scene = stage.set_up(start.picture, size)
        motion = self._motion_of(scene, start.words, params)
        plate = plate_of(scene, start.ground)

        file = f"0.{params['format']}"
        with (
            film.recording(out_dir / file, encoding=params["format"], size=size, rate=count / duration) as made,
            contextlib.closing(self._frames(scene.layer, motion, count)) as layers,
        ):
            for layer in layers:
                frame = over(layer, plate)
                made.add(frame)
                if progress.step():
                    progress.show(Image.fromarray(frame))
        content_type = film.CONTENT_TYPES[params["format"]]
        return [Output(file, "video", content_type, *size, params["seed"], float(duration))]

    def _planned(self, params: Mapping[str, Any]) -> Planned:
        if "prompt" not in params:
            raise Refusal("prompt: there is none: say what to show, or give a picture as image_url.")
        prompt, said = wording.parted(params["prompt"])
        ground = canvas.ground_of(params, canvas.WHITE if said is None else said or None)
        width, height = stage.size_of(params.get("aspect_ratio"), resolution=params["resolution"])
        frame = canvas.frame(self._painter.spec, width / height, side=max(width, height))
        return Planned(composing.plan(self._painter, prompt, frame), ground)

    def _painted(self, planned: Planned, seed: int, progress: Progress) -> Beginning:
        plan, ground = planned

        def tick(look: composing.Look | None) -> None:
            if progress.step() and look is not None:
                small = canvas.fitted(look(), plan.frame.at_canvas_size())
                progress.show(small if ground is None else canvas.on_ground(small, ground))

        painted = composing.paint(self._painter, plan, seed=seed, tick=tick)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="tiles") as pool:
            large = composing.enlarged(self._enlarger, painted, plan.scale, pool=pool, tick=progress.check)
        return Beginning(stage.roomy(canvas.fitted(large, plan.frame)), ground, plan.whole.pooled)

    def _read(self, path: Path, params: Mapping[str, Any]) -> Beginning:
        ground = canvas.ground_of(params, None)
        picture = reading.read(path, name="image_url", enough=READ_SIDE)
        try:
            words = self._painter.read(wording.parted(params.get("prompt", ""))[0]).pooled
        except Refusal:  # the picture says what it is
            words = self._no_words
        return Beginning(picture, ground, words)

    def _motion_of(self, scene: stage.Scene, words: Floats, params: Mapping[str, Any]) -> Motion:
        """One of the motions that the network offers, by the seed: likely ones first, and those in which much moves."""
        chance = np.random.default_rng([params["seed"], 1])  # the painter's noise has the seed alone
        mirrored = bool(chance.random() < 0.5)
        thing = scene.thing
        view = scene.view(thing, VIEW)
        picture = np.ascontiguousarray(view[..., ::-1]) if mirrored else view
        fields, likely = self._motion.run(None, {"picture": picture[None], "pooled": words})
        alpha = scene.view(thing, fields.shape[-1])[3]
        alpha = alpha[:, ::-1] if mirrored else alpha
        weights = [float(p) * (field.amount(each, alpha) + STILL) for p, each in zip(likely, fields, strict=True)]
        found: Floats = fields[chance.choice(len(weights), p=np.divide(weights, sum(weights)))]
        moved = field.spread(field.mirrored(found) if mirrored else found, thing, scene.whole)
        moved *= np.float32(params["strength"] * chance.uniform(*VIGOUR))
        return Motion(field.within(moved, scene), loops_of(params["duration"], chance))

    def _frames(self, layer: Floats, motion: Motion, count: int) -> Generator[Floats]:
        """The moving layer in `count` frames; the one after the last would be the first again."""
        yield layer
        waiting: deque[Future[Floats]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="motion") as pool:
            try:
                for number in range(1, count):
                    phase = 2 * math.pi * motion.loops * number / count
                    waiting.append(pool.submit(self._drawn, layer, motion, phase))
                    if len(waiting) > self._threads:
                        yield waiting.popleft().result()
                for frame in waiting:
                    yield frame.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # whatever went wrong, no frame begins after it

    def _drawn(self, layer: Floats, motion: Motion, phase: float) -> Floats:
        phases = np.array([phase], np.float32)
        (frames,) = self._warp.run(None, {"picture": layer[None], "field": motion.field[None], "phases": phases})
        frame: Floats = frames[0]
        return frame


def loops_of(duration: float, chance: np.random.Generator) -> int:
    """How often a motion comes round in so many seconds: once, from 3.5 on perhaps twice."""
    return max(1, round(duration / chance.uniform(*PERIOD_S)))


def plate_of(scene: stage.Scene, ground: canvas.Ground | None) -> Floats | None:
    """What lies behind the layer, (3, height, width): what the picture has there, or the ground. None for nothing."""
    if scene.plate is not None or ground is None:
        return scene.plate
    height, width = scene.layer.shape[1:]
    rows = np.linspace(ground[0], ground[-1], height, dtype=np.float32).T / np.float32(255)
    return rows[:, :, None].repeat(width, axis=2)


def over(layer: Floats, plate: Floats | None) -> film.Bytes:
    """A frame, uint8 (height, width, 4): the layer over the plate, or over nothing."""
    if plate is None:
        return enlarge.divided(layer)
    colour = layer[:3] + (1 - layer[3:]) * plate
    frame = np.full((*layer.shape[1:], 4), 255, np.uint8)
    frame[..., :3] = np.rint(colour.clip(0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    return frame
