"""Every stage for a few steps, going on after a stop, and the exported graphs against the networks."""

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [training]")
pytest.importorskip("onnx", reason="needs the extra [training]")

import onnxruntime  # noqa: E402
from synthetic import archive, every_emoji  # noqa: E402

from pixeldojo.engines.dojo import meaning  # noqa: E402
from training import captions as captions_stage  # noqa: E402
from training import (  # noqa: E402
    emphasis,
    evaluate,
    export,
    keep,
    latents,
    meanings,
    profiles,
    runs,
    sample,
    ship_mini,
    ship_upscaler,
    study,
    take_up,
    text,
    train_ae,
    train_distil,
    train_flow,
    train_upscaler,
)
from training.data import read_index, read_prompts  # noqa: E402
from training.loop import KEPT, Average, Loop, averages  # noqa: E402
from training.muon import Muon, Optimiser, orthogonal  # noqa: E402
from training.profiles import TINY, Budget  # noqa: E402

CPU = torch.device("cpu")
PAUSED = 75


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's folder in which every stage has run for a few steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = archive(tmp_path_factory.mktemp("run"))
    captions_stage.build(folder, TINY, runs.EMBEDDED)
    train_ae.train(folder, TINY.autoencoder, TINY.autoencoder.budget)
    train_upscaler.train(folder, TINY.upscaler, TINY.upscaler.budget)
    train_flow.train(folder, TINY)
    train_distil.train(folder, TINY)
    yield folder
    torch.set_num_threads(threads)


def test_every_stage_leaves_a_record(root: Path) -> None:
    for stage, steps in (("autoencoder", 4), ("upscaler", 3), ("flow", 4), ("distil", 2)):
        facts = json.loads((root / f"{stage}.json").read_text())
        assert facts["steps"] == steps and facts["history"][-1]["step"] == steps
        assert all(np.isfinite(value) for line in facts["history"] for value in line.values())
        assert facts["budget"]["batch"] > 0 and facts["hours"] >= 0 and facts["torch"] == torch.__version__
    assert "psnr_128" in json.loads((root / "autoencoder.json").read_text())["history"][-1]
    assert "critic" in json.loads((root / "autoencoder.json").read_text())["history"][-1]


def test_captions_have_states_the_encoder_gives(root: Path) -> None:
    texts, scenes = captions_stage.read(root)
    states = text.load(root / "texts.pt")
    row = texts.index(scenes[0].captions[0])
    own, pooled = text.Encoder(runs.EMBEDDED, TINY.flow.text_tokens).encode([texts[row]])
    found, whole, lengths = states.take(torch.tensor([row]), TINY.flow.text_tokens)
    assert int(lengths) == len(own[0])
    assert np.allclose(found[0, : len(own[0])].numpy(), own[0], atol=1e-3)
    assert not found[0, len(own[0]) :].any()
    assert np.allclose(whole.numpy(), pooled, atol=1e-3)


def test_latents_are_standard_and_know_their_captions(root: Path) -> None:
    data = latents.load(root, TINY)
    texts, scenes = captions_stage.read(root)
    assert sum(len(bucket.latents) for bucket in data.buckets) == len(scenes)
    whole = torch.cat([bucket.latents.float().transpose(0, 1).flatten(1) for bucket in data.buckets], 1)
    assert whole.mean(1).abs().max() < 0.05 and (whole.std(1) - 1).abs().max() < 0.1
    for bucket in data.buckets:
        shown = {texts[i] for row, count in zip(bucket.captions, bucket.counts, strict=True) for i in row[:count]}
        assert not any(captions_stage.held_out(caption) for caption in shown)


def test_a_carried_encoder_keeps_the_standard_its_flow_knows(root: Path, tmp_path: Path) -> None:
    other = archive(tmp_path)
    captions_stage.build(other, TINY, runs.EMBEDDED)
    kept = {"autoencoder": averages(root, "autoencoder"), "standard": [torch.full((8,), 0.5), torch.full((8,), 2.0)]}
    torch.save(kept, other / KEPT)
    data = latents.build(other, TINY)
    assert data.mean.tolist() == [0.5] * 8 and data.deviation.tolist() == [2.0] * 8


