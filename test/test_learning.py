"""Training, export and serving on a few episodes and a few steps: everything but the time it takes."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_dataset import episode

torch = pytest.importorskip("torch")

from act2goal_ros.cli.export import command as export_command  # noqa: E402
from act2goal_ros.learning import batches, released, train  # noqa: E402
from act2goal_ros.learning.arrival import Arrival  # noqa: E402
from act2goal_ros.learning.augment import relight  # noqa: E402
from act2goal_ros.learning.batches import AGES, HOLD_STEPS, Episodes, Sampler, arrival  # noqa: E402
from act2goal_ros.learning.dataset import Episode, write_shard  # noqa: E402
from act2goal_ros.learning.distill import Student  # noqa: E402
from act2goal_ros.learning.system import System, load  # noqa: E402
from act2goal_ros.model.autoencoder import Autoencoder  # noqa: E402
from act2goal_ros.model.config import ConfigError, ModelConfig  # noqa: E402
from act2goal_ros.model.kinematics import ForwardKinematics  # noqa: E402
from act2goal_ros.model.msth import SPACINGS, frame_offsets, select  # noqa: E402
from act2goal_ros.serving import reference  # noqa: E402
from act2goal_ros.serving.backends import make_runner  # noqa: E402
from act2goal_ros.serving.bundle import ModelBundle, ModelError  # noqa: E402
from act2goal_ros.serving.export import _shaken, _unsteadiness, export  # noqa: E402
from act2goal_ros.serving.policy import Proprio  # noqa: E402
from act2goal_ros.serving.runner import BackendError  # noqa: E402

SMALL = ModelConfig(world_width=48, world_heads=4, expert_width=32, blocks=2, live_width=8, autoencoder_width=8)


def large_frames(e: Episode) -> Episode:
    frames = np.repeat(np.repeat(e.frames, 8, 1), 8, 2)
    return Episode(**{**e.__dict__, "frames": frames})


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder / "00000", [large_frames(episode(40 + HOLD_STEPS, seed)) for seed in range(4)])
    found = Episodes(folder)
    generator = np.random.default_rng(0)
    found.latents = [generator.normal(size=(len(e.frames), 8, 8, 8)).astype(np.float16) for e in found.all]
    return found


@pytest.fixture(scope="module")
def system(episodes: Episodes) -> System:
    torch.manual_seed(0)
    made = System(SMALL)
    train.prepare(made, episodes)
    return made


@pytest.fixture(scope="module")
def folder(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    export(system, made, {"name": "small", "robots": ["ur5e_sim"]})
    return made


def test_what_is_hidden_of_a_plan_does_not_matter(episodes: Episodes, system: System) -> None:
    batch, expert = Sampler(episodes, [0, 1], SMALL, 0).batch(1), system.expert
    live = expert.observe(batch.pictures[:1])

    def actions(shift: float, mask: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        features = torch.randn(1, *replace(SMALL, located=True).served_features)
        features[:, :, -2:] += shift * torch.randn_like(features[:, :, -2:])
        state = (batch.joints[:1], batch.velocities[:1], batch.gripper[:1])
        context = expert.context(expert.plan_keys(features), mask, batch.frame_times[:1], live, *state)
        noise = torch.zeros(1, 19, SMALL.action_size)
        return expert.sample(context, noise, noise, torch.zeros(1, 19), batch.row_times[:1], torch.ones(1))

    with torch.no_grad():
        all_seen, last_hidden = torch.ones(1, SMALL.frames), torch.ones(1, SMALL.frames)
        last_hidden[:, -2:] = 0
        torch.testing.assert_close(actions(0.0, last_hidden), actions(3.0, last_hidden))
        assert (actions(0.0, all_seen) - actions(3.0, all_seen)).abs().max() > 1e-3


def test_same_seed_same_batches(episodes: Episodes) -> None:
    first, second = (Sampler(episodes, [0, 1, 2], SMALL, 5).batch(3) for _ in range(2))
    assert torch.equal(first.actions, second.actions)
    assert torch.equal(first.pictures, second.pictures)
    assert first.pictures.shape == (3 * len(AGES), 3, 128, 128)
    assert not torch.equal(first.actions, Sampler(episodes, [0, 1, 2], SMALL, 6).batch(3).actions)


def test_disturbed_commands_are_not_learnt(episodes: Episodes) -> None:
    batch = Sampler(episodes, [0], SMALL, 0).batch(8)
    disturbed = {tuple(row) for row, bad in zip(episodes.all[0].command, episodes.all[0].disturbed, strict=True) if bad}
    for actions, weights in zip(batch.actions[:, :16], batch.weights[:, :16], strict=True):
        for action, weight in zip(actions, weights, strict=True):
            assert (weight == 0) == (tuple(action.numpy()) in disturbed)


def milestone_sampler(
    tmp_path: Path, milestones: tuple[int, ...], config: ModelConfig = SMALL, **changes: np.ndarray
) -> Sampler:
    made = replace(large_frames(episode(120, 1)), milestones=milestones)
    plain = {"disturbed": np.zeros(120, bool), "target": np.arange(360, dtype=np.float32).reshape(120, 3)}
    made = replace(made, **{**plain, **changes})
    write_shard(tmp_path / f"{len(milestones):05d}", [made])
    found = Episodes(tmp_path)
    found.latents = [np.broadcast_to(np.arange(60, dtype=np.float32)[:, None, None, None], (60, 8, 8, 8))]  # a latent tells its frame
    return Sampler(found, [0], config, 0)


def test_what_is_done_on_the_way_is_a_goal_too(tmp_path: Path) -> None:
    batch = milestone_sampler(tmp_path, (40, 71)).batch(400)
    start, goal = 2 * batch.current[:, 0, 0, 0].numpy(), 2 * batch.goal[:, 0, 0, 0].numpy()
    reached = start + batch.arrival.numpy()
    for step in (40, 70):  # of frames
        chosen = goal == step
        assert chosen.sum() > 10 and (start[chosen] < step).all(), "a milestone is the goal of what comes before it"
        np.testing.assert_array_equal(reached[chosen], step)
        assert (2 * batch.future[chosen].numpy() <= step).all(), "nothing after it is imagined"
    assert set(goal[goal < 102]) == {40, 70} and (goal >= 102).sum() > (goal < 102).sum(), "the end is one more often"


@pytest.mark.parametrize("spacing", SPACINGS)
def test_plans_their_ages_and_what_is_seen_of_them_are_msth_s(spacing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for share in ("FRAME_DROPOUT", "END_DROPOUT", "PLAN_DROPOUT"):
        monkeypatch.setattr(batches, share, 0.0)
    c, views = replace(SMALL, spacing=spacing), len(AGES)
    sampler = milestone_sampler(tmp_path, (), c)
    batch, commands = sampler.batch(100), sampler._episodes.all[0].command
    start, goal = 2 * batch.current[:, 0, 0, 0].numpy(), 2 * batch.goal[:, 0, 0, 0].numpy()
    offsets, seen_ages = batch.offsets.numpy(), set()
    for plan in range(100):
        expected = frame_offsets(float(batch.arrival[plan]), c.vision_stride, c.dense_frames, c.distal_frames, c.spacing)
        np.testing.assert_array_equal(offsets[plan], expected)
        frames = np.minimum(start[plan] + expected, goal[plan]) // 2
        np.testing.assert_array_equal(batch.future[plan, :, 0, 0, 0], frames)
        for view, (_, oldest) in enumerate(AGES):
            row = plan * views + view
            age = expected[0] - float(batch.frame_times[row, 0])
            assert 0 <= age <= oldest and batch.live[row, 0, 0, 0] == (start[plan] + age) // 2
            np.testing.assert_array_equal(batch.frame_times[row], expected - age)
            rows = np.concatenate([np.arange(1, c.chunk_steps + 1), (expected - age)[c.dense_frames :]])
            np.testing.assert_array_equal(batch.row_times[row], rows)
            when = np.clip(start[plan] + age + rows, 0, 119).astype(int)  # proximal, then distal actions
            np.testing.assert_array_equal(batch.actions[row], commands[when])
            seen = select(expected, c.dense_frames, age, c.chunk_steps, c.distal_frames)
            np.testing.assert_array_equal(batch.frame_mask[row].numpy() > 0, seen.mask(c.frames))
            seen_ages.add(age)
    assert len(seen_ages) > 8, "the plan was made a while ago"


def test_light_changes_picture_by_picture_and_in_training_only(system: System, episodes: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pictures = 0.2 + 0.6 * torch.rand(400, 3, 4, 4)
    changed = relight(pictures)
    same = (changed == pictures).flatten(1).all(1)
    assert 0.4 < same.float().mean() < 0.6 and 0.0 <= changed.min() and changed.max() <= 1.0
    brighter = (changed - pictures).flatten(1).mean(1)[~same]
    assert brighter.std() > 0.05 and (brighter > 0).any() and (brighter < 0).any()
    calls = []
    monkeypatch.setattr("act2goal_ros.learning.system.relight", lambda given: calls.append(len(given)) or given)
    batch = Sampler(episodes, [0], SMALL, 0).batch(1)
    system.train().losses(batch)
    assert calls == [len(AGES)]
    with torch.no_grad():
        system.eval().losses(batch)
    assert calls == [len(AGES)]


def test_a_block_of_the_expert_reads_its_block_of_the_world_model(system: System) -> None:
    torch.manual_seed(0)
    features = torch.randn(1, *replace(SMALL, located=True).served_features)
    with torch.no_grad():
        keys, values = system.expert.plan_keys(features)
        for block in range(SMALL.blocks):
            other = features.clone()
            other[:, block] += torch.randn_like(other[:, block])
            changed = [(new - old).abs().amax((0, 2, 3, 4)) > 0 for new, old in
                       zip(system.expert.plan_keys(other), (keys, values), strict=True)]  # fmt: skip
            last = block == SMALL.blocks - 1  # also read by the spotter's layers
            expected = [layer == block or (last and SMALL.blocks <= layer < SMALL.blocks + SMALL.spotter_layers)
                        for layer in range(keys.shape[1])]  # fmt: skip
            assert [part.tolist() for part in changed] == [expected, expected]


def test_a_milestone_with_the_arm_elsewhere_is_the_goal_more_often(tmp_path: Path) -> None:
    """With the gripper above what it has placed a goal tells by the gripper where that was."""
    paused = (np.arange(120) >= 60) & (np.arange(120) < 70)
    sampler = milestone_sampler(tmp_path, (40, 70), disturbed=paused)
    goals = [sampler._goal(0, 4)[0] for _ in range(1000)]
    assert 2.5 < goals.count(70) / goals.count(40) < 6.0


def test_what_a_goal_does_not_show_is_not_asked_for(tmp_path: Path) -> None:
    """In the pause before a milestone the next object is chosen already; and without the goal no target is known."""
    target = np.repeat((np.arange(120) >= 50).astype(np.float32)[:, None], 3, 1)  # another object's from step 50 on
    sampler = milestone_sampler(tmp_path, (70,), target=target)
    for _ in range(50):
        goal, _, _, labelled = sampler._goal(0, 4)
        assert labelled == (50 if goal == 70 else 120)
    batch, seen = sampler.batch(200), 0
    goal = (2 * batch.goal[:, 0, 0, 0]).repeat_interleave(len(AGES))
    now, hidden = 2 * batch.live[:, 0, 0, 0], batch.frame_mask[:, -1] == 0
    for of, step, hides, cube, place in zip(goal.tolist(), now.tolist(), hidden.tolist(), batch.cube, batch.target, strict=True):
        later = of == 70 and step >= 50
        assert bool(cube.isnan().all()) == later and bool(place.isnan().all()) == (later or hides)
        seen += later
    assert seen > 5


def test_commands_after_a_milestone_are_not_learnt_for_it(tmp_path: Path) -> None:
    sampler = milestone_sampler(tmp_path, (40,))
    commands = {tuple(row): i for i, row in enumerate(sampler._episodes.all[0].command)}
    batch, views = sampler.batch(300), len(AGES)
    seen = 0
    for plan, goal in enumerate((2 * batch.goal[:, 0, 0, 0]).tolist()):
        rows = slice(plan * views, (plan + 1) * views)
        for actions, weights, live in zip(batch.actions[rows], batch.weights[rows], batch.live[rows], strict=True):
            now = 2 * int(live[0, 0, 0])
            steps = [commands[tuple(action.numpy())] for action in actions[:16]]
            if goal == 40:
                assert now <= 40 and max(steps) <= 40
                assert all((weight > 0) == (now + row + 1 <= 40) for row, weight in enumerate(weights[:16].tolist()))
                seen += 1
            else:
                assert (weights[:16] > 0).all(), "at the end the arm is to stay"
    assert seen > 30


def test_targets_are_those_of_the_live_frame(tmp_path: Path) -> None:
    batch = milestone_sampler(tmp_path, (40,)).batch(20)
    now = 2 * batch.live[:, 0, 0, 0].numpy()
    known = batch.frame_mask[:, -1].numpy() > 0
    now, step = now[known], (batch.target[:, 2].numpy()[known] - 2) / 3  # z is the same in the base frame
    assert np.isin(step - now, (0, 1)).all() and (step == now).mean() > 0.8, "the last step of an episode is seen on the frame before it"


def test_milestones_change_nothing_where_there_are_none(episodes: Episodes) -> None:
    """Single cubes have none: the same random numbers give the same plans as before there were any."""
    sampler = Sampler(episodes, [0, 1, 2], SMALL, 5)
    generator = np.random.default_rng(11)
    sampler._generator = np.random.default_rng(11)
    assert [sampler._goal(1, 4)[0] for _ in range(5)] == [
        int(generator.integers(episodes.arrivals[1] + 2, len(episodes.all[1]))) for _ in range(5)
    ]


def test_every_part_gets_a_gradient(system: System, episodes: Episodes) -> None:
    losses = system.losses(Sampler(episodes, [0, 1, 2], SMALL, 0).batch(2))
    assert set(losses) == {"video", "action", "distance", "cube", "target", "choice", "imagined", "seen"}
    system.zero_grad()
    sum(losses.values()).backward()
    still = [n for n, p in system.named_parameters() if p.grad is None and not n.startswith("autoencoder.")]
    assert still == []


def test_the_action_loss_reaches_the_world_model(system: System, episodes: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for plans of which nothing is told but where things are."""
    monkeypatch.setattr("act2goal_ros.learning.system.BLIND", 0.0)
    system.zero_grad()
    system.losses(Sampler(episodes, [0, 1, 2], SMALL, 0).batch(2))["action"].backward()
    assert system.world.blocks[0].qkv.weight.grad.abs().sum() > 0


