"""Fewer flow steps: an expert learns to give at once what a trained one gives in many."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from act2goal_ros.learning.batches import Batch
from act2goal_ros.learning.system import System


class Student(System):
    """A System whose expert is taught by another's: same plan, same live frame, the actions in `flow_steps` instead.

    What sees (world model, live encoder, estimates of object and target) stays as it is. Like the served policy, both start
    from zero instead of noise, so that there is one answer to learn.
    """

    def __init__(self, teacher: System, flow_steps: int) -> None:
        super().__init__(replace(teacher.config, flow_steps=flow_steps))
        self.load_state_dict(teacher.state_dict())
        self._teacher = (teacher.eval().requires_grad_(False),)  # not a part of this module
        expert = self.expert
        seeing = (self.autoencoder, self.world, self.distance, expert.live, expert.plan_norm, expert.plan_key_value, expert.state,
                  expert.thing, expert.reader, expert.foreseen, expert.agenda, expert.spotter)  # fmt: skip
        for part in seeing:
            part.requires_grad_(False)
        for embedding in (expert.spot, expert.kind):
            embedding.requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:  # type: ignore[override]
        """`action`: the distance to the teacher's actions, normalised, where they are not given."""
        teacher, views = self._teacher[0].expert, len(batch.joints) // len(batch.goal)
        with torch.no_grad():
            noise, level = torch.randn_like(batch.future), torch.ones(len(batch.goal))
            _, features = self.world(noise, batch.current, batch.goal, batch.offsets, level)
            features = self.expert.foresee(features, self.located(batch))
            keys, values = (part.repeat_interleave(views, 0) for part in self.expert.plan_keys(features))
            live = self.expert.observe(batch.pictures)
            given = teacher.normalise(batch.actions, batch.joints)
        seen = ((keys, values), batch.frame_mask, batch.frame_times, live, batch.joints, batch.velocities, batch.gripper)
        asked = (torch.zeros_like(given), given, batch.given_mask, batch.row_times, torch.ones(len(given)))
        with torch.no_grad():
            expected = teacher.sample(teacher.context(*seen), *asked)
        found = self.expert.sample(self.expert.context(*seen), *asked)
        weight = (1 - batch.given_mask).unsqueeze(-1)
        error = functional.smooth_l1_loss(found, expected, beta=0.05, reduction="none")
        return {"action": (weight * error).sum() / (weight.sum() * given.shape[-1]).clamp(min=1.0)}
