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


class ForwardKinematics(nn.Module):
    """Joints (B, 6) rad → tool position (B, 3) m, its approach axis and its x axis (B, 3), in the arm's base frame."""

    outputs = 9

    def forward(self, joints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        position = torch.zeros_like(joints[:, :3])
        axes = torch.eye(3, dtype=joints.dtype, device=joints.device).expand(joints.shape[0], 3, 3)
        for i, (a, d, alpha) in enumerate(UR5E):
            cos, sin = joints[:, i].cos(), joints[:, i].sin()
            ca, sa = math.cos(alpha), math.sin(alpha)
            x, y, z = axes.unbind(-1)
            new_x = x * cos.unsqueeze(-1) + y * sin.unsqueeze(-1)
            side = y * cos.unsqueeze(-1) - x * sin.unsqueeze(-1)
            position = position + a * new_x + d * z
            axes = torch.stack([new_x, ca * side + sa * z, ca * z - sa * side], -1)
        position = position + TOOL * axes[..., 2]
        return position, axes[..., 2], axes[..., 0]