def test_normalised_actions_come_back(system: System) -> None:
    actions = torch.rand(2, 19, 7)
    joints = torch.randn(2, 6)
    back = system.expert.denormalise(system.expert.normalise(actions, joints), joints)
    assert torch.allclose(back, actions, atol=1e-5)


def test_training_goes_on_where_it_stopped(episodes: Episodes, tmp_path: Path) -> None:
    weights = {"video": 1.0, "action": 1.0, "distance": 0.5, "cube": 0.2, "target": 0.2, "choice": 0.1, "imagined": 0.1, "seen": 0.1}
    torch.manual_seed(0)
    system = System(SMALL)
    train.prepare(system, episodes)
    train.train_system(episodes, system, tmp_path, train.Schedule(minutes=10, steps=2, batch=2), weights, "stage1")
    before = load(tmp_path / "stage1.pt")
    train.train_system(episodes, System(SMALL), tmp_path, train.Schedule(minutes=10, steps=3, batch=2), weights, "stage1")
    after = load(tmp_path / "stage1.pt")
    assert (before["steps"], after["steps"]) == (2, 3)
    assert after["elapsed"] > before["elapsed"]


def test_a_student_learns_the_teacher_s_actions_in_one_step(episodes: Episodes) -> None:
    torch.manual_seed(0)
    teacher = System(replace(SMALL, flow_steps=3))
    train.prepare(teacher, episodes)
    for parameter in teacher.expert.parameters():  # away from the zeros it is initialised with
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    student = Student(teacher, flow_steps=1)
    assert student.state_dict().keys() == teacher.state_dict().keys() and student.config.flow_steps == 1
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(40):
        torch.manual_seed(1)
        loss = student.losses(Sampler(episodes, [0, 1], SMALL, seed=1).batch(2))["action"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    for name, value in teacher.state_dict().items():
        unchanged = torch.equal(value, student.state_dict()[name])
        assert unchanged or name.startswith(("expert.blocks", "expert.embed", "expert.head", "expert.norm", "expert.level", "expert.given",
                                             "expert.row_time", "expert.frame_time", "expert.reach", "expert.carry", "expert.summary",
                                             "expert.shares"))


def test_the_temporal_distance_learns_alone_from_where_things_are(episodes: Episodes) -> None:
    """Pictures that differ in a shadow alone: with the same latents, only the places tell what is done."""
    torch.manual_seed(0)
    trained = System(SMALL)
    latent, kinds = torch.randn(2, *SMALL.latent_shape), SMALL.keypoints
    here = torch.cat([0.6 * torch.rand(2, 2 * kinds) - 0.3, torch.ones(2, kinds)], 1)
    there = here + torch.tensor([[0.0], [1.0]]) * torch.cat([torch.full((1, 2 * kinds), 0.3), torch.zeros(1, kinds)], 1)
    before = trained.distance(latent, latent, here, here)
    assert torch.equal(before, trained.distance(latent, latent, here, there)), "as good as it was, at first"
    unseen = torch.cat([torch.rand(2, 2 * kinds), torch.full((2, kinds), 0.2)], 1)
    alone = Arrival(trained)
    optimizer = torch.optim.Adam([p for p in alone.parameters() if p.requires_grad], 5e-3)
    for _ in range(60):
        found = alone.distance(latent, latent, here, there)
        optimizer.zero_grad()
        (found - torch.tensor([0.0, 4.0])).square().sum().backward()
        optimizer.step()
    assert alone.distance(latent, latent, here, there).tolist() == pytest.approx([0.0, 4.0], abs=0.3)
    assert torch.equal(alone.distance(latent, latent, unseen, unseen), alone.distance(latent, latent, 0 * unseen, 0 * unseen))
    for name, value in trained.state_dict().items():
        assert name.startswith("distance.") or torch.equal(value, alone.state_dict()[name]), name
    assert alone.losses(Sampler(episodes, [0, 1], SMALL, seed=1).batch(2)).keys() == {"distance"}


def test_a_configuration_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="chunk_steps 10 is not a multiple of vision_stride 8"):
        ModelConfig(chunk_steps=10)
    with pytest.raises(ConfigError, match="unknown configuration fields.*'colour'"):
        ModelConfig.from_dict({"colour": 1})


