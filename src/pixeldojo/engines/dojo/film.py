"""From frames to a file that plays in browsers: uint8 RGBA frames in one after another, MP4 or animated WebP out.

MP4 is H.264 in yuv420p with its index in front, so that it starts before it is whole; its colours are converted and
tagged as BT.709. An animated WebP keeps transparency and plays for ever. Each frame goes straight into the encoder:
x264 keeps five of them at most, whatever the clip's length; of a WebP the file, not its frames, is held in memory until
its end. One thread, and no dates and versions in the file: equal frames give equal bytes.
"""

import contextlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container.output import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

CONTENT_TYPES: Mapping[str, str] = MappingProxyType({"mp4": "video/mp4", "webp": "image/webp"})

_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT


class _Way(NamedTuple):
    """How one kind of file is made, in FFmpeg's words."""

    codec: str
    pixels: str
    container: Mapping[str, str]
    encoder: Mapping[str, str]
    packets: str  # the filter that these go through


# `bitexact` leaves versions and dates out of the container, `filter_units` what x264 says of itself and its options.
# x264's macroblock tree gave other bytes from run to run.
_WAYS: Mapping[str, _Way] = {
    "mp4": _Way(
        "libx264", "yuv420p",
        {"movflags": "+faststart", "fflags": "+bitexact"},
        {"crf": "16", "preset": "medium", "x264-params": "mbtree=0", "flags": "+bitexact"},
        "filter_units=remove_types=6",
    ),
    "webp": _Way(
        "libwebp_anim", "bgra",
        {"loop": "0", "fflags": "+bitexact"},
        {"quality": "90", "compression_level": "2", "lossless": "0"},
        "null",
    ),
}  # fmt: skip


class Film:
    """A file in the making; `recording` opens one."""

    def __init__(self, container: OutputContainer, stream: VideoStream, way: _Way, rate: Fraction) -> None:
        self._container, self._stream = container, stream
        self._pixels, self._rate = way.pixels, rate
        self._packets = BitStreamFilterContext(way.packets, stream.codec_context.codec)
        self._taken = 0

    def add(self, frame: Bytes) -> None:
        """The next frame: uint8 (height, width, 4), colour not multiplied by alpha. MP4 takes no notice of alpha."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgba")
        if self._pixels == "yuv420p":
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=int(_EXACT), threads=1,
                src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG,
            )  # fmt: skip
        else:
            picture = picture.reformat(format=self._pixels, threads=1)
        picture.pts, picture.time_base = self._taken, 1 / self._rate
        self._taken += 1
        self._encode(picture)

    def end(self) -> None:
        """Write what the encoder still holds."""
        self._encode(None)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(self._packets.filter(packet))


@contextlib.contextmanager
def recording(path: Path, *, encoding: str, size: tuple[int, int], rate: Fraction) -> Iterator[Film]:
    """A film of `size` (even width and height) at `rate` frames a second, at `path` when the block ends.

    `encoding` is "mp4" or "webp". When the block raises, no file is left.
    """
    way = _WAYS[encoding]
    try:
        with av.open(str(path), "w", format=encoding, options=dict(way.container)) as container:
            stream = container.add_stream(way.codec, rate=rate, options=dict(way.encoder))
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = size
            stream.pix_fmt = way.pixels
            context = stream.codec_context
            context.thread_count = 1  # x264 divides its work by the threads, and other divisions give other bytes
            if encoding == "mp4":
                context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
                context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            film = Film(container, stream, way, rate)
            yield film
            film.end()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
