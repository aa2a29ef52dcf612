"""All networks together, and what they are trained to do."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.learning.augment import relight
from act2goal_ros.learning.batches import Batch
from act2goal_ros.learning.checkpoint import load as load  # which callers take from here
from act2goal_ros.learning.keypoints import KeypointReaders, choice_loss, live_loss, which_is_handled
from act2goal_ros.model.autoencoder import Autoencoder
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.expert import ActionExpert, Context, LiveTokens
from act2goal_ros.model.world_model import TemporalDistance, WorldModel

PURE_NOISE = 0.75  # share of plans made in one pass from pure noise, as at run time
FIRST_STEP = 0.5  # share of action samples at τ = 0
PLACE = 8  # pixels of a place of the live encoder, along each side


class System(nn.Module):
    """Autoencoder, world model, temporal distance and action expert."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config)
        self.world = WorldModel(config)
        self.distance = TemporalDistance(config)
        self.expert = ActionExpert(config)
        self.readers = KeypointReaders(config)

    def encoded(self, batch: Batch) -> Batch:
        """A sampler's batch with latents where it has pictures; here it has latents."""
        return batch

    def decoded(self, latents: Tensor) -> Tensor:
        """A plan's latent frames (F, C, H, W) → pictures of its frames, about 0 .. 1."""
        return self.autoencoder.decode(latents)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`video` and `action` (flow matching), `distance`, `cube`, `target`, `choice` (of the object), `imagined` and `seen` (key
        points); each a scalar."""
        batch = self.encoded(batch)
        level = torch.where(torch.rand(len(batch.goal)) < PURE_NOISE, torch.ones(()), torch.rand(len(batch.goal)))
        noise = torch.randn_like(batch.future)
        mix = level.view(-1, 1, 1, 1, 1)
        noisy = mix * noise + (1 - mix) * batch.future
        velocity, features = self.world(noisy, batch.current, batch.goal, batch.offsets, level)
        known = self.located(batch)
        moved = (batch.future - batch.current.unsqueeze(1)).abs().mean(2, keepdim=True)
        weight = 1 + 4 * moved
        video = (weight * (velocity - (batch.future - noise)).square()).mean() / weight.mean()
        views = len(batch.joints) // len(batch.goal)
        chosen = self._handled(batch)
        foreseen = self.expert.foresee(features, known)
        action, context, live = self._action_loss(batch, foreseen, level.repeat_interleave(views), views, chosen)
        arrival = torch.cat([self.distance(batch.current, batch.goal),
                             self.distance(batch.live, batch.goal.repeat_interleave(views, 0))])
        expected = torch.log1p(torch.cat([batch.arrival, batch.live_arrival]))
        return {
            "video": video,
            "action": action,
            "distance": functional.smooth_l1_loss(arrival, expected, beta=0.1),
            "cube": 10 * labelled_error(context.found, batch.cube),
            "target": 10 * labelled_error(context.target, batch.target),
            "choice": choice_loss(context.choice, chosen),
            "imagined": self._imagined_loss(features, known, batch.keypoints),
            "seen": live_loss(live, batch.live_keypoints, self.expert.live.grid, self.config.picture_shape[0] // PLACE),
        }

    def located(self, batch: Batch) -> Tensor:
        """(B, 2, 3 K): where things are in the pictures of the plans' starts and of their goals."""
        with torch.no_grad():
            return self.expert.live.located(batch.shown.flatten(0, 1)).unflatten(0, (-1, 2))

    def _handled(self, batch: Batch) -> Tensor:
        """(B V, K): 1 for the thing that is handled, where that and the camera are known."""
        tool = self.expert.kinematics(batch.joints).tool
        (handled, known), (gripper, _) = self.expert.projected(batch.cube.nan_to_num()), self.expert.projected(tool)
        known = (known > 0) & batch.cube.isfinite().all(-1, keepdim=True)
        keypoints = torch.where(known.unsqueeze(-1), batch.live_keypoints, torch.nan)
        rows, columns = (side // PLACE for side in self.config.picture_shape)
        return which_is_handled(handled, gripper, keypoints, rows, columns)

    def _imagined_loss(self, features: Tensor, known: Tensor, keypoints: Tensor) -> Tensor:
        """Of the key points (B, frames, K, 3) in the features (B, L, F, T, W); a latent frame shows the last that it stands for."""
        last = [last for _, last in self.config.latent_frames]
        rows = self.config.latent_shape[1] // self.config.patch
        return self.readers.loss(features, self.expert.reader, known, keypoints[:, last], rows)

    def _action_loss(
        self, batch: Batch, features: Tensor, level: Tensor, views: int, chosen: Tensor
    ) -> tuple[Tensor, Context, LiveTokens]:
        """Object and target are those of the thing that is handled: which of several comes first, a plan may leave open."""
        keys, values = self.expert.plan_keys(features)
        plan = (keys.repeat_interleave(views, 0), values.repeat_interleave(views, 0))
        live = self.expert.observe(relight(batch.pictures) if self.training else batch.pictures)
        state = (batch.joints, batch.velocities, batch.gripper)
        told = chosen if self.training else None
        context = self.expert.context(plan, batch.frame_mask, batch.frame_times, live, *state, told)
        clean = self.expert.normalise(batch.actions, batch.joints)
        tau = torch.where(torch.rand(len(clean)) < FIRST_STEP, torch.zeros(()), 0.95 * torch.rand(len(clean)))
        mix = tau.view(-1, 1, 1)
        noisy = (1 - mix) * torch.randn_like(clean) + mix * clean
        predicted = self.expert.denoise(context, noisy, clean, batch.given_mask, batch.row_times, tau, level)
        weight = (batch.weights * (1 - batch.given_mask)).unsqueeze(-1)
        error = functional.smooth_l1_loss(predicted, clean, beta=0.1, reduction="none")
        return (weight * error).sum() / (weight.sum() * clean.shape[-1]).clamp(min=1.0), context, live


def labelled_error(found: Tensor, label: Tensor) -> Tensor:
    """Mean absolute error over the labels that are known: NaN, of recordings without a simulator, has weight 0."""
    known = label.isfinite()
    return ((found - label.nan_to_num()).abs() * known).sum() / known.sum().clamp(min=1)