def test_a_stage_that_goes_on_elsewhere_says_from_what(root: Path, tmp_path: Path) -> None:
    shutil.copy(keep.keep(root), tmp_path / KEPT)
    begun = Loop(tmp_path, "flow", TINY.flow.budget, {})
    assert begun.step == 0 and begun.facts()["after"]["last"]["step"] == 4
    begun.save()
    assert Loop(tmp_path, "flow", TINY.flow.budget, {}).facts()["after"]["steps"] == 4
    assert "after" not in Loop(root, "none", TINY.flow.budget, {}).facts()
    (root / KEPT).unlink()


def test_what_is_drawn_badly_is_learnt_more(root: Path) -> None:
    found = study.study(root, TINY, runs.EMBEDDED)
    emoji = read_index(root)
    assert set(found) == {one.code for one in emoji if not one.tone}
    assert all(0 <= own < 9 and 0 <= other < 9 for own, other in found.values())
    lost, fine = emoji[0].code, [one.code for one in emoji[1:]]
    told = {lost: (1.2, 0.9), **dict.fromkeys(fine, (0.2, 0.9))}
    (root / emphasis.FILE).write_text(json.dumps(told))
    _, scenes = captions_stage.read(root)
    data = latents.load(root, TINY)
    for bucket, by in zip(data.buckets, emphasis.factors(root, data), strict=True):
        own = [scene for scene in scenes if scene.canvas == tuple(bucket.canvas)]
        wanted = [emphasis.MOST if [layer.emoji for layer in scene.layers] == [0] else 1.0 for scene in own]
        assert by.tolist() == wanted
    (root / emphasis.FILE).unlink()
    assert all(bool((by == 1).all()) for by in emphasis.factors(root, data))


def test_twins_are_not_taken_for_mistakes() -> None:
    assert emphasis.factor(0.3, 0.9) == 1 == emphasis.factor(0.0, 0.0)
    assert 1 < emphasis.factor(0.2, 0.2) < 3 < emphasis.factor(0.9, 0.95) < emphasis.MOST == emphasis.factor(1.0, 0.5)