def test_served_plan_and_chunk(folder: Path) -> None:
    bundle = ModelBundle.load(folder, "ur5e_sim")
    imagination, policy = bundle.imagination(), bundle.policy()
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    live, goal = imagination.encode(image), imagination.encode(image[:, ::-1].copy())
    plan = imagination.imagine(live, goal, seed=1)
    assert np.array_equal(plan.features, imagination.imagine(live, goal, seed=1).features)
    assert not np.array_equal(plan.features, imagination.imagine(live, goal, seed=2).features)
    assert imagination.decode(plan.latents).shape == (6, 64, 64, 3)
    frame, proprio = policy.observe(image), Proprio(np.zeros(6), np.zeros(6), 0.0)
    out = policy.act(policy.set_plan(plan.features), frame, proprio, np.ones(6, bool), plan.offsets)
    assert out.positions.shape == (16, 6) and out.gripper.shape == (16,) and out.distal.shape == (3, 7)
    assert ((out.gripper >= 0) & (out.gripper <= 1)).all()
    assert bundle.time_to_goal(live, goal) == pytest.approx(plan.time_to_goal)


def test_a_served_plan_says_where_things_are(folder: Path, system: System) -> None:
    """As torch computes it, in its latents and in its features, of pictures that are larger than the autoencoder's."""
    imagination = ModelBundle.load(folder).imagination()
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    live, goal = (imagination.encode(image) for image in images)
    plan = imagination.imagine(live, goal, seed=1)
    count = 3 * SMALL.keypoints
    told = plan.features[-1].reshape(SMALL.frames, -1)[:, :count]
    np.testing.assert_allclose(plan.latents[:, -1].reshape(SMALL.frames, -1)[:, :count], told, atol=1e-5)
    latents = torch.from_numpy(np.stack([live, goal])[:, None, :-1])
    steps = torch.from_numpy(plan.offsets / SMALL.step).float()[None]
    with torch.no_grad():
        noise = torch.from_numpy(imagination.noise(1)[None, :, :-1])
        _, features = system.world(noise, latents[0], latents[1], steps, torch.ones(1))
        shown = torch.from_numpy(images).permute(0, 3, 1, 2).float()[None] / 255
        known = system.expert.live.located(shown[0])[None]
        expected = system.expert.foresee(features, known)[0, -1].flatten(1)[:, :count]
    np.testing.assert_allclose(told, expected.numpy(), atol=1e-3)


