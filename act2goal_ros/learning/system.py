"""All networks together, and what they are trained to do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.learning.augment import relight
from act2goal_ros.learning.batches import Batch
from act2goal_ros.learning.checkpoint import load as load  # which callers take from here
from act2goal_ros.learning.keypoints import KeypointReaders, choice_loss, live_loss, which_is_handled
from act2goal_ros.model.autoencoder import Autoencoder
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.expert import ActionExpert, Context
from act2goal_ros.model.live import POINTS, LiveTokens
from act2goal_ros.model.world_model import TemporalDistance, WorldModel

PURE_NOISE = 0.75  # share of plans made in one pass from pure noise, as at run time
FIRST_STEP = 0.7  # share of action samples at τ = 0
BLIND = 0.15  # of plans and of live frames: nothing is known of them but where things are, as in the part `acting`
FINE = 0.02  # of actions, normalised, below which an error counts less: about 5 mm at the tool
TIME_ERROR, TIME_UNKNOWN, LONGEST = 0.25, 0.2, 400.0  # of the time to the goal: relative; how often it is anything; steps
ARRIVED = 4.0  # steps to the goal, below which no factor makes a time wrong
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

    told: Callable[[Batch], dict[str, Tensor]] | None = None  # losses of samples without pictures, learnt beside (learning/acting.py)

    def encoded(self, batch: Batch) -> Batch:
        """A sampler's batch with latents where it has pictures; here it has latents."""
        return batch

    def decoded(self, latents: Tensor) -> Tensor:
        """A plan's latent frames (F, C, H, W) → pictures of its frames, about 0 .. 1."""
        return self.autoencoder.decode(latents)

    def losses(self, batch: Batch | tuple[Batch, Batch]) -> dict[str, Tensor]:
        """As of `shown`; of a second batch, without pictures, those of `told` as well, as `told_action` and so on."""
        if not isinstance(batch, tuple):
            return self.shown(batch)
        assert self.told is not None
        return self.shown(batch[0]) | {f"told_{name}": value for name, value in self.told(batch[1]).items()}

    def shown(self, batch: Batch) -> dict[str, Tensor]:
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
        chosen = self.handled(batch)
        foreseen = self.expert.foresee(features, known)
        action, context, live = self._action_loss(batch, foreseen, level.repeat_interleave(views), views, chosen)
        return {
            "video": video,
            "action": action,
            "distance": self.distance_loss(batch, known, live.located().detach()),
            "cube": 10 * labelled_error(context.found, batch.cube),
            "target": 10 * labelled_error(context.target, batch.target),
            "choice": choice_loss(context.choice, chosen),
            "imagined": self._imagined_loss(features, known, batch.keypoints),
            "seen": live_loss(live, batch.live_keypoints, self.expert.live.grid, self.config.picture_shape[0] // PLACE),
        }

    def distance_loss(self, batch: Batch, known: Tensor, live: Tensor) -> Tensor:
        """Of log(1 + steps) to the goal; `known` (B, 2, 3 K) and `live` (B V, 3 K): where things are at start and goal, and in live
        frames."""
        views = len(live) // len(known)
        goal, places = batch.goal.repeat_interleave(views, 0), known[:, 1].repeat_interleave(views, 0)
        found = torch.cat([self.distance(batch.current, batch.goal, *known.unbind(1)), self.distance(batch.live, goal, live, places)])
        expected = torch.log1p(torch.cat([batch.arrival, batch.live_arrival]))
        return functional.smooth_l1_loss(found, expected, beta=0.1)

    def located(self, batch: Batch) -> Tensor:
        """(B, 2, 3 K): where things are in the pictures of the plans' starts and of their goals."""
        with torch.no_grad():
            return self.expert.live.located(batch.shown.flatten(0, 1)).unflatten(0, (-1, 2))

    def handled(self, batch: Batch) -> Tensor:
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
        keys, values = self.expert.plan_keys(self._forgotten(features))
        plan = (keys.repeat_interleave(views, 0), values.repeat_interleave(views, 0))
        live = self._overlooked(self.expert.observe(relight(batch.pictures) if self.training else batch.pictures))
        state = (batch.joints, batch.velocities, batch.gripper)
        told = chosen if self.training else None
        times, row_times = batch.frame_times, batch.row_times
        if self.training:
            unknown = torch.full_like(times[:, :1], TIME_UNKNOWN)
            times, row_times = misjudged(times, row_times, self.config.chunk_steps, unknown)
        context = self.expert.context(plan, batch.frame_mask, times, live, *state, told)
        clean = self.expert.normalise(batch.actions, batch.joints)
        tau, noisy = noisy_actions(clean, FIRST_STEP)
        predicted = self.expert.denoise(context, noisy, clean, batch.given_mask, row_times, tau, level)
        return action_error(predicted, clean, batch), context, live

    def _forgotten(self, features: Tensor) -> Tensor:
        """A plan's features (B, L + 1, F, T, W), in training now and then without all but the last layer, where things are."""
        if not self.training:
            return features
        kept = (torch.rand(len(features), 1, 1, 1, 1) > BLIND).to(features.dtype).expand(-1, features.shape[1] - 1, -1, -1, -1)
        return features * functional.pad(kept, (0, 0, 0, 0, 0, 0, 0, 1), value=1.0)

    def _overlooked(self, live: LiveTokens) -> LiveTokens:
        """What is seen of the live frame, in training now and then without all but where the things are."""
        if not self.training:
            return live
        kept, own = (torch.rand(len(live.tokens), 1) > BLIND).to(live.tokens.dtype), 2 * self.config.keypoints
        position, points = self.expert.live.position, live.points * functional.pad(kept.expand(-1, POINTS * 2 - own), (own, 0), value=1.0)
        kept = kept.unsqueeze(-1)
        return live._replace(tokens=position + kept * (live.tokens - position), points=points, things=kept * live.things)


def noisy_actions(clean: Tensor, first: float) -> tuple[Tensor, Tensor]:
    """Of clean actions (B, R, A): τ (B,), 0 for the share `first`, and the noisy ones. At τ = 0 they are zero, as what a served policy
    starts from."""
    tau = torch.where(torch.rand(len(clean)) < first, torch.zeros(()), 0.95 * torch.rand(len(clean)))
    mix = tau.view(-1, 1, 1)
    return tau, (mix > 0) * (1 - mix) * torch.randn_like(clean) + mix * clean


def misjudged(times: Tensor, row_times: Tensor, chunk_steps: int, unknown: Tensor) -> tuple[Tensor, Tensor]:
    """Times of a plan's frames (B, F) and of rows (B, R), of which those after the chunk are the frames', as a plan has them that is
    wrong about the time to its goal; `unknown` (B, 1): how often that is anything. Else a policy learns that it is done from the time
    alone, not from where things are."""
    last = times[:, -1:]
    guessed = last.clamp(min=0.0) * (TIME_ERROR * torch.randn_like(last)).exp()
    guessed = torch.where(torch.rand_like(last) < unknown, LONGEST * torch.rand_like(last), guessed)
    factor = torch.where(last > ARRIVED, guessed / last.clamp(min=ARRIVED), 1.0)
    later = torch.where(last > ARRIVED, 0.0, guessed)
    shares = torch.linspace(0.0, 1.0, times.shape[1])
    distal = torch.linspace(0.0, 1.0, row_times.shape[1] - chunk_steps + 1)[1:]
    rows = torch.cat([row_times[:, :chunk_steps], factor * row_times[:, chunk_steps:] + later * distal], 1)
    return factor * times + later * shares, rows


def action_error(predicted: Tensor, clean: Tensor, batch: Batch) -> Tensor:
    """Mean error of actions (B, R, A) that were not given, by their weights."""
    weight = (batch.weights * (1 - batch.given_mask)).unsqueeze(-1)
    error = functional.smooth_l1_loss(predicted, clean, beta=FINE, reduction="none")
    return (weight * error).sum() / (weight.sum() * clean.shape[-1]).clamp(min=1.0)


def labelled_error(found: Tensor, label: Tensor) -> Tensor:
    """Mean absolute error over the labels that are known: NaN, of recordings without a simulator, has weight 0."""
    known = label.isfinite()
    return ((found - label.nan_to_num()).abs() * known).sum() / known.sum().clamp(min=1)
