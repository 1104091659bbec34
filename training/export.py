"""Stage `export-models`: from checkpoints to the ONNX graphs the service runs, and a card with what they are.

Leaves, in the folder given by `--out`: `denoiser.onnx`, `decoder.onnx`, `encoder.onnx`, `upscale2.onnx`,
`upscale4.onnx` and `model.json`. Weights are stored in 8 bits, one scale an output, and computed in floats: products in
8 bits would take half as long, but of one picture in eighteen they make another one, not the same on every processor.
"""

import argparse
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from training import latents, runs, train_ae, train_flow, train_upscaler
from training.flow_net import FlowNet
from training.keep import keep
from training.loop import averages
from training.nets import Upscaler, unit
from training.profiles import CANVASES, LATENT_STRIDE, Profile
from training.sample import Sampling
from training.text import STATE_WIDTH

OPSET = 20
LEAST_STORED = 512  # smaller weights stay floats
BYTES, SCALES = "_bytes", "_scales"  # what a weight's name ends in, where it is stored in 8 bits
CPU = torch.device("cpu")


class Denoiser(nn.Module):
    """The guided direction for latents (B, C, H, W); one graph whether the guidance was distilled or not."""

    def __init__(self, net: FlowNet, *, distilled: bool) -> None:
        super().__init__()
        self.net, self.distilled = net, distilled

    def forward(
        self,
        x: Tensor,
        given: Tensor,
        mask: Tensor,
        positions: Tensor,
        time: Tensor,
        states: Tensor,
        pooled: Tensor,
        lengths: Tensor,
        guidance: Tensor,
    ) -> Tensor:
        tokens = self.net.patches(torch.cat([x, given * mask, mask], 1))
        if self.distilled:
            found = self.net(tokens, positions, time, states, pooled, lengths, guidance)
        else:
            both = (torch.cat([part, part]) for part in (time, states, pooled))
            lengths, off = torch.cat([lengths, lengths * 0]), torch.cat([guidance, guidance]) * 0
            time, states, pooled = both
            found = self.net(torch.cat([tokens, tokens]), positions, time, states, pooled, lengths, off)
            with_text, without = found.chunk(2)
            found = without + guidance[:, None, None] * (with_text - without)
        return self.net.cells(found, x.shape[2])