def test_noise_level_as_an_input(system: System, tmp_path: Path) -> None:
    """With one step it is what is served; with more, frames that are denoised on; the tick is told the level."""
    from act2goal_ros.learning.levels import Denoiser, policy_at
    from act2goal_ros.learning.plans import make_planner

    system = copy.deepcopy(system)
    for parameter in system.parameters():  # away from the zeros that modulation is initialised with
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    differences = export(system, tmp_path, {"name": "small", "robots": ["ur5e_sim"]}, levels=True)
    assert released.load(tmp_path)["average"].keys() == system.state_dict().keys(), "a training can start from it"
    assert {"imagine_level", "tick_level"} < set(differences)
    bundle, denoiser = ModelBundle.load(tmp_path), Denoiser.load(tmp_path)
    imagination = bundle.imagination()
    live, goal = np.random.default_rng(0).normal(size=(2, *imagination.config.served_latent)).astype(np.float32)
    served = imagination.imagine(live, goal, 7)
    plans = [make_planner("denoised", imagination, denoiser, steps).plan(live, goal, 7) for steps in (1, 3)]
    np.testing.assert_allclose(plans[0].features, served.features, atol=1e-4)
    np.testing.assert_allclose(plans[0].latents, served.latents, atol=1e-4)
    assert np.abs(plans[1].latents - served.latents).max() > 1e-3
    image, proprio = np.full((128, 128, 3), 90, np.uint8), Proprio(np.zeros(6), np.zeros(6), 0.0)

    def chunk(level: float) -> np.ndarray:
        policy = policy_at(bundle, level)
        keys, frame = policy.set_plan(served.features), policy.observe(image)
        return policy.act(keys, frame, proprio, np.ones(6, bool), served.offsets).positions

    other = bundle.policy()
    as_served = other.act(other.set_plan(served.features), other.observe(image), proprio, np.ones(6, bool), served.offsets).positions
    np.testing.assert_array_equal(chunk(1.0), as_served)
    np.testing.assert_allclose(chunk(1.0 - 1e-7), as_served, atol=1e-4)
    assert np.abs(chunk(0.2) - as_served).max() > 1e-4


