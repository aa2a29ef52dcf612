"""Where things are in a picture: labels that a simulator gives, and networks that must find them. For training only.

Key points (…, K, 3): u and v from the upper left corner as shares of width and height, and 1 where the thing is in the picture;
NaN where nothing is known, which then has no weight.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.live import LiveTokens
from act2goal_ros.model.reader import PlanReader

SPREAD = 0.6  # standard deviation of a label, in places
HANDLED, APART = 0.25, 0.06  # of the picture's half width: how near to the object its key point is, and how much nearer than others
NEAR = 0.2  # of a label's peak, from where on a place knows how far the thing is


class KeypointReaders(nn.Module):
    """Linear maps that read key points from a plan's features, of a middle block and, the expert's own, of the last: so they must be
    in there."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.block = max(config.blocks // 2 - 1, 0)
        self.middle = nn.Linear(config.world_width, 3 * config.keypoints)

    def loss(self, features: Tensor, last: PlanReader, known: Tensor, keypoints: Tensor, rows: int) -> Tensor:
        """Of features (B, L, F, T, W), T = rows · columns, the last block's reader, what it knows of both pictures (B, 2, 3 K), and the
        frames' key points (B, F, K, 3)."""
        found = (self.middle(features[:, self.block]), last.map(features[:, -1])[..., : 3 * last.kinds])
        maps = torch.stack([_reading_loss(part, keypoints, rows) for part in found]).mean()
        kinds, (columns, live_rows) = keypoints.shape[2], last.live_size
        points = last(features[:, -1], known)[..., : 2 * kinds].unflatten(-1, (2, kinds)).transpose(-1, -2)
        _, seen = known_and_seen(keypoints)
        off = (points - places_of(keypoints, int(live_rows), int(columns))).abs().sum(-1)
        return maps + 2 * (seen * off).sum() / seen.sum().clamp(min=1.0)


def _reading_loss(found: Tensor, keypoints: Tensor, rows: int) -> Tensor:
    """found (B, F, T, 3 K): for each kind a logit of being here, and how far it is, in places."""
    away = _away(keypoints, rows, found.shape[2] // rows)  # (B, F, T, K, 2)
    known, seen = known_and_seen(keypoints)
    label = _label(away) * seen.unsqueeze(2)
    logits, far = found.split([label.shape[-1], 2 * label.shape[-1]], -1)
    least = torch.special.entr(label) + torch.special.entr(1 - label)  # what a soft label costs even who knows it
    presence = (functional.binary_cross_entropy_with_logits(logits, label, reduction="none") - least) * known.unsqueeze(2)
    weight = label * (label > NEAR)
    distance = (far.unflatten(-1, (2, -1)).transpose(-1, -2) - away).abs().sum(-1)
    return presence.sum((2, 3)).mean() / 10 + (weight * distance).sum() / weight.sum().clamp(min=1.0)


def live_loss(live: LiveTokens, keypoints: Tensor, grid: Tensor, rows: int) -> Tensor:
    """Of the live encoder's key points against (B, K, 3), where the thing is in the picture, and of knowing where it is not; grid: the
    encoder's places (P, 2)."""
    columns = len(grid) // rows
    known, seen = known_and_seen(keypoints)
    label = _label(_away(keypoints, rows, columns)).clamp(min=1e-6).transpose(-1, -2)  # (B, K, P)
    label = seen.unsqueeze(-1) * label / label.sum(-1, keepdim=True)
    label = torch.cat([label, 1.0 - seen.unsqueeze(-1)], -1)
    divergence = known * (torch.xlogy(label, label) - label * live.maps.log_softmax(-1)).sum(-1)
    places = places_of(keypoints, rows, columns)
    distance = (live.taught - places.clamp(-1, 1)).abs().sum(-1)
    return (divergence + 4 * distance * seen).sum() / seen.sum().clamp(min=1.0)


def which_is_handled(handled: Tensor, tool: Tensor, keypoints: Tensor, rows: int, columns: int) -> Tensor:
    """(B, K): 1 for the thing whose key point (B, K, 3) is where the handled object is seen; all 0 where two are about as near, or none is.

    handled and tool (B, 2) are where the training's camera would show them, among the live encoder's rows · columns places; by how much
    another camera differs the label of the gripper, the last, tells.
    """
    _, seen = known_and_seen(keypoints)
    places = places_of(keypoints, rows, columns)
    shift = (places[:, -1] - tool) * seen[:, -1:]
    away = (places[:, :-1] - (handled + shift).unsqueeze(1)).norm(dim=-1) + 9.0 * (1.0 - seen[:, :-1])
    nearest = away.topk(2, largest=False)
    sure = (nearest.values[:, :1] < HANDLED) & (nearest.values[:, 1:] > nearest.values[:, :1] + APART)
    return functional.one_hot(nearest.indices[:, 0], keypoints.shape[1]) * sure.float()


def choice_loss(logits: Tensor, chosen: Tensor) -> Tensor:
    """Of logits (B, K) of which thing is handled, against which is (B, K), where that is known."""
    return -(chosen * logits.log_softmax(-1)).sum() / chosen.sum().clamp(min=1.0)


def known_and_seen(keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a key point is labelled, and whether it is in the picture: (…, K) 0 or 1 each."""
    known = keypoints.isfinite().all(-1)
    return known.float(), (known & (keypoints[..., 2] > 0.5)).float()


def places_of(keypoints: Tensor, rows: int, columns: int) -> Tensor:
    """(…, K, 2): where key points are, −1 .. 1 from the first place's middle to the last's."""
    sizes = torch.tensor([columns, rows], device=keypoints.device)
    return 2 * (keypoints[..., :2].nan_to_num() * sizes - 0.5) / (sizes - 1) - 1


def _away(keypoints: Tensor, rows: int, columns: int) -> Tensor:
    """(…, places, K, 2): from each place's middle to each key point, in places."""
    across, down = (torch.arange(count, device=keypoints.device) + 0.5 for count in (columns, rows))
    middles = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).reshape(-1, 1, 2)
    size = torch.tensor([columns, rows], device=keypoints.device)
    return (keypoints[..., :2].nan_to_num() * size).unsqueeze(-3) - middles


def _label(away: Tensor) -> Tensor:
    """(…, places, K): 1 where the key point is, less around it."""
    return torch.exp(-away.square().sum(-1) / (2 * SPREAD**2))
