"""Real-time chunking (arXiv 2506.07339) with the trained action expert: the flow is guided towards what is left of the last chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from act2goal_ros.learning.released import weights_of
from act2goal_ros.learning.system import System
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.expert import ActionExpert, Context
from act2goal_ros.serving import adapter
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.serving.policy import GoalPolicy
from act2goal_ros.serving.reference import TOLERANCE, Reference

MOST_GUIDANCE = 5.0  # the paper's β
STEPS = 5  # of the flow, the paper's; guidance bends a way, and a single step, which is what we serve, has none


class GuidedTick:
    """The network `tick` in torch, as trained: given rows are not set but guided to, as far as the soft mask says."""

    backend, precision = "torch", "float32"

    def __init__(self, expert: ActionExpert, frozen: int = 0, most: float = MOST_GUIDANCE, steps: int = STEPS) -> None:
        self.expert, self.frozen, self.most, self.steps = expert, frozen, most, steps

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `tick.onnx`: actions (1, R, A)."""
        x = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        expert = self.expert
        with torch.no_grad():
            live = expert.observe(x["pictures"])
            state = (x["joints"], x["velocities"], x["gripper"])
            context = expert.context((x["keys"], x["values"]), x["frame_mask"], x["frame_times"], live, *state)
            target = expert.normalise(x["given"], x["joints"])
        weights = soft_mask(x["given_mask"].shape[1], int(x["given_mask"].sum()), self.frozen)
        found = self._sample(context, torch.zeros_like(target), target, weights.view(1, -1, 1), x["row_times"])
        return {"actions": expert.denormalise(found, x["joints"]).numpy()}

    def _sample(self, context: Context, noise: Tensor, target: Tensor, weights: Tensor, row_times: Tensor) -> Tensor:
        """Euler integration; each velocity gets the guidance's vector-Jacobian product on top, clipped at β."""
        expert, steps, x = self.expert, self.steps, noise
        level, nothing = torch.ones(1), (torch.zeros_like(noise), torch.zeros_like(noise[..., 0]))
        for n in range(steps):
            tau = n / steps
            x = x.detach().requires_grad_(True)
            clean = expert.denoise(context, x, *nothing, row_times, torch.full((1,), tau), level)
            velocity = (clean - x) / (1 - tau)
            if weights.any():
                (correction,) = torch.autograd.grad(clean, x, (target - clean).detach() * weights)
                velocity = velocity + self._strength(tau) * correction
            x = (x + velocity / steps).detach()
        return x

    def _strength(self, tau: float) -> float:
        """min(β, (1 − τ) / (τ r²)) with r² = (1 − τ)² / (τ² + (1 − τ)²)."""
        return min(self.most, (tau**2 + (1 - tau) ** 2) / (tau * (1 - tau))) if tau > 0 else self.most


def soft_mask(rows: int, known: int, frozen: int) -> Tensor:
    """(rows,): 1 for the rows executed before the chunk arrives, decaying to 0 where the last chunk ends (the paper's eq. 5)."""
    i = torch.arange(rows, dtype=torch.float32)
    c = (known - i) / max(known - frozen + 1, 1)
    decaying = c * torch.expm1(c) / (torch.e - 1)
    return torch.where(i < min(frozen, known), torch.ones(()), torch.where(i < known, decaying, torch.zeros(())))


def load_expert(weights: Path, bundle: ModelBundle, served: GoalPolicy) -> ActionExpert:
    """The expert of a checkpoint or of a model's folder, checked: unguided it gives what the served model gives, else ValueError."""
    state = weights_of(weights, "config")
    system = System(ModelConfig.from_dict(state["config"] | {"flow_steps": bundle.config.flow_steps}))
    system.load_state_dict(state["average"])
    expert = system.eval().requires_grad_(False).expert
    inputs = Reference(bundle.folder).inputs("tick") | dict(adapter.none(bundle.config).inputs)
    inputs["given_mask"] = np.zeros_like(inputs["given_mask"])
    unguided = GuidedTick(expert, steps=bundle.config.flow_steps)(inputs)["actions"]
    difference = float(np.abs(unguided - served.served.runners["tick"](inputs)["actions"]).max())
    if not difference <= TOLERANCE["float32"]:
        raise ValueError(f"{weights}: unguided chunks differ from {bundle.name}'s by {difference:.2g}, at most {TOLERANCE['float32']:g}")
    return expert


def guided(served: GoalPolicy, expert: ActionExpert, frozen: int) -> GoalPolicy:
    """The served policy with its last network in torch, guided; `frozen` rows pass before a chunk arrives."""
    runners = {**served.served.runners, "tick": GuidedTick(expert, frozen)}
    config = replace(served.config, prefix_steps=served.config.chunk_steps)
    return GoalPolicy(config, replace(served.served, runners=runners))