def test_an_exported_model_is_exported_again(system: System, tmp_path: Path) -> None:
    """From its weights alone, with another number of flow steps; and what a folder without any is told."""
    weights, made = tmp_path / "weights", tmp_path / "made"
    weights.mkdir()
    arguments = [str(weights), str(made), "--name", "again", "--flow-steps", "2"]
    result = CliRunner().invoke(export_command, arguments)
    assert result.exit_code == 1 and "no checkpoint" in result.output
    released.save(weights, system, system.config.to_dict())
    result = CliRunner().invoke(export_command, arguments)
    assert result.exit_code == 0, result.output
    bundle = ModelBundle.load(made, "ur5e_sim")
    assert bundle.config.flow_steps == 2 and bundle.manifest["training"] == {"from": "weights"}


def test_an_export_leaves_no_networks_of_another_in_its_folder(system: System, tmp_path: Path) -> None:
    """Networks that are optional would be taken from it: the noise level as an input."""
    export(system, tmp_path, {"name": "small", "robots": ["ur5e_sim"]})
    (tmp_path / "imagine_level.onnx").write_bytes(b"of another model")
    export(system, tmp_path, {"name": "small", "robots": ["ur5e_sim"]})
    assert not (tmp_path / "imagine_level.onnx").exists()
    assert "imagine_level.onnx" not in json.loads((tmp_path / "manifest.json").read_text())["files"]


