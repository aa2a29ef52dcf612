"""Light that was not there when a picture was taken."""

import torch
from torch import Tensor

GAIN, TINT, OFFSET = 0.35, 0.12, 0.04  # relative, relative a channel, of the range
SHARE = 0.5  # of the pictures that are changed


def relight(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) in 0 .. 1 → the same with other brightness, tint and black level, each picture for itself."""
    shape = (len(pictures), 1, 1, 1)
    gain = (GAIN * (2 * torch.rand(shape) - 1) + TINT * (2 * torch.rand(len(pictures), 3, 1, 1) - 1)).exp()
    changed = pictures * gain + OFFSET * (2 * torch.rand(shape) - 1)
    return torch.where(torch.rand(shape) < SHARE, changed.clamp(0, 1), pictures)