class FromLatent(nn.Module):
    """Standard latents (B, C, H, W) to pictures (B, 4, 16H, 16W), 0 to 1, colour multiplied by alpha."""

    def __init__(self, decoder: nn.Module, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("deviation", deviation[:, None, None])

    def forward(self, z: Tensor) -> Tensor:
        y = ((self.decoder(unit(z * self.deviation + self.mean)) + 1) / 2).clamp(0, 1)
        return torch.cat([torch.minimum(y[:, :3], y[:, 3:]), y[:, 3:]], 1)


class ToLatent(nn.Module):
    """The way back: pictures to standard latents."""

    def __init__(self, encoder: nn.Module, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("deviation", deviation[:, None, None])

    def forward(self, picture: Tensor) -> Tensor:
        return (self.encoder(picture * 2 - 1) - self.mean) / self.deviation


class Larger(nn.Module):
    """Pictures (B, 4, H, W), 0 to 1, colour multiplied by alpha, twice or four times as large."""

    def __init__(self, net: Upscaler, scale: int) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, picture: Tensor) -> Tensor:
        y = ((self.net(picture * 2 - 1, self.scale) + 1) / 2).clamp(0, 1)
        return torch.cat([torch.minimum(y[:, :3], y[:, 3:]), y[:, 3:]], 1)


def write(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str,
    dynamic: dict[str, dict[int, str]],
    path: Path,
    *,
    fold: bool = True,
) -> None:
    """One graph, its weights in bytes. Where constants are not folded, matrices keep their names and shapes."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer remarks on every shape it reads
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={**dynamic, output: {0: "batch", 2: "rows", 3: "columns"}},
            opset_version=OPSET,
            do_constant_folding=fold,
            dynamo=False,
        )
    store_in_bytes(path)


def store_in_bytes(path: Path) -> None:
    """Weights as 8-bit integers with one scale an output; the session unfolds them to floats at load."""
    model = onnx.load(path)
    graph, nodes, kept = model.graph, [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if not tensor.name.endswith(".weight") or values.ndim < 2 or values.size < LEAST_STORED:
            kept.append(tensor)
            continue
        whole, scales, floats = (tensor.name + kind for kind in (BYTES, SCALES, "_floats"))
        each = np.abs(values).max(tuple(range(1, values.ndim)), keepdims=True)
        each = np.maximum(each, 1e-8).astype(np.float32) / 127
        kept.append(numpy_helper.from_array(np.rint(values / each).astype(np.int8), whole))
        kept.append(numpy_helper.from_array(each, scales))
        nodes.append(helper.make_node("Cast", [whole], [floats], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [floats, scales], [tensor.name]))
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.save(model, path)


def stored(path: Path) -> dict[str, Tensor]:
    """The weights of a graph in floats, by their names in the module it was written from."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    for name in [name for name in found if name.endswith(BYTES)]:
        whole = name.removesuffix(BYTES)
        found[whole] = found.pop(name) * found.pop(whole + SCALES)
    return {name: torch.tensor(values) for name, values in found.items()}


def examples(profile: Profile, canvas: tuple[int, int] = CANVASES["1:1"], *, batch: int = 2) -> dict[str, Tensor]:
    """Inputs of the denoiser with the right shapes."""
    net = FlowNet(profile.flow, profile.autoencoder.channels)
    channels, tokens = profile.autoencoder.channels, profile.flow.text_tokens
    return {
        "x": torch.randn(batch, channels, *canvas),
        "given": torch.zeros(batch, channels, *canvas),
        "mask": torch.zeros(batch, 1, *canvas),
        "positions": net.positions(*canvas),
        "time": torch.rand(batch),
        "states": torch.randn(batch, tokens, STATE_WIDTH),
        "pooled": torch.randn(batch, STATE_WIDTH),
        "lengths": torch.full((batch,), 5),
        "guidance": torch.full((batch,), 3.0),
    }


def modules(root: Path, profile: Profile, stage: str) -> dict[str, nn.Module]:
    """Every graph's module, by the name of its file."""
    autoencoder = train_ae.load(root, profile.autoencoder, CPU)
    mean, deviation = latents.standard(root)
    upscaler = train_upscaler.load(root, profile, CPU)
    return {
        "denoiser": Denoiser(train_flow.load(root, profile, CPU, stage=stage), distilled=stage == "distil"),
        "decoder": FromLatent(autoencoder["decoder"], mean, deviation),
        "encoder": ToLatent(autoencoder["encoder"], mean, deviation),
        "upscale2": Larger(upscaler, 2),
        "upscale4": Larger(upscaler, 4),
    }


def export(root: Path, profile: Profile, stage: str, out: Path) -> dict[str, Any]:
    """Write all graphs and the card; the card."""
    out.mkdir(parents=True, exist_ok=True)
    square, inputs = {0: "batch", 2: "height", 3: "width"}, examples(profile)
    dynamic = {
        "x": square,
        "given": square,
        "mask": square,
        "positions": {0: "tokens"},
        "time": {0: "batch"},
        "states": {0: "batch"},
        "pooled": {0: "batch"},
        "lengths": {0: "batch"},
        "guidance": {0: "batch"},
    }
    picture = torch.rand(1, 4, 64, 64)
    for name, module in modules(root, profile, stage).items():
        path = out / f"{name}.onnx"
        if name == "denoiser":
            write(module, inputs, "direction", dynamic, path, fold=False)
        else:
            source = ("z", inputs["x"]) if name == "decoder" else ("picture", picture)
            result = "z" if name == "encoder" else "picture" if name == "decoder" else "larger"
            write(module, dict([source]), result, {source[0]: square}, path)
    keep(root)
    card = describe(root, profile, stage, sorted(out.glob("*.onnx")))
    (out / "model.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def describe(root: Path, profile: Profile, stage: str, files: Sequence[Path]) -> dict[str, Any]:
    """What the service must know to draw, and what a reader wants to know."""
    records = {
        name: json.loads((root / f"{name}.json").read_text())
        for name in ("autoencoder", "upscaler", "flow", "evaluation")
        if (root / f"{name}.json").exists()
    }
    return {
        "latent_channels": profile.autoencoder.channels,
        "latent_stride": LATENT_STRIDE,
        "patch": profile.flow.patch,
        "text_tokens": profile.flow.text_tokens,
        "canvases": {name: list(size) for name, size in CANVASES.items()},
        **asdict(Sampling()),
        "distilled": stage == "distil",
        "hours": {name: hours(record) for name, record in records.items() if "hours" in record},
        "evaluation": {k: v for k, v in records.get("evaluation", {}).items() if isinstance(v, float)},
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in files
        },
    }


def hours(record: Mapping[str, Any]) -> float:
    """How long a stage trained, on the machines before this one too."""
    found: float = record["hours"] + (hours(record["after"]) if "after" in record else 0.0)
    return round(found, 4)


def main(line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--out", type=Path, default=None, help="default: onnx in the run's folder")
    parser.add_argument("--stage", choices=("flow", "distil"), default=None, help="default: distil where there is one")
    own, rest = parser.parse_known_args(line)
    options = runs.arguments(__doc__, rest)
    root = runs.root_of(options)
    stage = own.stage or ("distil" if averages(root, "distil") is not None else "flow")
    card = export(root, runs.profile_of(options), stage, own.out or root / "onnx")
    for name, facts in card["files"].items():
        print(f"{name}: {facts['bytes'] / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
