"""Where the flange is: forward kinematics as a layer without parameters."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Denavit–Hartenberg parameters of the UR5e (Universal Robots, "DH Parameters for calculations of kinematics and dynamics"):
# a (m), d (m), alpha (rad)
UR5E = (
    (0.0, 0.1625, 1.5707963),
    (-0.425, 0.0, 0.0),
    (-0.3922, 0.0, 0.0),
    (0.0, 0.1333, 1.5707963),
    (0.0, 0.0997, -1.5707963),
    (0.0, 0.0996, 0.0),
)
TOOL = 0.1555  # m from flange to the Robotiq 2F-85's pinch point


class Chain(NamedTuple):
    """The arm at some joints, in its base frame: tool position (B, 3) m and axes (B, 3, 3), in columns."""

    tool: Tensor
    axes: Tensor


def in_full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Switches autocast off, if it is on: in bfloat16 the tool's place is known to 2 to 7 mm only."""
    kind = like.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


class ForwardKinematics(nn.Module):
    """Where the tool is, and which joint motion brings it elsewhere."""

    fixed: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in zip(("fixed", "cosine", "sine"), _link_terms(), strict=True):
            self.register_buffer(name, value, persistent=False)

    def forward(self, joints: Tensor) -> Chain:
        """Joints (B, 6) rad → where the links are."""
        with in_full_precision(joints):
            return self._chain(joints)

    def _chain(self, joints: Tensor) -> Chain:
        angle = joints.unsqueeze(-1).unsqueeze(-1)
        links = self.fixed + angle.cos() * self.cosine + angle.sin() * self.sine
        pose = links[:, 0]
        for i in range(1, len(UR5E)):
            pose = pose @ links[:, i]
        axes = pose[:, :3, :3]
        return Chain(pose[:, :3, 3] + TOOL * axes[..., 2], axes)

    @torch.no_grad()
    def reaching(self, joints: Tensor, chain: Chain, places: Tensor) -> Tensor:
        """Joint motions (B, N, 6) rad from joints (B, 6), where `chain` is, that bring the tool to places (B, N, 3) m without turning it.

        Closed form for arms built like the UR5e, in the present configuration of shoulder, elbow and wrist; a place out of reach is
        pointed at with the arm stretched.
        """
        with in_full_precision(places):
            return self._reaching(joints.unsqueeze(1), chain, places)

    def _reaching(self, joints: Tensor, chain: Chain, places: Tensor) -> Tensor:
        (_, d1), (a2, _), (a3, _), (_, d4), (_, d5), (_, d6) = ((a, d) for a, d, _ in UR5E)
        x, y, z = chain.axes.unsqueeze(1).unbind(-1)  # (B, 1, 3) each
        present, wrist = (at - (d6 + TOOL) * z for at in (chain.tool.unsqueeze(1), places))
        ahead = (joints[..., 0] - torch.atan2(present[..., 1], present[..., 0])).cos() >= 0.0  # the shoulder
        reach = wrist[..., :2].norm(dim=-1).clamp(min=d4)
        lean = torch.asin((d4 / reach).clamp(max=1.0))
        q1 = torch.atan2(wrist[..., 1], wrist[..., 0]) + torch.where(ahead, lean, math.pi - lean)
        cos, sin = q1.cos(), q1.sin()
        sideways = torch.stack([sin, -cos, torch.zeros_like(sin)], -1)  # axis of joints 2, 3 and 4
        cos5 = (z * sideways).sum(-1).clamp(-1.0, 1.0)
        sin5 = _side(joints[..., 4]) * (1.0 - cos5.square()).clamp(min=1e-6).sqrt()
        q6 = torch.atan2(-(y * sideways).sum(-1) / sin5, (x * sideways).sum(-1) / sin5)
        axis5 = torch.linalg.cross(sideways, z.expand_as(sideways)) / sin5.unsqueeze(-1)
        elbow = wrist - d5 * axis5 - d4 * sideways
        out, up = elbow[..., 0] * cos + elbow[..., 1] * sin, elbow[..., 2] - d1
        cos3 = ((out.square() + up.square() - a2 * a2 - a3 * a3) / (2 * a2 * a3)).clamp(-1.0, 1.0)
        q3 = _side(joints[..., 2]) * torch.acos(cos3)
        q2 = torch.atan2(up, out) - torch.atan2(a3 * q3.sin(), a2 + a3 * cos3)
        together = torch.atan2(axis5[..., 0] * cos + axis5[..., 1] * sin, -axis5[..., 2])
        found = torch.stack([q1, q2, q3, together - q2 - q3, torch.atan2(sin5, cos5), q6], -1)
        away = found - joints
        return torch.atan2(away.sin(), away.cos())


def _side(angle: Tensor) -> Tensor:
    """1 for an angle from 0 to π, −1 beyond; never 0."""
    return 1.0 - 2.0 * (angle.sin() < 0.0).to(angle.dtype)


def _link_terms() -> tuple[Tensor, Tensor, Tensor]:
    """K, C, S (6, 4, 4) with each link's transform = K + cos θ · C + sin θ · S (Denavit and Hartenberg)."""
    fixed, cosine, sine = (torch.zeros(len(UR5E), 4, 4) for _ in range(3))
    for i, (a, d, alpha) in enumerate(UR5E):
        ca, sa = math.cos(alpha), math.sin(alpha)
        cosine[i, 0, 0], cosine[i, 1, 1], cosine[i, 1, 2], cosine[i, 0, 3] = 1.0, ca, -sa, a
        sine[i, 1, 0], sine[i, 0, 1], sine[i, 0, 2], sine[i, 1, 3] = 1.0, -ca, sa, a
        fixed[i, 2, 1], fixed[i, 2, 2], fixed[i, 2, 3], fixed[i, 3, 3] = sa, ca, d, 1.0
    return fixed, cosine, sine
