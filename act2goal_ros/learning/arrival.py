"""The temporal distance alone: minutes, for looks in which an arm that has arrived does not know it."""

import torch
from torch import Tensor

from act2goal_ros.learning.augment import relight
from act2goal_ros.learning.batches import Batch
from act2goal_ros.learning.system import System


class Arrival(System):
    """A trained System of which only the temporal distance learns on; all else stays as it is."""

    def __init__(self, trained: System) -> None:
        super().__init__(trained.config)
        self.load_state_dict(trained.state_dict())
        self.requires_grad_(False)
        self.distance.requires_grad_(True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:  # type: ignore[override]
        """`distance`, as of System.losses."""
        with torch.no_grad():
            live = self.expert.live.located(relight(batch.pictures) if self.training else batch.pictures)
            known = self.located(batch)
        return {"distance": self.distance_loss(batch, known, live)}
