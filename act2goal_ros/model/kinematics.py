"""Where the flange is: forward kinematics as a layer without parameters."""

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
TOOL = 0.145  # m from flange to pinch point


class ForwardKinematics(nn.Module):
    """Joints (B, 6) rad → tool position × 3 and approach and sliding axes: (B, 9), in the arm's base frame."""

    outputs = 9

    def forward(self, joints: Tensor) -> Tensor:
        position = torch.zeros_like(joints[:, :3])
        axes = torch.eye(3, dtype=joints.dtype, device=joints.device).expand(len(joints), 3, 3)
        for i, (a, d, alpha) in enumerate(UR5E):
            cos, sin = joints[:, i].cos(), joints[:, i].sin()
            ca, sa = torch.cos(torch.tensor(alpha)).item(), torch.sin(torch.tensor(alpha)).item()
            x, y, z = axes.unbind(-1)
            new_x = x * cos.unsqueeze(-1) + y * sin.unsqueeze(-1)
            side = y * cos.unsqueeze(-1) - x * sin.unsqueeze(-1)
            position = position + a * new_x + d * z
            axes = torch.stack([new_x, ca * side + sa * z, ca * z - sa * side], -1)
        position = position + TOOL * axes[..., 2]
        return torch.cat([3 * position, axes[..., 2], axes[..., 0]], -1)
