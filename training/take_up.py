"""Command `python -m training.take_up`: an empty runs folder goes on from what ships.

Leaves `averages.pt` there: what is kept beside this file, but the flow as the shipped denoiser holds it, which may have
been trained for longer since. That its weights went through 8 bits is soon forgotten.
"""

import json
from pathlib import Path

from training import runs
from training.evaluate import SHEETS
from training.export import stored
from training.flow_net import FlowNet
from training.loop import RECORDS, carried, carry
from training.profiles import Profile


def take_up(root: Path, profile: Profile, *, beside: Path, denoiser: Path, figures: Path) -> Path:
    """Write the file from the one in the folder `beside`; `ValueError` where the denoiser is of another profile."""
    found = carried(beside)
    weights = stored(denoiser)
    net = FlowNet(profile.flow, profile.autoencoder.channels)
    shapes = {f"net.{name}": one.shape for name, one in net.named_parameters()}
    if shapes != {name: weights[name].shape for name in shapes.keys() & weights.keys()}:
        raise ValueError(f"{denoiser}: not a denoiser of the profile {profile.name!r}")
    found["flow"] = [weights[name].half() for name in shapes]
    found[RECORDS]["flow"] = json.loads(figures.read_text(encoding="utf-8"))["stages"]["flow"]
    root.mkdir(parents=True, exist_ok=True)
    return carry(root, found)


def main() -> None:
    options = runs.arguments(__doc__)
    root, profile = runs.root_of(options), runs.profile_of(options)
    if (root / "flow.pt").exists():
        raise SystemExit(f"{root}: has a flow of its own, which goes on by itself; name an empty folder with --root")
    denoiser, figures = runs.EMBEDDED / "denoiser.onnx", SHEETS / "figures.json"
    path = take_up(root, profile, beside=Path(__file__).parent, denoiser=denoiser, figures=figures)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