def test_latents_are_normal_in_each_of_several_views() -> None:
    """One camera's picture is bright, the other's dark: neither is to change what the other's latents are."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(replace(SMALL, views=2))
    pictures = torch.cat([0.7 + 0.3 * torch.rand(16, 3, 64, 64), 0.2 * torch.rand(16, 3, 64, 64)], dim=2)
    autoencoder.normalise(pictures)
    latents = autoencoder.encode(pictures)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4 and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_the_mean_of_two_trainings_is_exported(system: System, tmp_path: Path) -> None:
    moved = {name: value + 0.02 if value.is_floating_point() else value for name, value in system.state_dict().items()}
    other = copy.deepcopy(system)
    other.load_state_dict(moved)
    for name, each in (("one", system), ("two", other)):
        (tmp_path / name).mkdir()
        released.save(tmp_path / name, each, each.config.to_dict())
    arguments = [str(tmp_path / "one"), str(tmp_path / "made"), "--average", str(tmp_path / "two")]
    result = CliRunner().invoke(export_command, arguments)
    assert result.exit_code == 0, result.output
    found = released.load(tmp_path / "made")["average"]
    for name, value in system.state_dict().items():
        expected = value + 0.01 if value.is_floating_point() else value
        torch.testing.assert_close(found[name], expected, rtol=2e-3, atol=2e-3)
    assert ModelBundle.load(tmp_path / "made").manifest["training"] == {"from": "one", "averaged_with": ["two"]}
    wider = System(replace(SMALL, expert_width=64))
    (tmp_path / "wider").mkdir()
    released.save(tmp_path / "wider", wider, wider.config.to_dict())
    result = CliRunner().invoke(export_command, [*arguments, "--average", str(tmp_path / "wider")])
    assert result.exit_code == 1 and "is of another configuration: expert_width 64 there, 32 here" in result.output



def test_given_actions_are_kept(folder: Path) -> None:
    bundle = ModelBundle.load(folder)
    imagination, policy = bundle.imagination(), bundle.policy()
    image = np.zeros((128, 128, 3), np.uint8)
    plan = imagination.imagine(imagination.encode(image), imagination.encode(image + 9), 0)
    keys, frame = policy.set_plan(plan.features), policy.observe(image)
    prefix = np.array([[0.1, -0.2, 0.3, 0.0, 0.1, 0.2, 1.0]] * 2)
    out = policy.act(keys, frame, Proprio(np.zeros(6), np.zeros(6), 0.0), np.ones(6, bool), plan.offsets, prefix)
    np.testing.assert_allclose(out.positions[:2], prefix[:, :6], atol=1e-5)
    np.testing.assert_allclose(out.gripper[:2], 1.0, atol=1e-5)


def test_a_masked_plan_is_not_seen(folder: Path) -> None:
    """With all frames masked the chunk must not depend on the plan at all: the goal comes through the plan only."""
    bundle = ModelBundle.load(folder)
    imagination, policy = bundle.imagination(), bundle.policy()
    image = np.zeros((128, 128, 3), np.uint8)
    live, frame, proprio = imagination.encode(image), policy.observe(image), Proprio(np.zeros(6), np.zeros(6), 0.0)
    plans = [imagination.imagine(live, imagination.encode(image + shade), 0) for shade in (9, 200)]
    masked = [policy.act(policy.set_plan(p.features), frame, proprio, np.zeros(6, bool), plans[0].offsets) for p in plans]
    seen = [policy.act(policy.set_plan(p.features), frame, proprio, np.ones(6, bool), plans[0].offsets) for p in plans]
    np.testing.assert_allclose(masked[0].positions, masked[1].positions, atol=1e-6)
    assert np.abs(seen[0].positions - seen[1].positions).max() > 1e-5


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "m")
    with (copy / "tick.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"tick\.onnx: SHA-256 is [0-9a-f]{64}, the manifest says [0-9a-f]{64}"):
        ModelBundle.load(copy)


def test_a_missing_file_a_foreign_robot_and_a_newer_format(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is for ur5e_sim, not for robot 'panda'"):
        ModelBundle.load(folder, "panda")
    with pytest.raises(ModelError, match="no model in"):
        ModelBundle.load(tmp_path / "nowhere")
    copy = shutil.copytree(folder, tmp_path / "m")
    (copy / "imagine.onnx").unlink()
    with pytest.raises(ModelError, match=r"imagine\.onnx is missing"):
        ModelBundle.load(copy)
    manifest = json.loads((folder / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(ModelError, match="format 1, this version reads 2"):
        ModelBundle.load(copy)


def test_a_wrong_shape_is_named(folder: Path) -> None:
    runner = make_runner(folder / "distance.onnx")
    with pytest.raises(ValueError, match=r"'current' has shape \(1, 9, 4, 8\), the network takes \(1, 9, 8, 8\)"):
        runner({"current": np.zeros((1, 9, 4, 8), np.float32), "goal": np.zeros((1, 9, 8, 8), np.float32)})


def test_flange_of_the_ur5e_at_zero() -> None:
    """Stretched out along −x: the arm's two long links, and the wrist's offsets, from Universal Robots' parameters."""
    chain = ForwardKinematics()(torch.zeros(1, 6))
    assert torch.allclose(chain.tool[0], torch.tensor([-0.8172, -0.1333 - 0.0996 - 0.1555, 0.1625 - 0.0997]), atol=1e-4)
    assert torch.allclose(chain.axes[0, :, 2], torch.tensor([0.0, -1.0, 0.0]), atol=1e-5)