def test_a_distilled_network_begins_as_its_teacher(root: Path) -> None:
    before, after = averages(root, "flow"), averages(root, "distil")
    assert before is not None and after is not None
    assert [value.shape for value in before] == [value.shape for value in after]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def learn(folder: Path, stop_at: int | None) -> Any:
    """A few steps of nothing in particular, stopped by a signal after one of them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 6))
    optimiser, average = Optimiser([net], net), Average(net, 0.9)
    budget = Budget(minutes=5, steps=8, batch=1, learning_rate=0.01, report_every=4)
    loop = Loop(folder, "wobble", budget, {"net": net, "optimiser": optimiser, "average": average})
    for _ in loop.steps():
        loss = net(torch.randn(3, 6)).pow(2).mean()
        loss.backward()
        optimiser.step(loop.rate(warm_steps=2))
        average.follow()
        loop.tell(loss=loss)
        if loop.step == stop_at:
            signal.raise_signal(signal.SIGTERM)
    return net


def test_a_stopped_stage_goes_on_where_it_stood(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = learn(tmp_path / "whole", None)
    with pytest.raises(SystemExit) as stopped:
        learn(tmp_path / "parts", 3)
    assert stopped.value.code == PAUSED
    resumed = learn(tmp_path / "parts", None)
    assert torch.equal(whole[0].weight, resumed[0].weight)
    lines = [json.loads((tmp_path / name / "wobble.json").read_text())["history"] for name in ("whole", "parts")]
    assert [line["loss"] for line in lines[0]][-1] == pytest.approx([line["loss"] for line in lines[1]][-1])


def test_the_encoder_rests_once_a_flow_has_learnt_its_latents(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "run")
    folder = tmp_path / "run"
    latents.build(folder, TINY)
    made = (folder / "latents.pt").stat().st_mtime_ns
    before = train_ae.load(folder, TINY.autoencoder, CPU)
    longer = replace(TINY.autoencoder.budget, steps=TINY.autoencoder.budget.steps + 2)
    train_ae.train(folder, TINY.autoencoder, longer)
    after = train_ae.load(folder, TINY.autoencoder, CPU)

    def alike(half: str) -> bool:
        return all(torch.equal(a, b) for a, b in zip(before[half].parameters(), after[half].parameters(), strict=True))

    assert alike("encoder") and not alike("decoder")
    latents.load(folder, TINY)
    assert (folder / "latents.pt").stat().st_mtime_ns == made, "the latents are still the encoder's"


def test_muon_makes_updates_near_orthogonal_and_steps_down() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, 12, 30)))
    assert values.min() > 0.5 and values.max() < 1.4
    weights = [torch.nn.Parameter(torch.randn(8, 8)) for _ in range(2)] + [torch.nn.Parameter(torch.randn(4, 2, 3, 3))]
    muon, sizes = Muon(weights), [float(w.detach().norm()) for w in weights]
    for _ in range(40):
        for weight in weights:
            weight.grad = weight.detach().clone()
        muon.step(0.1)
    assert all(float(w.detach().norm()) < 0.7 * size for w, size in zip(weights, sizes, strict=True))


@pytest.fixture(scope="module")
def lively(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but kept weights, all of them random, so that every part of a graph matters."""
    folder = tmp_path_factory.mktemp("lively")
    torch.manual_seed(1)
    stages = {stage: averages(root, stage) or [] for stage in ("autoencoder", "upscaler", "flow", "distil")}
    kept = {s: [0.08 * torch.randn_like(v) if v.ndim > 1 else v for v in values] for s, values in stages.items()}
    torch.save({**kept, "standard": list(latents.standard(root))}, folder / KEPT)
    return folder


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("stage", ["flow", "distil"])
def test_the_graphs_compute_what_the_networks_do(lively: Path, stage: str, tmp_path: Path) -> None:
    card = export.export(lively, TINY, stage, tmp_path)
    networks = export.modules(lively, TINY, stage)
    sessions = {name: onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in networks}
    assert set(card["files"]) == {f"{name}.onnx" for name in networks} and card["distilled"] == (stage == "distil")
    for canvas in ("1:1", "16:9"):  # other shapes than the ones exported with
        inputs = export.examples(TINY, profiles.CANVASES[canvas], batch=3)
        with torch.no_grad():
            wanted = networks["denoiser"](*inputs.values()).numpy()
        (found,) = sessions["denoiser"].run(None, {name: value.numpy() for name, value in inputs.items()})
        assert found.shape == wanted.shape == inputs["x"].shape
        assert np.abs(found - wanted).mean() < 0.03 * np.abs(wanted).mean()
        (drawn,) = sessions["decoder"].run(None, {"z": inputs["x"].numpy()})
        with torch.no_grad():
            assert np.abs(drawn - networks["decoder"](inputs["x"]).numpy()).mean() < 0.01
    picture = torch.rand(1, 4, 48, 80)
    for name in ("encoder", "upscale2", "upscale4"):
        with torch.no_grad():
            wanted = networks[name](picture).numpy()
        (found,) = sessions[name].run(None, {"picture": picture.numpy()})
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).mean() < 0.02 * max(1.0, np.abs(wanted).mean())


def test_a_painter_draws_edits_and_repeats_itself(lively: Path) -> None:
    painter = sample.Painter(lively, TINY, runs.EMBEDDED)
    two = sample.Sampling(steps=2, guidance=2.0)
    one = painter.paint(["a red key"], canvas="9:16", how=two, seed=4)
    assert one.shape == (1, 4, 22 * 16, 12 * 16) and one.min() >= 0 and (one[:, :3] <= one[:, 3:]).all()
    assert torch.equal(one, painter.paint(["a red key"], canvas="9:16", how=two, seed=4))
    assert not torch.equal(one, painter.paint(["a red key"], canvas="9:16", how=two, seed=5))
    given = sample.Given(torch.randn(1, TINY.autoencoder.channels, 16, 16), torch.ones(1, 1, 16, 16))
    given.mask[:, :, 8:] = 0
    z = painter.latents(["a key"], (16, 16), how=two, seed=1, given=given)
    assert torch.equal(z[:, :, :8], given.latent[:, :, :8])
    barely = replace(given, mask=torch.zeros(1, 1, 16, 16), strength=0.01)
    near = painter.latents(["a key"], (16, 16), how=two, seed=1, given=barely)
    assert (near - given.latent).abs().mean() < 0.2


def test_descriptions_lead_to_what_they_describe(tmp_path: Path) -> None:
    encoder, emoji = text.Encoder(runs.EMBEDDED, TINY.flow.text_tokens), every_emoji()
    np.savez(tmp_path / meaning.FILE, allow_pickle=False, **meanings.build(emoji, encoder))
    known, described = meaning.Meanings(tmp_path / meaning.FILE), read_prompts("meanings")
    for label, said in (("robot", "a robot"), ("key", "a key")):
        for phrase in described[label]:
            assert known.said(phrase, encoder.encode([phrase])[1][0].astype(np.float32)) == said
    for phrase in ("a cap", "two red apples and a cat on the beach", "the robot with sunglasses"):
        assert known.said(phrase, np.ones(text.STATE_WIDTH, np.float32)) == phrase


