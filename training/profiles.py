"""The settings of every stage, in one place: `gpu` (one large card), `cpu` (two cores), `tiny` (tests).

A stage ends after `minutes` of training or `steps`, whichever comes first; its learning rate follows the share of
that budget that is spent, so the same schedule fits a slow machine and a quick one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

LATENT_STRIDE = 16  # pixels of the picture per cell of the latent, each way
# Latent cells, height and width. All hold about as many cells, so they all cost about the same to draw.
CANVASES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"1:1": (16, 16), "4:3": (14, 18), "3:4": (18, 14), "16:9": (12, 22), "9:16": (22, 12)}
)


@dataclass(frozen=True)
class Budget:
    """How long a stage trains, on how much at once, how fast."""

    minutes: float
    steps: int
    batch: int
    learning_rate: float
    report_every: int = 100  # steps between two lines of the log
    save_minutes: float = 3.0


@dataclass(frozen=True)
class Autoencoder:
    """RGBA picture to latent and back. Widths are channels at 1/16, 1/8, 1/4 and 1/2 of the picture's side."""

    budget: Budget
    channels: int = 32
    encoder: tuple[int, ...] = (192, 96, 48, 0)
    decoder: tuple[int, ...] = (208, 112, 64, 32)
    encoder_depth: int = 2
    decoder_depth: int = 3
    crop: int = 256  # pixels
    noise: float = 0.25  # most of it, in units of the latent's root mean square
    rendered: int = 8000  # composed pictures beside the plain ones
    adversarial: float = 0.0  # weight of the patch critic in the last part; the encoder is frozen there
    adversarial_from: float = 0.7  # share of the budget


@dataclass(frozen=True)
class Flow:
    """The transformer that turns noise into a latent."""

    budget: Budget
    width: int = 320
    depth: int = 9
    heads: int = 5
    patch: int = 1  # latent cells per token, each way
    text_tokens: int = 23  # with the one for no text, keys come to a multiple of eight
    no_text: float = 0.1  # share of samples without a caption, for guidance
    # Times are logit-normal. What a picture shows is decided close to the noise (the latents' main directions have a
    # hundred times the variance of a cell), so that is where most of them lie.
    time_mean: float = -1.0
    time_deviation: float = 1.2
    plain: float = 1.0  # in the first part the plain pictures weigh so many times as much: first words, then sentences
    plain_until: float = 0.7  # share of the budget
    inpaint: float = 0.15  # share of samples with part of the latent given
    ema: float = 0.999
    compiled: bool = True


@dataclass(frozen=True)
class Upscaler:
    """A small convolutional network with a 2x and a 4x head."""

    budget: Budget
    width: int = 40
    depth: int = 4  # residual blocks of two convolutions
    crop: int = 192  # pixels of the sharp picture
    rendered: int = 2000  # composed pictures beside the plain ones


@dataclass(frozen=True)
class Motion:
    """The network that says how a still picture moves; see `motion_net.py`."""

    budget: Budget
    width: int = 48
    depth: int = 2  # residual blocks at each size
    modes: int = 16  # motions offered for one picture
    waves: int = 4  # the fastest part of a motion repeats so often in a loop
    fit_steps: int = 60  # at each size, to find the motion of a clip


@dataclass(frozen=True)
class Profile:
    """Everything a machine of one kind needs to know."""

    name: str
    scenes: int
    composed: float  # weight of all composed scenes together, in units of the plain ones
    autoencoder: Autoencoder
    upscaler: Upscaler
    flow: Flow
    distil: Budget
    motion: Motion
    eval_prompts: int = 200


GPU = Profile(
    name="gpu",
    scenes=60_000,
    composed=1.6,
    autoencoder=Autoencoder(
        Budget(minutes=6.0, steps=60_000, batch=64, learning_rate=2e-3, report_every=250),
        adversarial=0.02,
        rendered=12_000,
    ),
    upscaler=Upscaler(Budget(minutes=2.5, steps=30_000, batch=64, learning_rate=1e-3, report_every=500)),
    flow=Flow(Budget(minutes=12.5, steps=60_000, batch=512, learning_rate=2e-3, report_every=200), ema=0.9985),
    distil=Budget(minutes=1.5, steps=4000, batch=256, learning_rate=3e-4),
    motion=Motion(
        Budget(minutes=6.0, steps=40_000, batch=256, learning_rate=2e-3), width=96, depth=3, modes=24, fit_steps=200
    ),
)
CPU = Profile(
    name="cpu",
    scenes=16_000,
    composed=1.0,
    autoencoder=Autoencoder(
        Budget(minutes=180, steps=200_000, batch=16, learning_rate=2e-3, report_every=500), crop=128, rendered=3000
    ),
    upscaler=Upscaler(Budget(minutes=30, steps=30_000, batch=8, learning_rate=1e-3), crop=96, rendered=400),
    flow=Flow(
        Budget(minutes=280, steps=200_000, batch=96, learning_rate=3e-3),
        width=320,
        depth=8,
        patch=2,
        plain=2.5,
        ema=0.998,
    ),
    distil=Budget(minutes=30, steps=10_000, batch=96, learning_rate=3e-4),
    motion=Motion(Budget(minutes=30, steps=20_000, batch=32, learning_rate=2e-3, report_every=200)),
)
TINY = Profile(
    name="tiny",
    scenes=60,
    composed=1.6,
    autoencoder=Autoencoder(
        Budget(minutes=5, steps=4, batch=2, learning_rate=1e-3, report_every=2),
        channels=8,
        encoder=(16, 16, 8, 0),
        decoder=(16, 16, 8, 8),
        encoder_depth=1,
        decoder_depth=1,
        crop=64,
        rendered=8,
        adversarial=0.02,
        adversarial_from=0.5,
    ),
    upscaler=Upscaler(
        Budget(minutes=5, steps=3, batch=2, learning_rate=1e-3, report_every=2), width=8, depth=1, crop=64, rendered=4
    ),
    flow=Flow(
        Budget(minutes=5, steps=4, batch=4, learning_rate=1e-3, report_every=2),
        width=32,
        depth=2,
        heads=2,
        patch=2,
        compiled=False,
    ),
    distil=Budget(minutes=5, steps=2, batch=2, learning_rate=1e-3, report_every=1),
    motion=Motion(
        Budget(minutes=5, steps=4, batch=4, learning_rate=1e-3, report_every=2),
        width=16,
        depth=1,
        modes=2,
        waves=2,
        fit_steps=4,
    ),
    eval_prompts=4,
)
PROFILES: Mapping[str, Profile] = MappingProxyType({p.name: p for p in (GPU, CPU, TINY)})


def with_minutes(budget: Budget, minutes: float | None) -> Budget:
    """The budget with another length, or as it is."""
    return budget if minutes is None else replace(budget, minutes=minutes)
