"""The training loop all stages share: budget, schedule, running average, checkpoints, log.

A stage says what one step is; the loop says when to stop, how fast to learn, when to write and what was seen.
Checkpoints hold everything, random states too, so a stage that was killed goes on where it stood.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.profiles import Budget
from training.runs import record

PAUSED = 75  # exit status of a stage that was told to stop before its budget was spent
KEPT = "averages.pt"  # averaged weights of all stages in half precision: what one carries from machine to machine
RECORDS = "records"  # in it: the stages' records there
PAUSE_S = 30.0  # a longer gap between two steps is a suspended machine, not work
SETTLED_STEPS = 50  # before this many, long steps are compilation


def device() -> torch.device:
    """The graphics card where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> Any:
    """Matrix products in bfloat16, on either kind of machine."""
    return torch.autocast(where.type, torch.bfloat16)


def compiled(module: nn.Module, where: torch.device) -> Any:
    """The module compiled on a card; as it is on a CPU, where compiling costs more than it saves in short runs."""
    return torch.compile(module) if where.type == "cuda" else module


class Average:
    """An exponentially weighted average of a module's parameters, warmed up over the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.live = [p for p in module.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self.live]
        self.decay, self.seen = decay, 0

    @torch.no_grad()
    def follow(self) -> None:
        self.seen += 1
        decay = min(self.decay, self.seen / (self.seen + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The module holds the average inside the `with` block."""
        kept = [p.detach().clone() for p in self.live]
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.live, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        torch._foreach_copy_(self.mean, list(state["mean"]))
        self.seen = state["seen"]


class Loop:
    """Iterate over `steps()`; call `tell` with each step's losses. `parts` are what a checkpoint holds."""

    def __init__(self, root: Path, stage: str, budget: Budget, parts: Mapping[str, Any], *, seed: int = 1) -> None:
        self.root, self.stage, self.budget, self.parts = root, stage, budget, dict(parts)
        self.path = root / f"{stage}.pt"
        self.where = device()
        self.step, self.spent_s = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.told = 0
        self.after = carried(root).get(RECORDS, {}).get(stage)  # the record of what this stage began from
        torch.manual_seed(seed)
        if self.path.exists():
            self._restore()

    @property
    def share(self) -> float:
        """How much of the budget is spent, 0 to 1."""
        return min(1.0, max(self.step / self.budget.steps, self.spent_s / (60 * self.budget.minutes)))

    def rate(self, *, warm_steps: int = 100, flat: float = 0.0) -> float:
        """The learning rate now: a short rise, then level for `flat` of the budget, then a cosine to 2 %."""
        falling = max(0.0, (self.share - flat) / (1 - flat))
        shape = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling))
        return self.budget.learning_rate * shape * min(1.0, (self.step + 1) / warm_steps)

    def steps(self, measure: Callable[[], Mapping[str, float]] | None = None) -> Iterator[float]:
        """Yields the share of the budget spent, until all is. `measure` is called at every line of the log.

        On SIGTERM, which `timeout` sends, it saves and leaves the program; the next run goes on.
        """
        started = saved = time.perf_counter()
        told_to_stop: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: told_to_stop.append(number))
        while self.share < 1:
            yield self.share
            now = time.perf_counter()
            paused = now - started > PAUSE_S and self.told > SETTLED_STEPS
            self.spent_s += 0.0 if paused else now - started
            started = now
            self.step += 1
            if self.step % self.budget.report_every == 0 or self.share >= 1:
                self._report(measure)
            if now - saved > 60 * self.budget.save_minutes:
                self.save()
                saved = now
            if told_to_stop and self.share < 1:
                self.save()
                print(f"{self.stage}: told to stop at step {self.step}; run again to go on", flush=True)
                raise SystemExit(PAUSED)
        signal.signal(signal.SIGTERM, before)
        self.save()

    def tell(self, **values: Tensor) -> None:
        """Add one step's numbers to the line to come, without waiting for the card."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + torch.stack([value.detach().float(), torch.ones_like(value)])
        self.told += 1

    def _report(self, measure: Callable[[], Mapping[str, float]] | None) -> None:
        means = {name: float(both[0] / both[1]) for name, both in self.sums.items()}
        self.sums = {}
        line: dict[str, float] = {
            "step": self.step,
            "minutes": self.spent_s / 60,
            "samples": self.step * self.budget.batch,
            **means,
        }
        if measure is not None:
            with torch.random.fork_rng(devices=[0] if self.where.type == "cuda" else []):
                line.update(measure())
        self.history.append(line)
        print(self.stage, " ".join(f"{name}={value:.6g}" for name, value in line.items()), flush=True)

    def save(self) -> None:
        """Write the checkpoint so that a kill in the middle leaves the one before."""
        state = {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "step": self.step,
            "spent_s": self.spent_s,
            "history": self.history,
            "after": self.after,
            "random": torch.get_rng_state(),
            "random_card": torch.cuda.get_rng_state() if self.where.type == "cuda" else None,
        }
        new = self.path.with_suffix(".new")
        torch.save(state, new)
        new.replace(self.path)
        record(self.root, self.stage, {**self.facts(), "history": self.history})

    def facts(self) -> dict[str, Any]:
        """What ran where, for the record."""
        name = torch.cuda.get_device_name() if self.where.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        return {
            "device": name,
            "torch": torch.__version__,
            "budget": asdict(self.budget),
            "steps": self.step,
            "hours": round(self.spent_s / 3600, 4),
            **({} if self.after is None else {"after": self.after}),
        }

    def _restore(self) -> None:
        state = torch.load(self.path, map_location=self.where, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.step, self.spent_s, self.history = state["step"], state["spent_s"], state["history"]
        self.after = state.get("after")
        torch.set_rng_state(state["random"].cpu())
        if state["random_card"] is not None and self.where.type == "cuda":
            torch.cuda.set_rng_state(state["random_card"].cpu())
        print(f"{self.stage}: goes on at step {self.step}", flush=True)


def averages(root: Path, stage: str) -> list[Tensor] | None:
    """A stage's averaged weights, from its checkpoint or from what was kept of another machine's."""
    own = root / f"{stage}.pt"
    found: list[Tensor] | None
    if own.exists():
        found = torch.load(own, map_location="cpu", weights_only=True)["parts"]["average"]["mean"]
    else:
        found = carried(root).get(stage)
    return found


def carried(root: Path) -> dict[str, Any]:
    """What was kept of another machine's stages; empty where nothing was."""
    path = root / KEPT
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}
    return found


def carry(root: Path, kept: Mapping[str, Any]) -> Path:
    """Write what another machine is to go on from; whole or not at all."""
    path = root / KEPT
    torch.save(dict(kept), path.with_suffix(".new"))
    return path.with_suffix(".new").replace(path)


def fill(module: nn.Module, root: Path, stage: str) -> bool:
    """Put a stage's averaged weights into a fresh module; False where there are none."""
    values = averages(root, stage)
    if values is None:
        return False
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
    return True


def frozen(module: nn.Module, root: Path, stage: str, where: torch.device) -> None:
    """Make a fresh module the trained one, for use. `FileNotFoundError` where the stage has not run."""
    if not fill(module, root, stage):
        raise FileNotFoundError(f"{root / stage}.pt: train that stage first")
    module.to(where).eval().requires_grad_(False)