def test_steps_are_short_near_the_noise_and_begin_where_they_are_told() -> None:
    times = sample.Sampling(steps=4, shift=3.0).times()
    assert times == pytest.approx([0, 0.1, 0.25, 0.5, 1])
    assert sample.Sampling(steps=4, shift=1.0).times(0.8) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert sample.Sampling(steps=2, shift=3.0).times(0.5) == pytest.approx([0.25, 0.5, 1])


def test_the_evaluation_measures_and_shows(root: Path, tmp_path: Path) -> None:
    line = ["--root", str(root), "--profile", "tiny", "--sheets", str(tmp_path), "--stage", "flow"]
    figures = evaluate.main([*line, "--only", "autoencoder", "upscaler", "labels", "colours", "editing"])
    assert {"psnr_128", "psnr_2x", "bicubic_4x", "label_top1", "label_top5", "colours_obeyed"} <= set(figures)
    assert {path.name for path in tmp_path.iterdir()} == {
        "figures.json",
        *(f"{name}.webp" for name in ("autoencoder", "upscaler", "labels", "colours", "editing")),
    }
    shown = json.loads((tmp_path / "figures.json").read_text())
    assert shown["stages"]["flow"]["last"]["step"] == 4 and shown["psnr_128"] == figures["psnr_128"]
    kept = json.loads((root / "evaluation.json").read_text())
    assert kept["network"] == "flow" and kept["label_top5"] == figures["label_top5"]


def test_a_stage_without_the_one_before_says_which(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train that stage first"):
        train_ae.load(tmp_path, TINY.autoencoder, CPU)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_training_is_taken_up_from_what_ships(lively: Path, root: Path, tmp_path: Path) -> None:
    export.export(lively, TINY, "flow", tmp_path / "onnx")
    record = {"steps": 9, "hours": 0.5}
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"stages": {"flow": record}}))
    denoiser, fresh = tmp_path / "onnx" / "denoiser.onnx", tmp_path / "fresh"
    take_up.take_up(fresh, TINY, beside=keep.keep(root).parent, denoiser=denoiser, figures=figures)
    for found, wanted in zip(averages(fresh, "flow") or [], averages(lively, "flow") or [], strict=True):
        assert (found - wanted).abs().max() <= 0.005 * wanted.abs().max()
    for found, wanted in zip(averages(fresh, "upscaler") or [], averages(root, "upscaler") or [], strict=True):
        assert torch.equal(found, wanted.half())
    assert Loop(fresh, "flow", TINY.flow.budget, {}).facts()["after"] == record
    with pytest.raises(ValueError, match="not a denoiser of the profile 'cpu'"):
        take_up.take_up(fresh, profiles.CPU, beside=root, denoiser=denoiser, figures=figures)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_the_image_model_ships_with_a_sheet_of_its_two_precisions(lively: Path, tmp_path: Path) -> None:
    export.export(lively, TINY, "flow", lively / "onnx")
    out, folder = tmp_path / "out", tmp_path / "docs"
    out.mkdir()
    facts = ship_mini.main(["--root", str(lively), "--profile", "tiny"], out=out, folder=folder)
    assert facts["psnr_8bit_least"] > 20
    assert {path.name: path.stat().st_size for path in out.iterdir()} == facts["bytes"]
    assert {path.name for path in folder.iterdir()} == {"dojo-mini-8bit.webp", "dojo-mini.json"}


def test_the_upscaler_ships_alone(root: Path, tmp_path: Path) -> None:
    figures = ship_upscaler.main(["--root", str(root), "--profile", "tiny"], out=tmp_path, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dojo-upscale.json", "dojo-upscale.png", "upscale2.onnx", "upscale4.onnx"
    ]  # fmt: skip
    assert set(figures) == {"psnr_2x", "bicubic_2x", "psnr_4x", "bicubic_4x"}
    facts = json.loads((tmp_path / "dojo-upscale.json").read_text())
    assert facts["psnr_2x"] == figures["psnr_2x"] and facts["training"]["steps"] == 3
