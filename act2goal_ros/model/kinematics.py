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


DAMPING = 0.05  # of the least squares; m and rad alike
NEWTON_STEPS = 16  # enough for a condition number of some thousands


class Chain(NamedTuple):
    """The arm at some joints, in its base frame: tool position (B, 3) m and axes (B, 3, 3), the tool's Jacobian (B, 6, 6)
    transposed: a row for each joint, metres and radians a radian."""

    tool: Tensor
    axes: Tensor
    jacobian: Tensor


def in_full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Switches autocast off, if it is on: in bfloat16 the tool's place is known to 2 to 7 mm only."""
    kind = like.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


class ForwardKinematics(nn.Module):
    """Where the tool is, and which joint motion moves it along a straight line."""

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
        poses = [links[:, 0]]
        for i in range(1, len(UR5E)):
            poses.append(poses[-1] @ links[:, i])
        after = torch.stack(poses, 1)  # (B, 6, 4, 4) behind each joint
        before = torch.cat([torch.eye(4, dtype=joints.dtype, device=joints.device).expand_as(after[:, :1]), after[:, :-1]], 1)
        axes, turns = after[:, -1, :3, :3], before[:, :, :3, 2]
        tool = after[:, -1, :3, 3] + TOOL * axes[..., 2]
        linear = torch.linalg.cross(turns, tool.unsqueeze(1) - before[:, :, :3, 3])
        return Chain(tool, axes, torch.cat([linear, turns], -1))

    @torch.no_grad()
    def towards(self, chain: Chain, ways: Tensor) -> Tensor:
        """Joint motions (B, N, 6) rad that move the tool by `ways` (B, N, 3) m without turning it, to first order.

        Damped least squares, Δq = Jᵀ (J Jᵀ + λ² I)⁻¹ Δx; the inverse by Newton–Schulz steps, which export to plain ONNX.
        """
        with in_full_precision(ways):
            return self._motions(chain, ways)

    def _motions(self, chain: Chain, ways: Tensor) -> Tensor:
        jacobian = chain.jacobian
        eye = torch.eye(6, dtype=ways.dtype, device=ways.device)
        square = jacobian.transpose(1, 2) @ jacobian + DAMPING**2 * eye
        inverse = eye / (square * eye).sum((1, 2), keepdim=True)
        for _ in range(NEWTON_STEPS):
            inverse = inverse @ (2 * eye - square @ inverse)
        twists = torch.cat([ways, torch.zeros_like(ways)], -1)
        return twists @ inverse @ jacobian.transpose(1, 2)


def _link_terms() -> tuple[Tensor, Tensor, Tensor]:
    """K, C, S (6, 4, 4) with each link's transform = K + cos θ · C + sin θ · S (Denavit and Hartenberg)."""
    fixed, cosine, sine = (torch.zeros(len(UR5E), 4, 4) for _ in range(3))
    for i, (a, d, alpha) in enumerate(UR5E):
        ca, sa = math.cos(alpha), math.sin(alpha)
        cosine[i, 0, 0], cosine[i, 1, 1], cosine[i, 1, 2], cosine[i, 0, 3] = 1.0, ca, -sa, a
        sine[i, 1, 0], sine[i, 0, 1], sine[i, 0, 2], sine[i, 1, 3] = 1.0, -ca, sa, a
        fixed[i, 2, 1], fixed[i, 2, 2], fixed[i, 2, 3], fixed[i, 3, 3] = sa, ca, d, 1.0
    return fixed, cosine, sine
