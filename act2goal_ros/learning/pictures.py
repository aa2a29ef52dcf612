"""What people are shown of a training."""

import numpy as np
import torch
from torch import Tensor

from act2goal_ros.learning.batches import Batch
from act2goal_ros.learning.system import System

ENLARGED = 2


@torch.no_grad()
def imagined_over_true(system: System, batch: Batch) -> np.ndarray:
    """(H, W, 3) uint8; for each plan of the batch two rows: current frame, imagined ones (one pass) or the true ones, goal."""
    batch = system.encoded(batch)
    noise = torch.randn_like(batch.future)
    velocity, _ = system.world(noise, batch.current, batch.goal, batch.offsets, torch.ones(len(noise), device=noise.device))
    imagined, rows = noise + velocity, []
    for plan in range(len(noise)):
        first, last = system.autoencoder.decode(torch.stack([batch.current[plan], batch.goal[plan]])).split(1)
        for frames in (imagined[plan], batch.future[plan]):
            rows.append(in_a_row(torch.cat([first, system.decoded(frames), last])))
    return np.vstack(rows)


def in_a_row(pictures: Tensor) -> np.ndarray:
    """(N, 3, H, W) in about 0 .. 1 → one picture of all, side by side and enlarged, uint8."""
    arrays = (pictures.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy() * 255).astype(np.uint8)
    return np.hstack([*arrays]).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
