"""The motion model on drawn shapes: from clips to fits, through a few steps of training, to the graphs that ship."""

import io
import json
import signal
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

torch = pytest.importorskip("torch", reason="needs the extra [training]")
pytest.importorskip("onnx", reason="needs the extra [training]")

import onnxruntime  # noqa: E402
from synthetic import archive, every_emoji  # noqa: E402

from training import evaluate, evaluate_motion, motion_data, motion_fit, runs, ship_motion, train_motion  # noqa: E402
from training.loop import averages  # noqa: E402
from training.motion_net import CELLS, Fields, Warp, affine, displacement, waves  # noqa: E402
from training.profiles import TINY  # noqa: E402

CPU = torch.device("cpu")
SWAY = 22  # pixels of 256


def film(n: int, *, moving: bool = True) -> bytes:
    """A shape that sways to the right and back, 24 frames."""
    frames = []
    for k in range(24):
        image = Image.new("RGBA", (256, 256))
        left = 60 + (n % 4) * 6 + (round(SWAY * (1 - np.cos(2 * np.pi * k / 24)) / 2) if moving else 0)
        shape = (ImageDraw.Draw(image).ellipse, ImageDraw.Draw(image).rectangle)[n % 2]
        shape((left, 70, left + 110, 180 + n), fill=("#d03030", "#3060d0", "#30a050")[n % 3])
        ImageDraw.Draw(image).rectangle((left + 30, 100, left + 50, 130), fill="white")
        frames.append(image)
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=42, loop=0, lossless=True, method=0)
    return file.getvalue()


def clips_of(root: Path) -> Path:
    """Write the archive of clips below `root`: ten that move, two of them held out."""
    clips = []
    with zipfile.ZipFile(root / "data" / "motion.zip", "w") as file:
        for n, one in enumerate(every_emoji()[:10]):
            shown, seconds = motion_data.frames(film(n))
            file.writestr(one.file, motion_data.strip(shown))
            clips.append(motion_data.Clip(one.code, one.file, one.label, seconds, motion_data.change(shown), n > 7))
        file.writestr("index.json", json.dumps({"clips": [vars(clip) for clip in clips]}))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's folder after a few steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = clips_of(archive(tmp_path_factory.mktemp("motion")))
    motion_fit.build(folder, TINY.motion)
    train_motion.train(folder, TINY.motion, TINY.motion.budget, runs.EMBEDDED)
    yield folder
    torch.set_num_threads(threads)


