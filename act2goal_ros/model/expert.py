"""Action expert: reads the plan block by block and turns it into joint trajectories by flow matching."""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.kinematics import Chain, ForwardKinematics
from act2goal_ros.model.layers import (
    Mlp,
    Modulation,
    TimeEmbedding,
    attention,
    fourier,
    join_heads,
    split_heads,
    start_small,
)
from act2goal_ros.model.live import POINTS, LiveEncoder, LiveTokens, believed_shift
from act2goal_ros.model.reader import PlanReader
from act2goal_ros.model.spotter import OBJECT_SCALE, WAY_SCALE, Spotter

MASKED = -1e4
WORKSPACE = (0.0, 0.425, 0.05)  # m, middle of the table in the arm's base frame
FAR = 1.0  # m from the base, of a place
HOVER = (0.0, 0.0, 0.12)  # m, from an object to where the tool comes from
SPOT_FEATURES = 3 * 17 + 2 * 6
MODULATED = (0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0)  # of a block: what shift1, scale1, gate1, scale2, … are without a condition


class Context(NamedTuple):
    """All that the actions attend to: keys and values per block (B, heads, N, D), mask (B, 1, 1, N), what a summary adds to the blocks'
    modulations (B, L · 8 W); where object and target were found, (B, 3) m in the arm's base frame; logits of which kind of thing
    the object is, (B, K); and the joint motions (B, 4, J) rad to the object, above it, to the target and above that."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    mask: Tensor
    modulation: Tensor
    found: Tensor
    target: Tensor
    choice: Tensor
    motions: Tensor


class ExpertBlock(nn.Module):
    """Self-attention over the actions, cross-attention to plan and live tokens, MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.expert_width
        self.heads = config.expert_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.live_key_value = nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.mlp = Mlp(width, 3 * width, width)
        self.modulation = Modulation(width, len(MODULATED))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """x (B, A, W); keys and values (B, heads, N, D) of plan and live tokens; mask (B, 1, 1, N) adds to the logits;
        modulation: the MODULATED factors and shifts (B, 1, W)."""
        shift1, scale1, gate1, scale2, gate2, shift3, scale3, gate3 = modulation
        y = self.norms[0](x) * scale1 + shift1
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(y).chunk(3, -1))
        x = x + gate1 * self.out(join_heads(attention(query, key, value)))
        y = self.query(self.norms[1](x) * scale2)
        x = x + gate2 * self.cross_out(join_heads(attention(split_heads(y, self.heads), keys, values, mask)))
        return x + gate3 * self.mlp(self.norms[2](x) * scale3 + shift3)


