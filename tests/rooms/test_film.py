"""The files of clips: what a browser needs of them, and what must be in them from the frames that went in."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from footage import planes, rgb, seen
from pixeldojo.engines.dojo import film

Bytes = NDArray[np.uint8]


def drawn(count: int, size: tuple[int, int] = (96, 64)) -> list[Bytes]:
    """A disk that goes round on a transparent ground, with a hidden colour where nothing is seen."""
    frames = []
    for number in range(count):
        turn = 2 * math.pi * number / count
        picture = Image.new("RGBA", size, (30, 200, 90, 0))
        x, y = size[0] / 2 + 20 * math.cos(turn), size[1] / 2 + 12 * math.sin(turn)
        ImageDraw.Draw(picture).ellipse((x - 14, y - 14, x + 14, y + 14), fill=(255, 190, 40, 255))
        frames.append(np.asarray(picture))
    return frames


def flat(colour: tuple[int, int, int]) -> Bytes:
    return np.asarray(Image.new("RGBA", (96, 64), (*colour, 255)))


def shot(path: Path, frames: Sequence[Bytes], *, encoding: str = "mp4", rate: Fraction = Fraction(24)) -> bytes:
    height, width = frames[0].shape[:2]
    with film.recording(path, encoding=encoding, size=(width, height), rate=rate) as made:
        for frame in frames:
            made.add(frame)
    return path.read_bytes()


def psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one - other).mean(), 1e-6)))


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    data = shot(tmp_path / "a.mp4", drawn(24))
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "the index is in front"
    with av.open(str(tmp_path / "a.mp4")) as container:
        (stream,) = container.streams
        assert stream == container.streams.video[0]
        picture = container.streams.video[0].codec_context
        assert (picture.name, picture.pix_fmt, picture.width, picture.height) == ("h264", "yuv420p", 96, 64)
        assert (picture.colorspace, picture.color_range) == (Colorspace.ITU709, ColorRange.MPEG)
        assert (picture.color_primaries, picture.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)


@pytest.mark.parametrize(
    ("count", "rate"), [(24, Fraction(24)), (26, Fraction(52, 3)), (16, Fraction(16)), (96, Fraction(24))]
)
def test_mp4_lasts_exactly_as_long_as_its_frames(tmp_path: Path, count: int, rate: Fraction) -> None:
    shot(tmp_path / "a.mp4", drawn(count), rate=rate)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None and stream.time_base is not None
        assert stream.duration * stream.time_base == count / rate
        assert stream.average_rate == rate
        times = [frame.pts * stream.time_base for frame in container.decode(video=0) if frame.pts is not None]
    assert times == [number / rate for number in range(count)]


@pytest.mark.parametrize("colour", [(200, 80, 40), (30, 200, 90), (20, 40, 220), (255, 255, 255), (0, 0, 0)])
def test_mp4_keeps_colours(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    shot(tmp_path / "a.mp4", [flat(colour)] * 4)
    for frame in seen(tmp_path / "a.mp4"):
        assert psnr(rgb(frame), flat(colour)[..., :3]) > 42


@pytest.mark.parametrize("size", [(180, 318), (208, 312), (298, 218), (320, 180)])
def test_mp4_keeps_light_and_colour_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """Against the definition of BT.709, to the last column; colour lies between two rows, on every other column."""
    levels = np.random.default_rng(7).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)
    shot(tmp_path / "a.mp4", [np.asarray(picture.convert("RGBA"))] * 3)
    r, g, b = (channel / 255 for channel in np.asarray(picture).astype(np.float64).transpose(2, 0, 1))
    light = 0.2126 * r + 0.7152 * g + 0.0722 * b
    meant = [16 + 219 * light]
    for difference in ((b - light) / 1.8556, (r - light) / 1.5748):
        rows = (difference[0::2] + difference[1::2]) / 2
        before = np.concatenate([rows[:, :1], rows[:, 1:-1:2]], axis=1)
        meant.append(128 + 224 * (before + 2 * rows[:, 0::2] + rows[:, 1::2]) / 4)
    for frame in seen(tmp_path / "a.mp4"):
        for plane, wanted in zip(planes(frame), meant, strict=True):
            assert psnr(plane, wanted) > 40
            assert np.abs(plane[:, -6:] - wanted[:, -6:]).mean() < 3


def test_mp4_keeps_every_frame(tmp_path: Path) -> None:
    frames = [flat((40 + 8 * number, 120, 200 - 8 * number)) for number in range(12)]
    frames += [frame[..., [2, 1, 0, 3]] for frame in reversed(drawn(12))]
    shot(tmp_path / "a.mp4", frames)
    shown = seen(tmp_path / "a.mp4")
    assert len(shown) == 24
    for frame, meant in zip(shown, frames, strict=True):
        assert np.abs(rgb(frame) - meant[..., :3]).mean() < 4


@pytest.mark.parametrize("count", [16, 41])
def test_webp_plays_for_ever_and_keeps_alpha(tmp_path: Path, count: int) -> None:
    frames = drawn(count)
    shot(tmp_path / "a.webp", frames, encoding="webp", rate=Fraction(16))
    lasts_ms = 0
    with Image.open(tmp_path / "a.webp") as made:
        assert (made.size, made.mode, made.info["loop"]) == ((96, 64), "RGBA", 0)
        assert getattr(made, "n_frames", 1) == count
        for number in range(count):
            made.seek(number)
            pixels = np.asarray(made).astype(np.int64)
            lasts_ms += made.info["duration"]
            assert (pixels[..., 3] == frames[number][..., 3]).all()
            there = pixels[..., 3] > 0
            assert np.abs(pixels[there] - frames[number][there].astype(np.int64)).mean() < 4
    assert abs(lasts_ms - count / 16 * 1000) <= 1, "whole milliseconds"


@pytest.mark.parametrize("encoding", list(film.CONTENT_TYPES))
def test_equal_frames_give_equal_bytes(tmp_path: Path, encoding: str) -> None:
    first, again = (shot(tmp_path / name, drawn(20), encoding=encoding) for name in ("a", "b"))
    assert first == again
    assert b"Lavf" not in first and b"x264" not in first, "no versions"


@pytest.mark.parametrize("encoding", list(film.CONTENT_TYPES))
def test_what_is_given_up_leaves_no_file(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a"
    with (
        pytest.raises(InterruptedError),
        film.recording(path, encoding=encoding, size=(96, 64), rate=Fraction(24)) as made,
    ):
        for frame in drawn(12):
            made.add(frame)
        raise InterruptedError
    assert not path.exists()
