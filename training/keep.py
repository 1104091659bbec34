"""Command `python -m training.keep`: the averaged weights of all stages so far, in half precision, in one file.

Leaves `averages.pt`, a tenth of the checkpoints, with the stages' records. In an empty runs folder it is where each
stage begins, and all that evaluation and export need beside the data.
"""

from pathlib import Path
from typing import Any

from training import latents, runs
from training.loop import RECORDS, averages, carry

STAGES = ("autoencoder", "upscaler", "flow", "distil", "motion")


def keep(root: Path) -> Path:
    """Write the file; stages that have not run are left out."""
    found: dict[str, Any] = {stage: averages(root, stage) for stage in STAGES}
    kept: dict[str, Any] = {
        stage: [value.half() for value in values] for stage, values in found.items() if values is not None
    }
    if "flow" in kept:
        kept["standard"] = list(latents.standard(root))
    kept[RECORDS] = {stage: runs.summary(root, stage) for stage in kept if (root / f"{stage}.json").exists()}
    return carry(root, kept)


def main() -> None:
    path = keep(runs.root_of(runs.arguments(__doc__)))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
