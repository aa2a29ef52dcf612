"""What people are shown of a training."""

import cv2
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


def chunks(predicted: np.ndarray, true: np.ndarray, size: int = 160) -> np.ndarray:
    """Chunks (N, P, A), normalised, as curves over time, predicted over true in grey: (size, N · size, 3) uint8, a colour a joint."""
    count, steps, joints = predicted.shape
    canvas = np.full((size, count * size, 3), 255, np.uint8)
    hues = np.linspace(0, 180, joints, endpoint=False).astype(np.uint8)
    colours = cv2.cvtColor(np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 200)], -1)[None], cv2.COLOR_HSV2RGB)[0].tolist()
    for number in range(count):
        x = number * size + np.linspace(4, size - 5, steps)
        for values, own in ((true[number], None), (predicted[number], colours)):
            for joint in range(joints):
                y = size / 2 - (size / 2 - 4) * np.tanh(values[:, joint] / 2)
                line = np.stack([x, y], -1).round().astype(np.int32)
                cv2.polylines(canvas, [line], False, own[joint] if own else (170, 170, 170), 1 if own else 3, cv2.LINE_AA)
    return canvas


def marked(pictures: Tensor, places: Tensor, seen: Tensor) -> np.ndarray:
    """(N, 3, H, W) with a ring around each of `places` (N, K, 2), in pixels, that `seen` (N, K) has; another colour for each kind."""
    rows = in_a_row(pictures)
    hues = np.linspace(0, 180, places.shape[1], endpoint=False).astype(np.uint8)
    colours = cv2.cvtColor(np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], -1)[None], cv2.COLOR_HSV2RGB)[0].tolist()
    for number, (points, there) in enumerate(zip(places.tolist(), seen.tolist(), strict=True)):
        for (u, v), colour, is_there in zip(points, colours, there, strict=True):
            if is_there:
                centre = round(ENLARGED * (u + number * pictures.shape[-1])), round(ENLARGED * v)
                cv2.circle(rows, centre, 3 * ENLARGED, colour, 1, cv2.LINE_AA)
    return rows
