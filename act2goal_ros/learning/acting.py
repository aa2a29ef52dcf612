"""The action expert learns to act from where things are, told by a simulator in place of pictures and of a world model's features.

Episodes without pictures are recorded five times as fast and hundreds of samples a second are learnt from; what training on pictures
(stage 1) then adds is small. The expert learns of the goal as ever from the plan: where its frames have things.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from act2goal_ros.learning import released
from act2goal_ros.learning.batches import Batch, Episodes, Sampler
from act2goal_ros.learning.checkpoint import CheckpointError, load, load_weights, save
from act2goal_ros.learning.devices import made_on
from act2goal_ros.learning.fit import Cadence, Job, fit
from act2goal_ros.learning.keypoints import choice_loss, known_and_seen, places_of
from act2goal_ros.learning.looking import labelled
from act2goal_ros.learning.pictures import chunks
from act2goal_ros.learning.schedule import Schedule, seeded
from act2goal_ros.learning.system import PLACE, TIME_UNKNOWN, System, action_error, labelled_error, misjudged, noisy_actions
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.live import POINTS, LiveTokens
from act2goal_ros.serving.policy import Proprio

NAME = "acting"
LOSSES = ("action", "cube", "target", "choice")
ELSEWHERE = ("expert.live.", "expert.reader.")  # what the names of the expert's weights begin with that learn from pictures
KEPT = ("live.position",)  # what is left of live tokens, where there is no picture
HELD_OUT_SEED, HELD_OUT_PLANS, HELD_OUT_BATCHES, SHOWN = 1, 64, 4, 4
FIRST_STEP = 0.8  # share of action samples at τ = 0
# How wrong networks are about where things are, as standard deviations in −1 .. 1 units of the picture (0.016 is a pixel of 128), and rates
LIVE_ERROR, GOAL_ERROR, IMAGINED_ERROR = 0.007, 0.01, 0.03
LIVE_MISSING, PLAN_MISSING = 0.01, 0.01
BLURRED = 0.2  # of a plan's things: on the way they are seen in between
GOAL_ONLY = 0.4  # of live frames that see the plan's last frame alone
TIME_UNKNOWN_ALONE = 0.5  # of those: the time to the goal is anything


class Acting(nn.Module):
    """The action expert with places in place of pictures."""

    shown: tuple[Tensor, Tensor]  # chunks (N, R, A) of the last losses: predicted and true

    def __init__(self, system: System) -> None:
        super().__init__()
        self.config, self.expert, self._handled = system.config, system.expert, system.handled
        self.last = [last for _, last in self.config.latent_frames]  # of a plan's frames, which latents stand for

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`action`, `cube`, `target` and `choice` as of System.losses."""
        views = len(batch.joints) // len(batch.goal)
        mask, times, row_times = self._seen(batch.frame_mask[:, self.last], batch.frame_times[:, self.last], batch.row_times)
        read = self.read(batch.keypoints[:, self.last]).repeat_interleave(views, 0)
        chosen = self._handled(batch)
        context = self.expert.context_of(
            self.expert.told(read), read, mask, times, self.live(batch.live_keypoints),
            batch.joints, batch.velocities, batch.gripper, chosen if self.training else None,
        )  # fmt: skip
        clean = self.expert.normalise(batch.actions, batch.joints)
        tau, noisy = noisy_actions(clean, FIRST_STEP)
        level = torch.ones_like(tau)
        predicted = self.expert.denoise(context, noisy, clean, batch.given_mask, row_times, tau, level)
        self.shown = (predicted[:SHOWN].detach(), clean[:SHOWN])
        return {
            "action": action_error(predicted, clean, batch),
            "cube": 10 * labelled_error(context.found, batch.cube),
            "target": 10 * labelled_error(context.target, batch.target),
            "choice": choice_loss(context.choice, chosen),
        }

    def places(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (…, K, 3) → (…, K, 2) in −1 .. 1 as the live encoder's, and (…, K) 1 where the thing is."""
        rows, columns = (side // PLACE for side in self.config.picture_shape)
        _, seen = known_and_seen(keypoints)
        return places_of(keypoints, rows, columns) * seen.unsqueeze(-1), seen

    def live(self, keypoints: Tensor) -> LiveTokens:
        """Labels (B, K, 3) → as if seen, somewhat wrong."""
        places, seen = self.places(keypoints)
        if self.training:
            places = places + LIVE_ERROR * (0.5 * torch.randn(len(places), 1, 1)).exp() * torch.randn_like(places)
            seen = seen * (1 - 0.15 * torch.rand_like(seen)) * (torch.rand_like(seen) > LIVE_MISSING)
        points = nn.functional.pad(places.flatten(1), (0, 2 * POINTS - 2 * places.shape[1]))
        tokens = self.expert.live.position.mean(1, keepdim=True).expand(len(points), -1, -1)  # stands for all
        things = points.new_zeros(*seen.shape, 2 * self.config.live_width)
        return LiveTokens(tokens, points, things, things[..., :0], seen)  # without maps: nothing is taught here

    def read(self, keypoints: Tensor) -> Tensor:
        """Labels of a plan's frames (B, F, K, 3) → (B, F, 3 K) as if read from the plan, somewhat wrong."""
        places, seen = self.places(keypoints)
        if self.training:
            places = self._blurred(places, seen)
            error = places.new_full((places.shape[1], 1, 1), IMAGINED_ERROR)
            error[-1] = GOAL_ERROR
            places = places + error * (0.5 * torch.randn(len(places), 1, 1, 1)).exp() * torch.randn_like(places)
            seen = seen * (1 - 0.15 * torch.rand_like(seen)) * (torch.rand_like(seen) > PLAN_MISSING)
        return torch.cat([places.transpose(-1, -2).flatten(2), seen], -1)

    def _blurred(self, places: Tensor, seen: Tensor) -> Tensor:
        """Frames between the first and the last have some things on the straight way between where these two have them, if they do."""
        share = torch.linspace(0.0, 1.0, places.shape[1]).view(1, -1, 1, 1)
        between = places[:, :1] + share * (places[:, -1:] - places[:, :1])
        blurred = (torch.rand(len(places), 1, places.shape[2]) < BLURRED) & (seen[:, :1] * seen[:, -1:] > 0)
        return torch.where(blurred.unsqueeze(-1), between, places)

    def _seen(self, mask: Tensor, times: Tensor, row_times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which frames (B, F) may be seen, their times and those of the rows (B, R) as they are estimated."""
        if not self.training:
            return mask, times, row_times
        alone = torch.rand(len(mask), 1) < GOAL_ONLY
        mask = torch.cat([torch.where(alone, 0.0, mask[:, :-1]), mask[:, -1:]], 1)
        unknown = torch.where(alone, TIME_UNKNOWN_ALONE, TIME_UNKNOWN)
        return mask, *misjudged(times, row_times, self.config.chunk_steps, unknown)


def train_acting(
    episodes: Episodes, system: System, folder: Path, schedule: Schedule, weights: dict[str, float], fabric: Fabric, cadence: Cadence
) -> None:
    """Trains the expert but for its live encoder, and writes folder/acting.pt; until it is there, folder/acting-training.pt is a
    checkpoint it resumes from."""
    among, held_out = (labelled(episodes, part) for part in episodes.split())
    sampler, checked = (Sampler(episodes, part, system.config, 0) for part in (among, held_out or among))
    for name, parameter in system.named_parameters():
        parameter.requires_grad_(is_learnt(name))
    model = Acting(system)

    def check() -> tuple[dict[str, float], np.ndarray]:
        model.eval()
        rows = []
        for i in range(HELD_OUT_BATCHES):
            batch = fabric.to_device(checked.batch(HELD_OUT_PLANS, seeded(HELD_OUT_SEED, i, 0)))
            with torch.no_grad(), made_on(fabric.device):
                rows.append(model.losses(batch))
        model.train()
        steps = system.config.chunk_steps
        found = {name: float(np.mean([row[name].item() for row in rows])) for name in rows[0]}
        return found, chunks(model.shown[0][:, :steps].cpu().numpy(), model.shown[1][:, :steps].cpu().numpy())

    groups = [{"params": [p for p in system.expert.parameters() if p.requires_grad], "weight_decay": 0.01, "betas": (0.9, 0.98)}]
    job = Job(name=f"{NAME}-training", module=model, batch=lambda generator, plans: sampler.batch(plans, generator),
              weights={name: weights[name] for name in LOSSES}, groups=groups, check=check)  # fmt: skip
    steps = fit(job, schedule, folder, fabric, cadence)
    if fabric.is_global_zero:
        own = {name: value for name, value in system.expert.state_dict().items() if is_learnt(f"expert.{name}") or name in KEPT}
        save(folder / f"{NAME}.pt", {"model": own, "steps": steps, "config": system.config.to_dict()})
    fabric.barrier()


def is_learnt(name: str) -> bool:
    """Whether a weight of the system is one that this part trains."""
    return name.startswith("expert.") and not name.startswith(ELSEWHERE)


def take_over(system: System, folder: Path) -> bool:
    """Gives the expert the weights of folder/acting.pt; False if there is none."""
    path = folder / f"{NAME}.pt"
    if not path.exists():
        return False
    state = load(path, "model")
    load_weights(system.expert, state["model"], state.get("config"), path)
    return True


def show_nothing(episodes: Episodes) -> None:
    """Gives samplers empty latents, and of the pictures, if there are any, a pixel each: they are not needed."""
    episodes.all = [replace(episode, frames=episode.frames[:, :1, :1]) for episode in episodes.all]
    episodes.latents = [np.zeros((len(episode.frames), 1, 1, 1), np.float32) for episode in episodes.all]


class ToldPolicy:
    """The expert at run time, told where things are: for recording what it gets wrong, and for measuring it without pictures."""

    def __init__(self, path: Path) -> None:
        """path: folder/acting.pt, the checkpoint of the training that is under way or of a stage, or an exported model's folder."""
        torch.set_num_threads(1)
        state = released.load(path) if path.is_dir() else load(path, "config")
        self.config = ModelConfig.from_dict(state["config"])
        system = System(self.config)
        named = {f"expert.{name}": value for name, value in state.get("model", {}).items()}
        weights = {name.removeprefix("expert."): value for name, value in state.get("average", named).items() if name.startswith("expert.")}
        if "head.weight" not in weights:
            raise CheckpointError(f"checkpoint {path} has no action expert: it is of a part that trains none")
        load_weights(system.expert, weights, state["config"], path)
        self._model = Acting(system).eval()

    @torch.no_grad()
    def chunk(self, live: np.ndarray, goal: np.ndarray, proprio: Proprio, steps: float, prefix: np.ndarray | None = None) -> np.ndarray:
        """Key points (K, 3) of the live picture and the goal's, `steps` to the goal, and actions (d, J + 1) that are given already →
        the next actions (P, J + 1)."""
        c, expert = self.config, self._model.expert
        rows = c.chunk_steps + c.distal_frames
        frames = len(c.latent_frames)
        shown = torch.from_numpy(np.asarray(goal, np.float32)).expand(1, frames, -1, -1)
        read = self._model.read(shown)
        mask = (torch.arange(frames) == frames - 1).float().unsqueeze(0)
        times = torch.full((1, frames), float(steps))
        joints, velocities = (torch.from_numpy(np.asarray(part, np.float32)[None]) for part in (proprio.joints, proprio.velocities))
        seen = self._model.live(torch.from_numpy(np.asarray(live, np.float32)[None]))
        gripper = torch.full((1, 1), proprio.gripper)
        context = expert.context_of(expert.told(read), read, mask, times, seen, joints, velocities, gripper, None)
        given, given_mask = torch.zeros(1, rows, c.action_size), torch.zeros(1, rows)
        if prefix is not None and len(prefix):
            count = min(len(prefix), c.most_given)
            given[0, :count], given_mask[0, :count] = torch.from_numpy(np.asarray(prefix[:count], np.float32)), 1.0
        row_times = torch.cat([torch.arange(1.0, c.chunk_steps + 1), torch.full((c.distal_frames,), float(steps))]).unsqueeze(0)
        known = expert.normalise(given, joints)
        found = expert.sample(context, torch.zeros_like(known), known, given_mask, row_times, torch.ones(1))
        return expert.denormalise(found, joints)[0, : c.chunk_steps].numpy().astype(float)