def test_a_strip_holds_the_loop_evenly_and_still_films_do_not_change(root: Path) -> None:
    clip = motion_data.read_clips(root)[0]
    assert clip.seconds == pytest.approx(24 * 0.042) and clip.change > motion_data.LEAST_CHANGE
    frames = motion_data.load(root, [clip])[0].int()
    assert frames.shape == (motion_data.PHASES, 4, motion_data.SIDE, motion_data.SIDE)
    assert (frames[:, :3] <= frames[:, 3:] + 1).all()
    left = [int(frame[3].amax(0).nonzero()[0, 0]) for frame in frames]
    assert left[motion_data.PHASES // 2] - left[0] == pytest.approx(SWAY * motion_data.SIDE / 256, abs=1)
    still, _ = motion_data.frames(film(0, moving=False))
    assert motion_data.change(still) < 1e-3


def test_the_waves_rest_at_the_ends_of_a_loop() -> None:
    assert not waves(torch.zeros(1), 4).any()
    assert waves(torch.tensor([2 * torch.pi]), 4).abs().max() < 1e-5
    fields = torch.randn(1, 8, 5, 5)
    found = displacement(fields, torch.tensor([0.7]))[0, 0]
    wanted = fields[0, :2] * np.sin(0.7) + fields[0, 2:4] * (1 - np.cos(0.7))
    wanted = wanted + fields[0, 4:6] * np.sin(1.4) + fields[0, 6:] * (1 - np.cos(1.4))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_fit_finds_the_sway_that_was_drawn(root: Path) -> None:
    settings = replace(TINY.motion, fit_steps=40)
    frames = motion_data.load(root, motion_data.read_clips(root)[:2]).float() / 255
    fields, still, error = motion_fit.fit(frames, settings)
    assert (error < 0.35 * still).all()
    half = displacement(fields, torch.tensor([torch.pi]))[:, 0]
    middle = half[:, :, CELLS // 2 - 3 : CELLS // 2 + 3, CELLS // 2 - 3 : CELLS // 2 + 3].mean((2, 3))
    assert middle[:, 0].tolist() == pytest.approx([-SWAY / 256] * 2, abs=0.02)  # where a pixel comes from: the left
    assert middle[:, 1].abs().max() < 0.02


def test_fits_go_on_with_the_clips_that_they_are_of(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(root / "data")
    path, begun = tmp_path / motion_fit.FILE, 0
    made = torch.load(root / motion_fit.FILE, weights_only=True)

    def fit(*_: Any) -> tuple[Any, ...]:
        nonlocal begun
        begun += 1
        return tuple(made[name][0] for name in ("fields", "still", "error"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion_fit, "fit", fit)
        for codes, fits in ((made["codes"], 0), (made["codes"][::-1], 1), (made["codes"][1:], 1), (None, 1)):
            begun = 0
            torch.save(made | {"codes": codes}, path)
            motion_fit.build(tmp_path, TINY.motion)
            assert begun == fits
            assert torch.load(path, weights_only=True)["codes"] == made["codes"]
        torch.save({name: made[name] for name in ("fields", "still", "error")}, path)
        motion_fit.build(tmp_path, TINY.motion)
        assert begun == 2, "an old file does not say which they are"


def test_samples_move_as_they_are_placed(root: Path) -> None:
    clips = train_motion.load(root, runs.EMBEDDED, CPU, held_out=True)
    moved = torch.zeros(1, 12)
    moved[:, 8] = 0.08  # 1 − cos φ across
    ones = train_motion.Clips(
        clips.still[:1], clips.seen[:1], affine(moved, (CELLS, CELLS)), clips.words[:1], clips.frames[:1]
    )
    torch.manual_seed(3)
    batch = train_motion.batch_of(ones, 64)
    assert batch.pictures.min() >= 0 and (batch.pictures[:, :3] <= batch.pictures[:, 3:] + 1e-5).all()
    opaque = batch.pictures[:, 3].amin((1, 2)) > 0.99
    assert 8 < int(opaque.sum()) < 40
    across = batch.fields[:, 2]
    assert {float(x.sign().median()) for x in across[~opaque]} == {-1.0, 1.0}  # mirrored pictures move the other way
    assert (across[opaque].abs().amin((1, 2)) < 1e-6).all()  # still ground far from the object
    assert across.abs().amax((1, 2)).max() <= 0.08 * 1.06


def test_training_leaves_a_record_and_goes_on_after_a_stop(root: Path, tmp_path: Path) -> None:
    facts = json.loads((root / "motion.json").read_text())
    assert facts["steps"] == 4 and {"best", "explained_best", "moved", "folds"} <= set(facts["history"][-1])
    assert all(np.isfinite(value) for line in facts["history"] for value in line.values())
    (tmp_path / "data").symlink_to(root / "data")
    (tmp_path / motion_fit.FILE).write_bytes((root / motion_fit.FILE).read_bytes())
    real, seen = train_motion.losses, 0

    def stopping(fields: Any, likely: Any, batch: train_motion.Batch, share: float) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        if seen == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(fields, likely, batch, share)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_motion, "losses", stopping)
        with pytest.raises(SystemExit):
            train_motion.train(tmp_path, TINY.motion, TINY.motion.budget, runs.EMBEDDED)
    train_motion.train(tmp_path, TINY.motion, TINY.motion.budget, runs.EMBEDDED)
    whole, parts = averages(root, "motion"), averages(tmp_path, "motion")
    assert whole is not None and parts is not None
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.fixture(scope="module")
def shipped(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    ship_motion.main(["--root", str(root), "--profile", "tiny"], out=folder, folder=folder)
    return folder


def picture(height: int, width: int) -> NDArray[np.float32]:
    """Noise with its colour multiplied by alpha; opaque."""
    values = np.random.default_rng(1).random((1, 4, height, width), np.float32)
    values[:, 3] = 1
    return values


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_the_graphs_compute_what_the_networks_do(root: Path, shipped: Path) -> None:
    gain = json.loads((shipped / "dojo-motion.json").read_text())["gain"]
    net = Fields(train_motion.trained(root, TINY, CPU), gain)
    small, pooled = picture(64, 64), np.random.default_rng(2).random((1, 384), np.float32)
    graph = onnxruntime.InferenceSession(shipped / "motion.onnx")
    fields, modes = graph.run(None, {"picture": small, "pooled": pooled})
    with torch.no_grad():
        wanted, likely = net(torch.from_numpy(small), torch.from_numpy(pooled))
    assert fields.shape == (2, 8, CELLS, CELLS) == wanted.shape
    assert np.abs(fields - wanted.numpy()).mean() < 0.05 * np.abs(wanted.numpy()).mean() + 2e-4
    assert modes.sum() == pytest.approx(1, abs=1e-5) and np.abs(modes - likely.numpy()).max() < 0.02


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(64, 64), (37, 90), (120, 51)])
def test_frames_begin_with_the_picture_close_the_loop_and_hold_cut_edges(shipped: Path, size: tuple[int, int]) -> None:
    graph = onnxruntime.InferenceSession(shipped / "warp.onnx")
    field = 0.05 * np.random.default_rng(3).standard_normal((1, 8, 1, 1), np.float32)
    field = np.broadcast_to(field, (1, 8, CELLS, CELLS)).astype(np.float32)
    phases = np.array([0, 1, 2 * np.pi], np.float32)
    given = picture(*size)
    (frames,) = graph.run(None, {"picture": given, "field": field, "phases": phases})
    assert frames.shape == (3, 4, *size)
    assert np.abs(frames[0] - given[0]).max() < 1e-4 and np.abs(frames[2] - given[0]).max() < 1e-3
    assert np.abs(frames[1] - given[0]).mean() > 0.05
    assert frames[1, 3].min() > 0.99
    off = np.abs(frames[1] - given[0])[:3]
    for edge in (off[:, 0], off[:, -1], off[..., 0], off[..., -1]):
        assert edge.mean() < 0.12  # a third where it may move
    with torch.no_grad():
        wanted = Warp()(torch.from_numpy(given), torch.from_numpy(field), torch.from_numpy(phases)).numpy()
    assert np.abs(frames - wanted).max() < 1e-3


@pytest.mark.filterwarnings("ignore")
def test_a_shift_moves_pictures_of_any_shape_by_the_same_pixels(shipped: Path) -> None:
    graph = onnxruntime.InferenceSession(shipped / "warp.onnx")
    given = np.zeros((1, 4, 40, 80), np.float32)
    given[:, :, 16:24, 36:44] = 1
    field = np.zeros((1, 8, CELLS, CELLS), np.float32)
    field[:, 2:4] = np.array([-0.05, 0.025])[:, None, None]  # at φ = π twice that: 8 pixels to the right, 4 up
    (frames,) = graph.run(None, {"picture": given, "field": field, "phases": np.array([np.pi], np.float32)})
    rows, columns = np.nonzero(frames[0, 3] > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 19, 44, 51)


@pytest.mark.filterwarnings("ignore")
def test_figures_and_strips_are_those_of_the_shipped_graphs(root: Path, shipped: Path, tmp_path: Path) -> None:
    facts = json.loads((shipped / "dojo-motion.json").read_text())
    assert sorted(path.name for path in shipped.iterdir()) == [
        "dojo-motion.json", "dojo-motion.png", "motion.onnx", "warp.onnx"
    ]  # fmt: skip
    assert facts["curve"][-1]["step"] == 4
    assert (
        0.1 < facts["last_step_over_others"] < 4
        and 0 <= facts["middle_top1"] <= 100
        and facts["training"]["steps"] == 4
    )
    assert Image.open(shipped / "dojo-motion.png").width > 8 * evaluate_motion.CELL
    line = ["--root", str(root), "--profile", "tiny", "--sheets", str(tmp_path), "--stage", "flow", "--only", "motion"]
    line += ["--text", str(runs.EMBEDDED)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "EMBEDDED", shipped)
        assert evaluate.main(line).keys() <= facts.keys()
        assert (tmp_path / "motion.webp").exists()
        (root / motion_fit.FILE).rename(tmp_path / "away")
        assert evaluate.main(line) == {}
        (tmp_path / "away").rename(root / motion_fit.FILE)
