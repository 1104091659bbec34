"""Muon: momentum whose matrices are made near-orthogonal, for the weights of blocks.

A convolution's weights count as a matrix, one row an output channel. Weights of one shape are stepped
together. The update's size is matched to AdamW's, so both share a learning rate.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ROUNDS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
LIKE_ADAMW = 0.2


def orthogonal(x: Tensor) -> Tensor:
    """Matrices (M, rows, columns) with singular values brought near one, by Newton and Schulz's iteration."""
    a, b, c = COEFFICIENTS
    tall = x.shape[1] > x.shape[2]
    y = (x.mT if tall else x).bfloat16().contiguous()
    y = y / (y.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(ROUNDS):
        square = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(square, square, square, beta=b, alpha=c), y, beta=a)
    return (y.mT if tall else y).float()


class Muon:
    """Steps matrices in place. `state_dict` holds the momenta in the order of the shapes."""

    def __init__(self, matrices: Iterable[nn.Parameter], *, momentum: float = 0.95, decay: float = 0.01) -> None:
        self.momentum, self.decay = momentum, decay
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.momenta = [
            torch.zeros(len(some), *shape, device=some[0].device).flatten(2) for shape, some in self.groups.items()
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for (shape, matrices), momenta in zip(self.groups.items(), self.momenta, strict=True):
            gradients = torch.stack([matrix.grad for matrix in matrices]).flatten(2)
            momenta.lerp_(gradients, 1 - self.momentum)
            update = orthogonal(gradients.lerp_(momenta, self.momentum))
            size = rate * LIKE_ADAMW * max(update.shape[1:]) ** 0.5
            torch._foreach_mul_(matrices, 1 - rate * self.decay)
            torch._foreach_add_(matrices, list(update.unflatten(2, shape[1:]).unbind(0)), alpha=-size)

    def state_dict(self) -> dict[str, Any]:
        return {"momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch._foreach_copy_(self.momenta, list(state["momenta"]))


class Optimiser:
    """Muon for the weights inside a network's blocks, AdamW for the rest; one learning rate for both."""

    def __init__(self, blocks: Iterable[nn.Module], whole: nn.Module) -> None:
        matrices = [
            p for block in blocks for name, p in block.named_parameters() if p.ndim >= 2 and name.endswith("weight")
        ]
        chosen = {id(p) for p in matrices}
        self.all = list(whole.parameters())
        self.muon = Muon(matrices)
        rest = [p for p in self.all if id(p) not in chosen]
        self.rest = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(self, rate: float) -> None:
        """One step down the gradients, their norm clipped at one; they are gone afterwards."""
        torch.nn.utils.clip_grad_norm_(self.all, 1.0)
        for group in self.rest.param_groups:
            group["lr"] = rate
        self.muon.step(rate)
        self.rest.step()
        for parameter in self.all:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "rest": self.rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.rest.load_state_dict(state["rest"])
