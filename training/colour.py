"""Recolouring in OKLab: "a blue cat" without neon, its eyes and its shading kept.

Pictures are (B, 4, H, W), colour multiplied by alpha, values 0 to 1.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

# What a colour word means for an object: lightness, most chroma, hue in degrees, all in OKLCh.
OBJECT_COLOURS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (0.60, 0.20, 25.0),
        "orange": (0.73, 0.16, 58.0),
        "yellow": (0.87, 0.16, 95.0),
        "green": (0.68, 0.17, 145.0),
        "teal": (0.70, 0.10, 190.0),
        "blue": (0.58, 0.17, 258.0),
        "purple": (0.56, 0.18, 305.0),
        "pink": (0.75, 0.14, 355.0),
        "brown": (0.48, 0.08, 55.0),
        "black": (0.28, 0.01, 270.0),
        "white": (0.93, 0.01, 90.0),
        "gray": (0.65, 0.01, 270.0),
    }
)
# Backgrounds, as 8-bit sRGB.
GROUNDS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "white": (255, 255, 255),
        "blue": (170, 206, 245),
        "pink": (252, 205, 222),
        "green": (188, 230, 195),
        "yellow": (253, 236, 165),
        "purple": (214, 198, 245),
        "orange": (255, 212, 165),
        "gray": (205, 208, 213),
        "black": (34, 34, 40),
        "red": (238, 145, 145),
        "teal": (158, 221, 219),
        "brown": (196, 164, 132),
        "light blue": (205, 230, 250),
        "dark blue": (40, 62, 120),
        "dark green": (36, 92, 66),
        "beige": (243, 232, 210),
    }
)
_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
NEAR_DEG, FAR_DEG = 55.0, 95.0  # hues nearer than this to the main one turn with it; farther ones stay
GREY_CHROMA = 0.035


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix, x)


def to_oklab(rgb: Tensor) -> Tensor:
    """sRGB (B, 3, H, W), 0 to 1, to lightness, a, b."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    lms = _mix(torch.tensor(_TO_LMS, device=rgb.device), linear)
    return _mix(torch.tensor(_TO_LAB, device=rgb.device), lms.clamp(min=0) ** (1 / 3))


def from_oklab(lab: Tensor) -> Tensor:
    """The way back. Values may leave 0 to 1 where the colour is outside sRGB."""
    lms = _mix(torch.linalg.inv(torch.tensor(_TO_LAB)).to(lab.device), lab) ** 3
    linear = _mix(torch.linalg.inv(torch.tensor(_TO_LMS)).to(lab.device), lms)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def main_hue(lab: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The most common hue in radians (B,), and the share of the object that has any (B,)."""
    chroma = lab[:, 1:].norm(dim=1)
    hue = torch.atan2(lab[:, 2], lab[:, 1])
    bins = ((hue / (2 * math.pi) % 1) * 36).long().clamp(0, 35).flatten(1)
    coloured = weight * (chroma > GREY_CHROMA)
    counts = torch.zeros(len(lab), 36, device=lab.device).scatter_add_(1, bins, (coloured * chroma).flatten(1))
    counts = counts + counts.roll(1, 1) + counts.roll(-1, 1)
    share = coloured.flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)
    return (counts.argmax(1).float() + 0.5) / 36 * 2 * math.pi, share


def recolour(picture: Tensor, targets: Tensor) -> Tensor:
    """Each picture in the colour of its row of `targets` (B, 3): lightness, most chroma, hue in degrees.

    The main hue turns to the wanted one and takes neighbouring hues with it, squeezed; hues far from it stay, so
    a red apple's leaf stays green. Grey objects are tinted. Lightness moves half the way, shading kept; black and
    white keep only shading. Chroma ends where sRGB ends.
    """
    alpha = picture[:, 3:]
    lab = to_oklab((picture[:, :3] / alpha.clamp(min=1e-3)).clamp(0, 1))
    weight = alpha[:, 0]
    light, chroma = lab[:, 0], lab[:, 1:].norm(dim=1)
    hue = torch.atan2(lab[:, 2], lab[:, 1])
    centre, share = main_hue(lab, weight)
    want_l, want_c, want_h = (targets[:, i, None, None] for i in range(3))
    away = torch.remainder(hue - centre[:, None, None] + math.pi, 2 * math.pi) - math.pi
    nearness = ((FAR_DEG - away.abs().rad2deg()) / (FAR_DEG - NEAR_DEG)).clamp(0, 1)
    grey_object = (share < 0.25).float()[:, None, None]
    middle = (1 - (2 * light - 1.1).abs()).clamp(0, 1) ** 0.5  # glints and pupils stay as they are
    part = torch.maximum(nearness * (chroma / GREY_CHROMA).clamp(0, 1), grey_object * middle)
    mean_l = (light * part * weight).flatten(1).sum(1) / (part * weight).flatten(1).sum(1).clamp(min=1e-3)
    toned = (want_c < 0.03).float()  # black, white and grey move all of the way
    new_l = (light + (want_l - mean_l[:, None, None]) * (0.55 + 0.35 * toned)).clamp(0.08, 0.985)
    mean_c = (chroma * part * weight).flatten(1).sum(1) / (part * weight).flatten(1).sum(1).clamp(min=1e-3)
    scale = want_c / torch.maximum(mean_c[:, None, None], torch.full_like(want_c, 0.05))
    new_c = torch.minimum(chroma * scale.clamp(max=2.0), want_c * 1.15)
    new_c = torch.maximum(new_c, grey_object * want_c * 0.75)
    new_h = want_h.deg2rad() + 0.3 * away * (1 - grey_object)
    turned = torch.stack([new_l, new_c * new_h.cos(), new_c * new_h.sin()], 1)
    lab = lab + (turned - lab) * part[:, None]
    return torch.cat([_inside(lab) * alpha, alpha], 1)


def _inside(lab: Tensor) -> Tensor:
    """sRGB of the nearest colour of the same lightness and hue that a screen can show."""
    low, high = torch.zeros_like(lab[:, :1]), torch.ones_like(lab[:, :1])
    for _ in range(5):
        middle = (low + high) / 2
        rgb = from_oklab(torch.cat([lab[:, :1], lab[:, 1:] * middle], 1))
        fits = ((rgb > -0.002) & (rgb < 1.002)).all(1, keepdim=True)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    whole = from_oklab(lab)
    fits = ((whole > -0.002) & (whole < 1.002)).all(1, keepdim=True)
    return torch.where(fits, whole, from_oklab(torch.cat([lab[:, :1], lab[:, 1:] * low], 1))).clamp(0, 1)
