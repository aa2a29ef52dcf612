"""Where the flange is: forward kinematics as a layer without parameters."""

import math

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


class ForwardKinematics(nn.Module):
    """Where the tool is, and which joint motion moves it along a straight line; in the arm's base frame."""

    outputs = 9

    def forward(self, joints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (B, 6) rad → tool position (B, 3) m, its approach axis and its x axis (B, 3)."""
        position, axes, _, _ = self._chain(joints)
        return position, axes[..., 2], axes[..., 0]

    @torch.no_grad()
    def towards(self, joints: Tensor, ways: Tensor) -> Tensor:
        """Joint motions (B, N, 6) rad that move the tool by `ways` (B, N, 3) m without turning it, to first order.

        Damped least squares, Δq = Jᵀ (J Jᵀ + λ² I)⁻¹ Δx; the inverse by Newton–Schulz steps, which export to plain ONNX.
        """
        tool, _, centres, turns = self._chain(joints)
        linear = torch.linalg.cross(turns, tool.unsqueeze(1) - centres)
        jacobian = torch.cat([linear, turns], -1)  # (B, joint, 6): transposed
        eye = torch.eye(6, dtype=joints.dtype, device=joints.device)
        square = jacobian.transpose(1, 2) @ jacobian + DAMPING**2 * eye
        trace = (square * eye).sum((1, 2), keepdim=True)
        inverse = eye / trace
        for _ in range(NEWTON_STEPS):
            inverse = inverse @ (2 * eye - square @ inverse)
        twists = torch.cat([ways, torch.zeros_like(ways)], -1)
        return twists @ inverse @ jacobian.transpose(1, 2)

    def _chain(self, joints: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tool position (B, 3) and axes (B, 3, 3); each joint's centre and axis of rotation (B, 6, 3)."""
        position = torch.zeros_like(joints[:, :3])
        axes = torch.eye(3, dtype=joints.dtype, device=joints.device).expand(joints.shape[0], 3, 3)
        centres, turns = [], []
        for i, (a, d, alpha) in enumerate(UR5E):
            centres.append(position)
            turns.append(axes[..., 2])
            cos, sin = joints[:, i].cos(), joints[:, i].sin()
            ca, sa = math.cos(alpha), math.sin(alpha)
            x, y, z = axes.unbind(-1)
            new_x = x * cos.unsqueeze(-1) + y * sin.unsqueeze(-1)
            side = y * cos.unsqueeze(-1) - x * sin.unsqueeze(-1)
            position = position + a * new_x + d * z
            axes = torch.stack([new_x, ca * side + sa * z, ca * z - sa * side], -1)
        position = position + TOOL * axes[..., 2]
        return position, axes, torch.stack(centres, 1), torch.stack(turns, 1)
