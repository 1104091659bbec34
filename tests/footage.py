"""Clips as a player shows them."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image


def seen(path: Path) -> list[VideoFrame]:
    """The decoded frames of a video file."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def planes(frame: VideoFrame) -> list[NDArray[Any]]:
    """Light and the two colour differences as they are in the file, the latter with half the pixels each way."""
    assert frame.format.name == "yuv420p"
    found = []
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
        found.append(rows[:, : plane.width].astype(np.float64))
    return found


def rgb(frame: VideoFrame) -> NDArray[Any]:
    """BT.709, narrow range, as (height, width, 3) from 0 to 255.

    Computed here: FFmpeg's own conversion writes beyond the frame where the width is no multiple of eight, and what is
    encoded in the same process afterwards suffers.
    """
    light, blue, red = planes(frame)
    light = (light - 16) / 219
    blue, red = (np.repeat(np.repeat((plane - 128) / 224, 2, axis=0), 2, axis=1) for plane in (blue, red))
    r, b = light + 1.5748 * red, light + 1.8556 * blue
    g = (light - 0.2126 * r - 0.0722 * b) / 0.7152
    return 255 * np.stack([r, g, b], axis=-1).clip(0, 1)


def frames(path: Path) -> list[NDArray[np.int64]]:
    """(height, width, 4) each, 0 to 255, of a video or of an animated WebP."""
    if path.suffix != ".webp":
        shown = [np.rint(rgb(frame)).astype(np.int64) for frame in seen(path)]
        return [np.pad(frame, ((0, 0), (0, 0), (0, 1)), constant_values=255) for frame in shown]
    with Image.open(path) as clip:
        found = []
        for number in range(getattr(clip, "n_frames", 1)):
            clip.seek(number)
            found.append(np.asarray(clip.convert("RGBA")).astype(np.int64))
    return found