class ActionExpert(nn.Module):
    """g_φ(c_w, c_p, ζ). Actions are normalised by `scale_actions`; row P.. are the distal ones, which are never executed.

    It predicts the clean actions x̂₁ from the noisy ones x_τ = (1 − τ) ζ + τ x₁, the velocity being (x̂₁ − x_τ) / (1 − τ).
    """

    action_scale: Tensor
    projection: Tensor
    velocity_scale: Tensor
    workspace: Tensor
    modulated: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, rows = config.expert_width, config.chunk_steps + config.distal_frames
        self.live = LiveEncoder(config)
        self.kinematics = ForwardKinematics()
        proprioception = 3 * config.joints + 1 + 9 + 2 * POINTS + 2  # with the tool's position, two of its axes, the picture's shift
        self.state = Mlp(proprioception, 2 * width, 4 * width)
        start_small(cast(nn.Linear, self.state[0]), slice(proprioception - 2 - 2 * (POINTS - config.keypoints), proprioception - 2))
        self.reach = Mlp(SPOT_FEATURES, width, 2 * width)
        self.carry = Mlp(SPOT_FEATURES + 3, width, 2 * width)
        self.thing = nn.Linear(3 + 2 * config.live_width, width)
        start_small(self.thing, slice(3, None))
        self.kind = nn.Parameter(0.02 * torch.randn(1, config.keypoints, width))
        self.reader = PlanReader(config)
        self.foreseen = Mlp(5 * len(config.latent_frames), width, width)
        nn.init.zeros_(cast(nn.Linear, self.foreseen[-1]).weight)
        self.agenda = Mlp(config.keypoints * (5 * len(config.latent_frames) + 3), 2 * width, width)
        self.spotter = Spotter(config)
        self.summary = Mlp(10 * width, 2 * width, width)
        nn.init.zeros_(cast(nn.Linear, self.summary[-1]).weight)
        readers = config.blocks + config.spotter_layers
        self.plan_norm = nn.ModuleList(nn.LayerNorm(config.world_width) for _ in range(readers))
        self.plan_key_value = nn.ModuleList(nn.Linear(config.world_width, 2 * width) for _ in range(readers))
        for key_value in self.plan_key_value:
            start_small(cast(nn.Linear, key_value))
        self.spot = nn.Parameter(0.02 * torch.randn(1, 1, config.tokens, width))
        self.frame_time = TimeEmbedding(width, extra=2)
        self.row_time = TimeEmbedding(width, extra=1)
        self.embed = nn.Linear(2 * config.action_size, width)
        self.given = nn.Linear(1, width)
        self.level = Mlp(64, width, width)
        self.blocks = nn.ModuleList(ExpertBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.action_size)
        self.shares = nn.Linear(width, 4)  # of the motions to object and target
        nn.init.zeros_(self.shares.weight)
        nn.init.zeros_(self.shares.bias)
        self.register_buffer("action_scale", torch.ones(rows, config.action_size))
        self.register_buffer("velocity_scale", torch.ones(config.joints))
        self.register_buffer("projection", torch.zeros(3, 4))  # of the tool into the picture, −1 .. 1; zeros: not known
        self.register_buffer("workspace", torch.tensor(WORKSPACE))
        self.register_buffer("modulated", torch.tensor(MODULATED).repeat_interleave(width).repeat(config.blocks), persistent=False)

    # once per plan
    def foresee(self, features: Tensor, known: Tensor) -> Tensor:
        """The world model's features (B, L, F, T, W), and where things are in the pictures it imagined between (B, 2, 3 K), to a plan's
        features (B, L + 1, F, T, W): the last begin with where things are in each frame, (B, F, 3 K)."""
        read = self.reader(features[:, -1], known)
        plane = functional.pad(read, (0, features[0, 0, 0].numel() - read.shape[-1])).unflatten(-1, features.shape[3:])
        return torch.cat([features, plane.unsqueeze(1)], 1)

    def plan_keys(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """A plan's features (B, L + 1, F, T, W) → keys and values (B, L + S + 1, F, T, E) for the L blocks and, of the last, the S spotter
        layers; the values behind them begin with where things are in each frame."""
        keys, values = [], []
        for reader, (norm, key_value) in enumerate(zip(self.plan_norm, self.plan_key_value, strict=True)):
            key, value = key_value(norm(features[:, min(reader, self.config.blocks - 1)])).chunk(2, -1)
            keys.append(key)
            values.append(value)
        read = features[:, -1].flatten(2)[..., : 3 * self.config.keypoints]
        keys.append(torch.zeros_like(keys[0]))
        values.append(functional.pad(read, (0, values[0][0, 0].numel() - read.shape[-1])).unflatten(-1, values[0].shape[2:]))
        return torch.stack(keys, 1) + self.spot.unsqueeze(1), torch.stack(values, 1)

    def told(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, L + S, F, 1, E) of a plan of which no more is known than where things are in each frame, (B, F, 3 K); one
        token a frame stands for all of its tokens."""
        empty = self.spot.new_zeros(1, self.config.world_width)
        parts = [key_value(norm(empty)) for norm, key_value in zip(self.plan_norm, self.plan_key_value, strict=True)]
        keys, values = torch.cat(parts).chunk(2, -1)
        shape = (len(read), -1, read.shape[1], -1, -1)
        keys = keys[None, :, None, None] + self.spot.mean(2, keepdim=True).unsqueeze(1)
        return keys.expand(*shape), values[None, :, None, None].expand(*shape)

    # once per live frame
    def observe(self, pictures: Tensor) -> LiveTokens:
        """Pictures (B, 3, 128, 128) in 0 .. 1."""
        return self.live(pictures)

    # every tick
    def context(
        self,
        plan: tuple[Tensor, Tensor],
        frame_mask: Tensor,
        frame_times: Tensor,
        live: LiveTokens,
        joints: Tensor,
        velocities: Tensor,
        gripper: Tensor,
        chosen: Tensor | None = None,
    ) -> Context:
        """frame_mask (B, F) 1 = may be seen; frame_times (B, F) steps from now; joints (B, J) rad; velocities rad/s; gripper (B, 1);
        chosen (B, K), in training: 1 for the thing that is handled, where that is known."""
        layers = plan[0].shape[1] - 1  # split, as slices cost a gradient of the whole each
        keys, _ = plan[0].split([layers, 1], 1)
        values, last = plan[1].split([layers, 1], 1)
        read = last.squeeze(1).flatten(2)[..., : 3 * self.config.keypoints]
        return self.context_of((keys, values), read, frame_mask, frame_times, live, joints, velocities, gripper, chosen)

    def context_of(
        self,
        plan: tuple[Tensor, Tensor],
        read: Tensor,
        frame_mask: Tensor,
        frame_times: Tensor,
        live: LiveTokens,
        joints: Tensor,
        velocities: Tensor,
        gripper: Tensor,
        chosen: Tensor | None,
    ) -> Context:
        """As `context`, of a plan's keys and values (B, L + S, F, T, E) and of where it has things, read (B, F, 3 K)."""
        blocks, dense = self.config.blocks, torch.zeros_like(frame_times)
        dense[:, : self.config.dense_latents] = 1.0
        time = self.frame_time(frame_times, dense, frame_times / 100.0).unsqueeze(2).unsqueeze(1)
        layers, tokens = plan[0].shape[1], plan[0].shape[3]
        keys, values = ((part + time).split([blocks, layers - blocks], 1) for part in plan)
        chain = self.kinematics(joints)
        shift = self.shift(live, chain.tool)
        things, agenda, courses = self._things(live, shift, read, frame_mask, frame_times)
        live = live._replace(points=_surely(live.points - shift.repeat(1, POINTS), live.sure))
        own = self._own_tokens(live, shift, chain, joints, velocities, gripper)
        hidden, goal_mask = (1.0 - frame_mask).repeat_interleave(tokens, 1), frame_mask[:, -1:]
        if tokens < self.config.tokens:  # each stands for several
            hidden = hidden + math.log(self.config.tokens / tokens) / MASKED
        present = torch.cat([live.tokens, things, agenda, own], 1)
        unseen = torch.zeros_like(present[..., 0])
        if (few := live.tokens.shape[1]) < (all_of := self.live.position.shape[1]):
            unseen[:, :few] = math.log(all_of / few) / MASKED
        mask = _mask(hidden, unseen)
        planned = (part[1].flatten(2, 3) for part in (keys, values))
        spotted = self.spotter(*planned, mask, present, things, courses, chosen)
        found, target = (self.unprojected(spotted.points, spotted.heights) + OBJECT_SCALE * spotted.offsets).unbind(1)
        ways, motions = self._ways(joints, chain, found.detach(), target.detach())
        motions = torch.cat([motions[:, :2], motions[:, 2:] * goal_mask.unsqueeze(-1)], 1)
        known = torch.cat([present, ways[:, :2], ways[:, 2:] * goal_mask.unsqueeze(-1), spotted.answers], 1)
        unseen = functional.pad(unseen, (0, known.shape[1] - present.shape[1]))
        unseen[:, -4:-2] = 1.0 - goal_mask
        keys, values = self._keys_and_values((keys[0], values[0]), known)
        summary = self.summary(known[:, present.shape[1] - own.shape[1] :].flatten(1))
        modulation = functional.linear(summary, self._modulating("weight"))
        return Context(keys, values, _mask(hidden, unseen), modulation, found, target, spotted.choice, motions)

    def shift(self, live: LiveTokens, tool: Tensor) -> Tensor:
        """(B, 2): how far the picture is from where the camera of the training would show the tool (B, 3) m, in −1 .. 1 units.

        The tool's place is known from the joints; where it is seen, the last of the taught key points, tells how the camera differs.
        """
        expected, known = self.projected(tool)
        return known * live.sure[:, -1:] * believed_shift(live.taught[:, -1] - expected)

    def projected(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Where the camera of the training shows places (B, 3) m: (B, 2) in −1 .. 1, and 1 where that is known, (B, 1)."""
        ahead = functional.linear(functional.pad(places, (0, 1), value=1.0), self.projection)
        depth = ahead[:, 2:]
        known = (depth.abs() > 1e-6).to(depth.dtype)
        return ahead[:, :2] / (depth + (1.0 - known)), known

    def unprojected(self, points: Tensor, heights: Tensor) -> Tensor:
        """Places (B, N, 3) m in the arm's base frame, which the camera of the training shows at points (B, N, 2), heights (B, N) m above
        the base's foot: P[i] X = points[i] P[2] X for both i, solved for x and y. Where that is not known, the middle of the workspace."""
        first, second = (self.projection[i] - points[..., i : i + 1] * self.projection[2] for i in range(2))  # (B, N, 4) each
        one, other = (-(row[..., 2] * heights + row[..., 3]) for row in (first, second))
        scale = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
        known = (scale.abs() > 1e-6).to(scale.dtype)
        scale = scale + (1.0 - known)
        x = (one * second[..., 1] - first[..., 1] * other) / scale
        y = (first[..., 0] * other - one * second[..., 0]) / scale
        places = torch.stack([x, y], -1).clamp(-FAR, FAR) * known.unsqueeze(-1) + self.workspace[:2] * (1.0 - known).unsqueeze(-1)
        return torch.cat([places, heights.unsqueeze(-1)], -1)

    def _things(
        self, live: LiveTokens, shift: Tensor, read: Tensor, frame_mask: Tensor, frame_times: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, K, W): where each kind of thing is in the picture, how it looks, and where the plan's frames have it instead;
        one of all together (B, 1, W), from which to tell whose turn it is; and where each is now and at the plan's end (B, K, 4)."""
        u, v, sure = read.transpose(1, 2).chunk(3, 1)  # (B, K, F)
        shown, there = frame_mask.unsqueeze(1) * sure, live.sure.unsqueeze(-1)
        ways = zip((u, v), live.taught.unbind(-1), strict=True)
        away = [WAY_SCALE * shown * there * (imagined - place.unsqueeze(-1)) for imagined, place in ways]
        times = (frame_mask * frame_times / 50.0).unsqueeze(1).expand_as(shown)
        ahead = torch.cat([*away, shown, frame_mask.unsqueeze(1).expand_as(shown), times], -1)
        here = WAY_SCALE * there * (live.taught - shift.unsqueeze(1))
        agenda = self.agenda(torch.cat([ahead, here, there], -1).flatten(1)).unsqueeze(1)
        end = torch.stack([here[..., i] + away[i][..., -1] for i in range(2)], -1)
        things = self.thing(torch.cat([here, there, there * live.things], -1)) + self.kind + self.foreseen(ahead)
        return things, agenda, torch.cat([here, end], -1)

    def _ways(self, joints: Tensor, chain: Chain, found: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, 4, W): two of the way to the object, two of those to the target and from object to target; and the joint motions
        (B, 4, J)."""
        spots, motions = self._spots(joints, chain, found, target)
        reach = self.reach(spots[:, 0]).unflatten(-1, (2, -1))
        carry = self.carry(torch.cat([spots[:, 1], 10 * (target - found)], -1)).unflatten(-1, (2, -1))
        return torch.cat([reach, carry], 1), motions

    def _keys_and_values(self, plan: tuple[Tensor, Tensor], tokens: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Of all blocks at once, which costs a tick a quarter of the calls: a list of (B, heads, N, D) each."""
        c, layers = self.config, [cast(ExpertBlock, block).live_key_value for block in self.blocks]
        shape = (2, c.blocks * c.expert_heads, -1)
        weight, bias = (_keys_first([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        live = functional.linear(tokens, weight, bias).unflatten(-1, shape).permute(2, 0, 3, 1, 4)
        known = [part.flatten(2, 3).unflatten(-1, (c.expert_heads, -1)).transpose(2, 3).flatten(1, 2) for part in plan]
        keys, values = (torch.cat([old, new], 2).chunk(c.blocks, 1) for old, new in zip(known, live, strict=True))
        return keys, values

    def _modulating(self, name: str) -> Tensor:
        """Weights (L · 8 W, W) or biases of all blocks' modulations."""
        return torch.cat([getattr(cast(ExpertBlock, block).modulation.linear, name) for block in self.blocks])

    def _modulations(self, condition: Tensor, summarised: Tensor) -> list[Sequence[Tensor]]:
        """Of all blocks at once, from (B, W) and what the context's summary adds (B, L · 8 W), the same in all steps of the flow."""
        own = functional.linear(condition, self._modulating("weight"), self._modulating("bias") + self.modulated)
        parts = len(MODULATED)
        found = (own + summarised).unsqueeze(1).chunk(parts * len(self.blocks), -1)
        return [found[parts * i : parts * (i + 1)] for i in range(len(self.blocks))]

    def _own_tokens(
        self, live: LiveTokens, shift: Tensor, chain: Chain, joints: Tensor, velocities: Tensor, gripper: Tensor
    ) -> Tensor:
        """Tokens (B, 4, W) of the arm's own state."""
        axes = [chain.axes[..., 2], chain.axes[..., 0]]  # approach, across
        moving = velocities / self.velocity_scale
        state = torch.cat([joints.sin(), joints.cos(), moving, gripper, 3 * chain.tool, *axes, live.points, 4 * shift], -1)
        return self.state(state).unflatten(-1, (4, -1))

    def _spots(self, joints: Tensor, chain: Chain, found: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, SPOT_FEATURES): the ways from the tool to object and target, and the joint motions to there and above; and these alone,
        (B, 4, J)."""
        ways = torch.stack([found, target], 1) - chain.tool.unsqueeze(1)
        above = ways + torch.tensor(HOVER, device=ways.device)
        places = chain.tool.unsqueeze(1) + torch.cat([ways, above], 1)
        motions = self.kinematics.reaching(joints, chain, places).clamp(-2.0, 2.0)
        both = torch.cat([motions[:, :2], motions[:, 2:]], -1)
        features = torch.cat([10 * ways, fourier(ways, 8, longest=1.0).flatten(2), 4 * both], -1)
        return features, motions[:, [0, 2, 1, 3]]

    def denoise(
        self,
        context: Context,
        noisy: Tensor,
        given: Tensor,
        given_mask: Tensor,
        row_times: Tensor,
        action_level: Tensor,
        plan_level: Tensor,
    ) -> Tensor:
        """x̂₁ (B, R, A) from noisy (B, R, A), given actions (B, R, A) where given_mask (B, R) is 1, row_times (B, R) steps from now.

        action_level τ (B,) from 0 (noise) to 1; plan_level σ (B,) of the plan's features, 1 = one pass from pure noise.
        """
        known = given_mask.unsqueeze(-1)
        mixed = torch.cat([torch.where(known > 0.5, given, noisy), given * known], -1)
        distal = torch.zeros_like(row_times)
        distal[:, self.config.chunk_steps :] = 1.0
        x = self.embed(mixed) + self.given(known) + self.row_time(row_times, distal)
        condition = self.level(torch.cat([fourier(action_level, longest=2.0), fourier(plan_level, longest=2.0)], -1))
        modulations = self._modulations(condition, context.modulation)
        for block, key, value, modulation in zip(self.blocks, context.keys, context.values, modulations, strict=True):
            x = block(x, key, value, context.mask, modulation)
        x = self.norm(x)
        moved = self.shares(x) @ context.motions / self.action_scale[:, :-1]
        return self.head(x) + functional.pad(moved, (0, 1))

    def normalise(self, actions: Tensor, joints: Tensor) -> Tensor:
        """Absolute actions (B, R, A): joints rad and gripper 0 .. 1 → relative to joints (B, J), about unit variance."""
        relative = torch.cat([actions[..., :-1] - joints.unsqueeze(1), 2 * actions[..., -1:] - 1], -1)
        return relative / self.action_scale

    def denormalise(self, actions: Tensor, joints: Tensor) -> Tensor:
        """The inverse of `normalise`; the gripper is clipped to 0 .. 1."""
        relative = actions * self.action_scale
        return torch.cat([relative[..., :-1] + joints.unsqueeze(1), ((relative[..., -1:] + 1) / 2).clamp(0, 1)], -1)

    def sample(
        self,
        context: Context,
        noise: Tensor,
        given: Tensor,
        given_mask: Tensor,
        row_times: Tensor,
        plan_level: Tensor,
    ) -> Tensor:
        """Euler integration of the flow from `noise` (B, R, A) in `flow_steps` steps, unrolled."""
        x = noise
        steps = self.config.flow_steps
        for n in range(steps):
            tau = n / steps
            clean = self.denoise(context, x, given, given_mask, row_times, torch.full_like(plan_level, tau), plan_level)
            x = x + (clean - x) / (1 - tau) / steps
        return torch.where(given_mask.unsqueeze(-1) > 0.5, given, x)


def _surely(points: Tensor, sure: Tensor) -> Tensor:
    """Key points (B, 2 · POINTS): those that may be nowhere (B, K) count by how sure they are."""
    both = torch.stack([sure, sure], -1).flatten(1)
    return points * functional.pad(both, (0, points.shape[-1] - both.shape[-1]), value=1.0)


def _mask(hidden: Tensor, others: Tensor) -> Tensor:
    """(B, 1, 1, N): what is added to the logits of plan tokens and of others, (B, N) 1 = not to be seen."""
    return (MASKED * torch.cat([hidden, others], 1)).unsqueeze(1).unsqueeze(1)


def _keys_first(parts: list[Tensor]) -> Tensor:
    """The keys' halves of all blocks' weights or biases, then the values'."""
    keys, values = zip(*(part.chunk(2) for part in parts), strict=True)
    return torch.cat([*keys, *values])