def test_joint_motions_bring_the_tool_where_it_is_to_be_without_turning_it() -> None:
    """Decimetres away, in one step and in the arm's present configuration; and nothing moves where the tool is there already."""
    kinematics, generator = ForwardKinematics(), torch.Generator().manual_seed(0)
    joints = torch.tensor([[-1.5, -1.8, 1.9, -1.6, -1.57, 0.3]]) + 0.2 * torch.randn(50, 6, generator=generator)
    before = kinematics(joints)
    ways = 0.2 * (torch.rand(50, 2, 3, generator=generator) - 0.5)
    motions = kinematics.reaching(joints, before, before.tool.unsqueeze(1) + ways)
    for number in range(2):
        after = kinematics(joints + motions[:, number])
        torch.testing.assert_close(after.tool - before.tool, ways[:, number], atol=1e-5, rtol=0)
        torch.testing.assert_close(after.axes, before.axes, atol=1e-5, rtol=0)
    assert motions.abs().max() < 1.5, "no other elbow, no other wrist"
    assert kinematics.reaching(joints, before, before.tool.unsqueeze(1)).abs().max() < 1e-4


def test_what_is_out_of_reach_is_pointed_at_with_the_arm_stretched() -> None:
    kinematics, joints = ForwardKinematics(), torch.tensor([[-1.5, -1.8, 1.9, -1.6, -1.57, 0.3]])
    before, place = kinematics(joints), torch.tensor([[[0.3, 1.5, 0.3]]])
    motion = kinematics.reaching(joints, before, place)[:, 0]
    after = kinematics(joints + motion)
    assert abs((joints + motion)[0, 2]) < 1e-3, "the elbow is straight"
    torch.testing.assert_close(after.axes, before.axes, atol=1e-5, rtol=0)
    nearer = (place[:, 0] - before.tool).norm() - (place[:, 0] - after.tool).norm()
    assert 0.4 < nearer and after.tool[0, 1] > 0.8
    anywhere = 2 * torch.pi * (torch.rand(500, 6, generator=torch.Generator().manual_seed(0)) - 0.5)
    anywhere[:100, 4], anywhere[0] = 0.0, 0.0  # a straight wrist, of which two axes are one
    motions = kinematics.reaching(anywhere, kinematics(anywhere), 2 * torch.randn(500, 2, 3))
    assert motions.isfinite().all() and motions.abs().max() <= torch.pi + 1e-5


