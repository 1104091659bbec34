"""Stage `eval-models`: the figures and the contact sheets, on fixed seeds.

Enters: a run's checkpoints. Leaves: `evaluation.json` in the run's folder, and in the folder given by `--sheets`
the contact sheets. Retrieval asks whether the nearest of all emoji, by features no network had a part in, is the one
that was asked for; a paraphrase has several right answers. `--only autoencoder` and so on measure parts alone.
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from training import evaluate_motion, features, motion_fit, pictures, runs, train_ae, train_upscaler, wording
from training.data import read_index, read_prompts
from training.loop import autocast, averages, device
from training.profiles import CANVASES, Profile
from training.render import atlas
from training.sample import Given, Painter, Sampling
from training.sheets import on_board, on_colour, sheet

SHEETS = Path(__file__).parent.parent / "docs" / "models"
SEED = 3
SHOWN = 40


class Gallery:
    """All plain emoji and their mirror images, described, to look up what a picture shows."""

    def __init__(self, root: Path, where: torch.device) -> None:
        self.emoji = [one for one in read_index(root) if not one.tone]
        self.pictures = atlas(root, self.emoji)
        parts = [part.to(where).float() / 255 for part in self.pictures.split(64)]
        self.references = torch.cat([features.describe(x) for part in parts for x in (part, part.flip(-1))])
        self.labels: list[int] = []
        for part in self.pictures.split(64):
            start = len(self.labels) // 2
            self.labels += 2 * list(range(start, start + len(part)))

    def nearest(self, found: Tensor) -> list[list[int]]:
        """Of each picture the five most likely emoji."""
        rows = torch.cat([features.describe(part) for part in found.split(64)])
        return features.ranks(rows, self.references, self.labels)

    def known(self) -> evaluate_motion.Known:
        """The same for frames of clips."""
        labels, codes = zip(*((one.label, one.code) for one in self.emoji), strict=True)
        return evaluate_motion.Known(self.pictures, labels, codes, self.nearest)


def share(hits: Sequence[bool]) -> float:
    """Per cent, one decimal."""
    return round(100 * sum(hits) / max(1, len(hits)), 1)


class Evaluation:
    """What is measured with one run's networks."""

    def __init__(self, root: Path, profile: Profile, stage: str, own: argparse.Namespace, text: Path) -> None:
        self.root, self.profile, self.stage, self.text = root, profile, stage, text
        self.sheets, self.how = own.sheets, Sampling(own.steps, own.guidance, own.shift)
        self.where = device()
        self._painter: Painter | None = None
        self._gallery: Gallery | None = None

    @property
    def painter(self) -> Painter:
        if self._painter is None:
            self._painter = Painter(self.root, self.profile, self.text, stage=self.stage)
        return self._painter

    @property
    def gallery(self) -> Gallery:
        if self._gallery is None:
            self._gallery = Gallery(self.root, self.where)
        return self._gallery

    def paint(self, prompts: Sequence[str], *, canvas: str = "1:1", given: Given | None = None) -> Tensor:
        return self.painter.paint(prompts, canvas=canvas, how=self.how, seed=SEED, given=given)

    def show(self, name: str, shown: Sequence[Tensor], words: Sequence[str], *, columns: int = 8) -> None:
        sheet([one.float() for one in shown], words, self.sheets / f"{name}.webp", columns=columns)

    def autoencoder(self) -> Mapping[str, float]:
        """PSNR on held-out emoji; a sheet of originals beside what comes back."""
        model = train_ae.load(self.root, self.profile.autoencoder, self.where)
        rows = pictures.load(self.root, 0, self.where).held_out[: 64 if self.profile.name != "tiny" else 4]
        x = rows[:12].float() / 127.5 - 1
        with torch.no_grad(), autocast(self.where):
            y = model["decoder"](model["encoder"](x)).float().clamp(-1, 1)
        pairs = [on_colour((z[n] + 1) / 2) for n in range(len(x)) for z in (x, y)]
        self.show("autoencoder", pairs, ["original", "autoencoder"] * len(x))
        return train_ae.measure(model, rows)

    def upscaler(self) -> Mapping[str, float]:
        """PSNR against bicubic on held-out emoji; a sheet of both at four times the size."""
        net = train_upscaler.load(self.root, self.profile, self.where)
        rows = pictures.load(self.root, 0, self.where).held_out
        rows = rows if self.profile.name != "tiny" else rows[:4]
        shown, words = [], []
        for row in rows[:6]:
            x = row[None].float() / 127.5 - 1
            low = train_upscaler.smaller(x, 4, "bicubic")
            with torch.no_grad(), autocast(self.where):
                made = net(low, 4).float()
            plain = torch.nn.functional.interpolate(low, scale_factor=4.0, mode="bicubic")
            shown += [on_colour(((z[0] + 1) / 2).clamp(0, 1)) for z in (plain, made, x)]
            words += ["bicubic, 4x", "upscaler, 4x", "original"]
        self.show("upscaler", shown, words, columns=6)
        return train_upscaler.measure(net, rows)

    def labels(self) -> Mapping[str, float]:
        """The share of label prompts whose emoji is found again, first or among five."""
        chosen = random.Random(5).sample(range(len(self.gallery.emoji)), self.profile.eval_prompts)
        prompts = [wording.names(self.gallery.emoji[i].label)[0] for i in chosen]
        found = self.paint(prompts)
        nearest = self.gallery.nearest(found)
        self.show("labels", [on_colour(x) for x in found[:SHOWN]], prompts[:SHOWN])
        return {
            "label_top1": share([row[0] == i for row, i in zip(nearest, chosen, strict=True)]),
            "label_top5": share([i in row for row, i in zip(nearest, chosen, strict=True)]),
        }

    def paraphrases(self) -> Mapping[str, float]:
        """The same for ways to say it that no caption holds; any of the named emoji is right."""
        rows = read_prompts("paraphrases")[: self.profile.eval_prompts]
        found = self.paint([row["prompt"] for row in rows])
        names = [[self.gallery.emoji[i].label for i in five] for five in self.gallery.nearest(found)]
        self.show("paraphrases", [on_colour(x) for x in found[:SHOWN]], [row["prompt"] for row in rows][:SHOWN])
        return {
            "paraphrase_top1": share([five[0] in row["labels"] for five, row in zip(names, rows, strict=True)]),
            "paraphrase_top5": share(
                [bool(set(five) & set(row["labels"])) for five, row in zip(names, rows, strict=True)]
            ),
        }

    def colours(self) -> Mapping[str, float]:
        """The share of "a blue cat" whose main hue is the word's."""
        lists = read_prompts("sheets")
        pairs = [(c, o) for n, o in enumerate(lists["objects"]) for c in (lists["colours"] * 2)[n % 4 : n % 4 + 6]]
        pairs = pairs[: self.profile.eval_prompts]
        prompts = [wording.with_article(f"{colour} {thing}") for colour, thing in pairs]
        found = self.paint(prompts)
        obeyed = features.has_colour(found, [colour for colour, _ in pairs])
        self.show("colours", [on_colour(x) for x in found[:48]], prompts[:48])
        return {"colours_obeyed": share(obeyed)}

    def compositions(self) -> Mapping[str, float]:
        """A sheet to look at; nothing is counted."""
        prompts = read_prompts("sheets")["compositions"][: self.profile.eval_prompts]
        self.show("compositions", [on_colour(x) for x in self.paint(prompts)], prompts, columns=5)
        return {}

    def aspects(self) -> Mapping[str, float]:
        """Every canvas, to look at."""
        prompts, shown, words = read_prompts("sheets")["aspects"], [], []
        for prompt in prompts[: self.profile.eval_prompts]:
            for canvas in CANVASES:
                shown.append(on_colour(self.paint([prompt], canvas=canvas)[0], 0.9))
                words.append(f"{prompt}, {canvas}")
        self.show("aspects", shown, words, columns=len(CANVASES))
        return {}

    def transparency(self) -> Mapping[str, float]:
        """Alpha, over a checkerboard."""
        prompts = read_prompts("sheets")["transparent"][: self.profile.eval_prompts]
        self.show("transparency", [on_board(x) for x in self.paint(prompts)], prompts, columns=4)
        return {}

    def editing(self) -> Mapping[str, float]:
        """Image-to-image and inpainting from one picture each, to look at."""
        names = ("cat face", "house", "red apple", "robot")
        rows = [next(n for n, one in enumerate(self.gallery.emoji) if one.label == name) for name in names]
        x = self.gallery.pictures[rows].to(self.where).float() / 255
        z = self.painter.encode(x)
        nothing, lower = torch.zeros_like(z[:, :1]), torch.ones_like(z[:, :1])
        lower[:, :, z.shape[2] // 2 :] = 0
        wishes = ("a tiger face", "a castle", "a green apple", "an alien")
        turned = self.paint(wishes, given=Given(z, nothing, 0.7))
        filled = self.paint(wishes, given=Given(z, lower))
        shown = [on_colour(part[n]) for n in range(len(x)) for part in (x, turned, filled)]
        words = [text for wish in wishes for text in ("given", f"{wish}, strength 0.7", f"{wish}, lower half")]
        self.show("editing", shown, words, columns=6)
        return {}

    def motion(self) -> Mapping[str, float]:
        """Clips made by the graphs that ship; a sheet of strips. Needs the data and the fits of `train-motion`."""
        if not (self.root / motion_fit.FILE).exists():
            print(f"motion: no {motion_fit.FILE}; run train-motion-data and train-motion for these figures")
            return {}
        path = self.sheets / "motion.webp"
        return evaluate_motion.measure(self.root, self.gallery.known(), runs.EMBEDDED, self.text, path)

    PARTS = (
        "autoencoder",
        "upscaler",
        "labels",
        "paraphrases",
        "colours",
        "compositions",
        "aspects",
        "transparency",
        "editing",
        "motion",
    )


def main(line: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", nargs="*", choices=Evaluation.PARTS, default=list(Evaluation.PARTS))
    parser.add_argument("--stage", choices=("flow", "distil"), default=None, help="default: distil where there is one")
    parser.add_argument("--sheets", type=Path, default=SHEETS)
    parser.add_argument("--steps", type=int, default=Sampling.steps)
    parser.add_argument("--guidance", type=float, default=Sampling.guidance)
    parser.add_argument("--shift", type=float, default=Sampling.shift)
    own, rest = parser.parse_known_args(line)
    options = runs.arguments(__doc__, rest)
    root = runs.root_of(options)
    stage = own.stage or ("distil" if averages(root, "distil") is not None else "flow")
    evaluation = Evaluation(root, runs.profile_of(options), stage, own, options.text)
    figures: dict[str, float] = {}
    for name in own.only:
        measure: Callable[[], Mapping[str, float]] = getattr(evaluation, name)
        found = {key: round(value, 2) for key, value in measure().items()}
        figures.update(found)
        print(name, json.dumps(found), flush=True)
    stages = {name: runs.summary(root, name) for name in runs.STAGES if (root / f"{name}.json").exists()}
    own.sheets.mkdir(parents=True, exist_ok=True)
    (own.sheets / "figures.json").write_text(
        json.dumps({**figures, "stages": stages}, indent=1) + "\n", encoding="utf-8"
    )
    runs.record(
        root,
        "evaluation",
        {"network": stage, **asdict(evaluation.how), "seed": SEED, **figures},
    )
    return figures


if __name__ == "__main__":
    main()