def test_a_robot_has_arrived_once_it_stays_put() -> None:
    made = episode(60)
    joints = np.zeros_like(made.joints)
    joints[:30, 0] = np.linspace(1.0, 0.0, 30)
    assert arrival(replace(made, joints=joints)) == 29
    joints[:] = 0.0
    assert arrival(replace(made, joints=joints)) == 0
    joints[:55, 0] = 1.0
    assert arrival(replace(made, joints=joints)) == 60 - HOLD_STEPS


def test_what_backends_are_checked_with_is_far_from_decisions() -> None:
    """Near an edge a float16 backend that is right would be refused."""

    class Decides(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (super().forward(x).sum(-1) > 0).float()

    torch.manual_seed(0)
    module = Decides(4, 1, bias=False)
    module.weight.data.fill_(1.0)
    near, far = (torch.tensor([[1.0, 1.0, -1.0, rest]]) for rest in (-1.0001, 2.0))
    shaken = [_shaken(module) for _ in range(8)]
    assert _unsteadiness(module, shaken, (near,)) == 1.0
    assert _unsteadiness(module, shaken, (far,)) == 0.0
    assert all(not torch.equal(other.weight, module.weight) for other in shaken)


def test_what_differs_from_torch_is_not_exported(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference.TOLERANCE, "float32", -1.0)
    with pytest.raises(BackendError, match="encode differs from torch float32 by .*, at most -1 allowed"):
        export(system, tmp_path, {"name": "small", "robots": ["ur5e_sim"]})
    with pytest.raises(ModelError, match="no model in"):
        ModelBundle.load(tmp_path)


def test_what_no_node_serves_is_named_by_the_command(tmp_path: Path) -> None:
    two = replace(SMALL, views=2)
    (tmp_path / "two").mkdir()
    released.save(tmp_path / "two", System(two), two.to_dict())
    outcome = CliRunner().invoke(export_command, [str(tmp_path / "two"), str(tmp_path / "model")])
    assert outcome.exit_code == 1, outcome.output
    assert "Error: served are networks of architecture 'compact' and of one view" in outcome.output
    assert not (tmp_path / "model" / "manifest.json").exists()
