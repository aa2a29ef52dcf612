"""The expert learns to act from where things are, told in place of pictures and of a world model's features."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_dataset import episode

torch = pytest.importorskip("torch")

from training_under_test import TINY  # noqa: E402

from act2goal_ros.cli.train import KNOWN_SHARE, _Run, command  # noqa: E402
from act2goal_ros.learning import acting, fit, system, train  # noqa: E402
from act2goal_ros.learning.acting import Acting, ToldPolicy  # noqa: E402
from act2goal_ros.learning.batches import HOLD_STEPS, Batch, Episodes, Sampler  # noqa: E402
from act2goal_ros.learning.checkpoint import load  # noqa: E402
from act2goal_ros.learning.dataset import KEYPOINTS, Episode, write_shard  # noqa: E402
from act2goal_ros.learning.devices import made_on, make_fabric  # noqa: E402
from act2goal_ros.learning.pictures import chunks  # noqa: E402
from act2goal_ros.learning.recipe import weights  # noqa: E402
from act2goal_ros.learning.schedule import Schedule  # noqa: E402
from act2goal_ros.learning.system import LONGEST, System, misjudged, noisy_actions  # noqa: E402
from act2goal_ros.model.config import PRESETS, ModelConfig  # noqa: E402
from act2goal_ros.model.live import POINTS, LiveTokens  # noqa: E402
from act2goal_ros.serving.policy import Proprio  # noqa: E402


def labelled(seed: int, size: int = 1) -> Episode:
    """Random, with key points; in its pictures is nothing."""
    made, generator = episode(24 + HOLD_STEPS, seed), np.random.default_rng(seed)
    keypoints = generator.random((len(made.frames), len(KEYPOINTS), 3)).astype(np.float32)
    keypoints[..., 2] = keypoints[..., 2] < 0.7
    return replace(made, frames=np.zeros((len(made.frames), size, size, 3), np.uint8), keypoints=keypoints * keypoints[..., 2:])


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder / "00000", [labelled(seed) for seed in range(3)])
    found = Episodes(folder, config=TINY, pictures=False)
    acting.show_nothing(found)
    return found


def prepared(episodes: Episodes, config: ModelConfig = TINY) -> System:
    """Away from the zeros that it is initialised with, so that everything matters; its camera is known."""
    torch.manual_seed(0)
    made = System(config)
    train.prepare(made, episodes)
    for parameter in made.expert.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    made.expert.projection.copy_(torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, -1.3, 1.5, 0.3], [0.0, 0.6, 0.5, -1.0]]))
    return made


def drawn(episodes: Episodes, plans: int = 2) -> Batch:
    return Sampler(episodes, [0, 1], TINY, 0).batch(plans)


# What is told


@pytest.mark.parametrize("tokens", ["many", "one"])
def test_a_told_plan_is_one_of_which_nothing_is_known_but_where_things_are(episodes: Episodes, tokens: str) -> None:
    """One token that stands for all is attended to as much as all of them, of the plan as of the live frame."""
    made, batch = prepared(episodes).eval(), drawn(episodes)
    expert, state = made.expert, (batch.joints, batch.velocities, batch.gripper)
    for several in (expert.spot, expert.live.position):
        several.data.copy_(several.data.mean(-2, keepdim=True).expand_as(several))
    read, count = torch.randn(len(batch.joints), TINY.frames, 3 * TINY.keypoints), len(batch.joints)
    features = torch.zeros(count, *replace(TINY, located=True).served_features)
    features[:, -1].flatten(2)[..., : read.shape[-1]] = read
    live = Acting(made).eval().live(batch.live_keypoints)
    full = live._replace(tokens=expert.live.position.expand(count, -1, -1))
    mask, times = batch.frame_mask, batch.frame_times
    expected = expert.context(expert.plan_keys(features), mask, times, full, *state)
    keys, values = expert.told(read)
    assert keys.shape[3] == values.shape[3] == live.tokens.shape[1] == 1
    if tokens == "many":
        live, keys, values = full, keys.expand(-1, -1, -1, TINY.tokens, -1), values.expand(-1, -1, -1, TINY.tokens, -1)
    found = expert.context_of((keys, values), read, mask, times, live, *state, None)
    for one, other in ((found.found, expected.found), (found.target, expected.target), (found.choice, expected.choice)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    given, given_mask = torch.zeros_like(batch.actions), torch.zeros_like(batch.given_mask)

    def actions(context: Any) -> torch.Tensor:
        return expert.sample(context, torch.zeros_like(given), given, given_mask, batch.row_times, torch.ones(count))

    torch.testing.assert_close(actions(found), actions(expected), atol=1e-5, rtol=1e-4)
    other = expert.context_of((keys, values), read + 0.5, mask, times, live, *state, None)
    assert (actions(other) - actions(found)).abs().max() > 1e-3, "where the plan has things matters"


def test_labels_are_told_as_the_live_encoder_finds_them(episodes: Episodes) -> None:
    """A place in the picture is the mean of the grid's places around it; of what is not there no place is told."""
    model = Acting(System(TINY)).eval()
    rows, columns = (side // system.PLACE for side in TINY.picture_shape)
    grid = model.expert.live.grid.unflatten(0, (rows, columns))
    labels = torch.zeros(1, len(KEYPOINTS), 3)
    labels[0, 0] = torch.tensor([2.5 / columns, 5.5 / rows, 1.0])
    labels[0, 1] = torch.tensor([0.7, 0.7, 0.0])
    live = model.live(labels)
    points = live.points.unflatten(1, (-1, 2))
    assert points.shape == (1, POINTS, 2) and live.sure[0].tolist() == [1.0] + [0.0] * (len(KEYPOINTS) - 1)
    torch.testing.assert_close(points[0, 0], grid[5, 2])
    assert not points[0, 1:].any()
    u, v, sure = model.read(labels.unsqueeze(1))[0, 0].chunk(3)
    torch.testing.assert_close(torch.stack([u[0], v[0]]), grid[5, 2])
    assert sure.tolist() == live.sure[0].tolist() and not u[1:].any() and not v[1:].any()


def test_in_training_what_is_told_is_somewhat_wrong_and_the_goal_less_so_than_the_way(episodes: Episodes) -> None:
    torch.manual_seed(0)
    model, labels = Acting(System(TINY)), torch.full((200, TINY.frames, len(KEYPOINTS), 3), 0.5)
    labels[..., 2] = 1.0
    true = model.eval().read(labels)
    off = (model.train().read(labels) - true)[..., : 2 * len(KEYPOINTS)]
    spread = off.std((0, 2))
    assert 0.5 * acting.GOAL_ERROR < spread[-1] < 2 * acting.GOAL_ERROR < spread[:-1].min() < 2 * acting.IMAGINED_ERROR
    live = model.live(labels[:, 0])
    assert 0.5 * acting.LIVE_ERROR < (live.points - model.eval().live(labels[:, 0]).points)[:, : 2 * len(KEYPOINTS)].std() < 0.02
    assert 0.0 <= live.sure.min() and live.sure.max() <= 1.0 and 0.0 < (live.sure == 0).float().mean() < 0.05, "now and then one is missed"


# Training


def test_every_weight_of_the_expert_that_has_an_input_gets_a_gradient(episodes: Episodes) -> None:
    made, batch = prepared(episodes), drawn(episodes)
    losses = Acting(made).losses(batch)
    assert set(losses) == {"action", "cube", "target", "choice"} and all(bool(value.isfinite()) for value in losses.values())
    sum(losses.values()).backward()
    still = {name for name, parameter in made.named_parameters() if parameter.grad is None}
    others = ("autoencoder.", "world.", "distance.", "readers.", "expert.live.", "expert.reader.")
    assert {name for name in still if not name.startswith(others)} == set()


def test_acting_makes_no_tensor_on_another_device(episodes: Episodes) -> None:
    batch = drawn(episodes)
    there = Batch(**{name: value.to("meta") for name, value in batch.__dict__.items()})
    with made_on(torch.device("meta")):
        losses = Acting(System(TINY).to("meta")).losses(there)
    assert {value.device.type for value in losses.values()} == {"meta"}


def test_episodes_without_labels_among_others_spoil_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no labels, key points are NaN."""
    monkeypatch.setattr(acting, "HELD_OUT_BATCHES", 1)
    write_shard(tmp_path / "data" / "00000", [labelled(0), replace(labelled(1), keypoints=None), labelled(2)])
    found = Episodes(tmp_path / "data", config=TINY, pictures=False)
    acting.show_nothing(found)
    schedule, cadence = Schedule(steps=4, batch=4, learning_rate=1e-3), fit.Cadence(log_steps=1)
    acting.train_acting(found, prepared(found), tmp_path, schedule, weights("shipped", "stage1", {}), make_fabric("cpu"), cadence)
    rows = [line.split(",") for line in (tmp_path / "acting-training.csv").read_text().splitlines()]
    skipped = rows[0].index("skipped")
    assert [row[skipped] for row in rows[1:]] == ["0"] * 4


def test_acting_learns(episodes: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss falls, the live encoder and all but the expert stay as they were, and what was learnt is written."""
    monkeypatch.setattr(acting, "HELD_OUT_BATCHES", 1)
    monkeypatch.setattr(acting, "HELD_OUT_PLANS", 4)
    made, among = prepared(episodes), episodes.split()[0]
    before = {name: value.clone() for name, value in made.state_dict().items()}
    model, batch = Acting(made), Sampler(episodes, among, TINY, 3).batch(8)

    def loss() -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return float(model.eval().losses(batch)["action"])

    start = loss()
    schedule = Schedule(steps=60, batch=4, learning_rate=4e-3, ema=0.9)
    acting.train_acting(episodes, made, tmp_path, schedule, weights("shipped", "stage1", {}), make_fabric("cpu", threads=1), fit.Cadence())
    assert loss() < 0.8 * start
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("expert.") and not name.startswith("expert.live.") for name in changed)
    state = load(tmp_path / "acting.pt")
    assert state["steps"] == 60 and "head.weight" in state["model"] and "live.points.weight" not in state["model"]
    picture = tmp_path / "acting-training.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"


def call(data: Path, run: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(data), str(run), "--device", "cpu", "--batch", "2", *arguments])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands build the smallest model and check little."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    for part in (acting, train):
        monkeypatch.setattr(part, "HELD_OUT_BATCHES", 1)
        monkeypatch.setattr(part, "HELD_OUT_PLANS", 2)


def test_a_stage_goes_on_from_the_part_acting(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains on data without pictures, which the stage, on data with pictures, takes over and changes little by little."""
    blind, seen, run = tmp_path / "blind", tmp_path / "seen", tmp_path / "run"
    write_shard(blind / "00000", [labelled(seed) for seed in range(3)])
    write_shard(seen / "00000", [labelled(seed, TINY.camera_size) for seed in range(3)])
    result = call(blind, run, "--part", "acting", "--steps", "2")
    assert result.exit_code == 0, result.output
    learnt = load(run / "acting.pt")
    assert learnt["steps"] == 2
    given: list[tuple[dict[str, torch.Tensor], float]] = []
    usual = train.train_system

    def watched(episodes: Episodes, made: System, *others: Any) -> System:
        given.append(({name: value.clone() for name, value in made.expert.state_dict().items()}, others[-2]))
        return usual(episodes, made, *others)

    monkeypatch.setattr(train, "train_system", watched)
    result = call(seen, run, "--part", "stage1", "--steps", "1")
    assert result.exit_code == 0 and "goes on from the part acting" in result.output, result.output
    (expert, share), = given
    for name, value in learnt["model"].items():
        assert torch.equal(expert[name], value), name
    assert share == KNOWN_SHARE
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "acting.pt").write_bytes((run / "acting.pt").read_bytes())
    result = call(seen, tmp_path / "round", "--part", "stage1", "--steps", "1", "--start-from", str(run / "stage1.pt"))
    assert result.exit_code == 0 and "new there: nothing" in result.output and "goes on from the part acting" in result.output
    expert, share = given[-1]
    before = load(run / "stage1.pt")["average"]
    for name, value in expert.items():
        assert torch.equal(value, learnt["model"].get(name, before[f"expert.{name}"])), "what acting learnt, on top of all the rest"
    assert share == KNOWN_SHARE
    result = call(seen, tmp_path / "looks", "--part", "looking", "--steps", "1", "--start-from", str(run / "stage1.pt"))
    assert result.exit_code == 0, result.output
    for name, value in load(tmp_path / "looks" / "looking.pt")["model"].items():
        assert torch.allclose(value, before[f"expert.live.{name}"], atol=0.01), f"{name} is not what it started from"
    result = call(seen, tmp_path / "other", "--part", "stage1", "--steps", "1")
    assert result.exit_code == 0 and "acting" not in result.output and given[-1][1] == 1.0, result.output
    result = call(blind, run, "--part", "stage1", "--steps", "1")
    assert result.exit_code == 1 and "was recorded without pictures" in result.output, "a stage needs pictures"


@pytest.mark.parametrize("part", ["stage2", "distilled", "distance"])
def test_later_stages_keep_the_live_encoder_that_they_start_from(
    part: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run's part looking learnt was where stage 1 began; it has gone on from there."""
    seen, run = tmp_path / "seen", tmp_path / "run"
    write_shard(seen / "00000", [labelled(seed, TINY.camera_size) for seed in range(3)])
    for name in ("looking", "stage1"):
        result = call(seen, run, "--part", name, "--steps", "2")
        assert result.exit_code == 0, result.output
    assert "goes on from the part looking" in result.output
    given: list[dict[str, torch.Tensor]] = []

    def watched(_: object, made: System, name: str) -> None:
        given.append({key: value.clone() for key, value in made.expert.live.state_dict().items()})

    monkeypatch.setattr(_Run, "_stage", watched)
    result = call(seen, run, "--part", part, "--steps", "1", "--start-from", str(run / "stage1.pt"))
    assert result.exit_code == 0 and "part looking" not in result.output, result.output
    learnt = load(run / "stage1.pt")["average"]
    for name, value in given[0].items():
        assert torch.equal(value, learnt[f"expert.live.{name}"]), name


def test_a_stage_learns_beside_it_from_data_without_pictures_and_the_part_world_leaves_the_expert_alone(tiny: None, tmp_path: Path) -> None:
    blind, seen, run = tmp_path / "blind", tmp_path / "seen", tmp_path / "run"
    write_shard(blind / "00000", [labelled(seed) for seed in range(3)])
    write_shard(seen / "00000", [labelled(seed, TINY.camera_size) for seed in range(3)])
    assert call(seen, run, "--part", "world", "--steps", "2").exit_code == 0
    learnt = load(run / "world.pt")
    moments = learnt["optimizer"]["state"]
    result = call(seen, run, "--part", "stage1", "--steps", "1", "--states", str(blind))
    assert result.exit_code == 0 and "goes on from the part world" in result.output, result.output
    assert 0 < len(moments) < len(load(run / "stage1.pt")["optimizer"]["state"]), "the expert had no gradient in the part world"
    told = {name for name in load(run / "stage1.pt")["weights"] if name.startswith("told_")}
    assert told == {f"told_{name}" for name in acting.LOSSES}


def test_acting_without_key_points_says_what_is_missing(tiny: None, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "0", [episode(24 + HOLD_STEPS, seed) for seed in range(2)])
    result = call(tmp_path / "data", tmp_path / "run", "--part", "acting", "--steps", "1")
    assert result.exit_code == 1 and "no episode has key points, at least 1 needed" in result.output
    assert not (tmp_path / "run" / "acting.pt").exists()


# At run time


@pytest.fixture(scope="module")
def learnt(episodes: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """acting.pt of an expert that has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acting, "HELD_OUT_BATCHES", 1)
        patch.setattr(acting, "HELD_OUT_PLANS", 2)
        schedule = Schedule(steps=1, batch=2, learning_rate=1e-4, ema=0.0)
        usual = weights("shipped", "stage1", {})
        acting.train_acting(episodes, prepared(episodes), folder, schedule, usual, make_fabric("cpu"), fit.Cadence())
    return folder / "acting.pt"


def test_a_told_policy_gives_chunks_and_keeps_what_is_given(learnt: Path) -> None:
    policy, generator = ToldPolicy(learnt), np.random.default_rng(0)
    live, goal = (np.append(generator.random((len(KEYPOINTS), 2)), np.ones((len(KEYPOINTS), 1)), 1) for _ in range(2))
    proprio = Proprio(np.array([-1.5, -1.8, 1.9, -1.6, -1.57, 0.3]), np.zeros(6), 0.0)
    free = policy.chunk(live, goal, proprio, 80.0)
    assert free.shape == (TINY.chunk_steps, TINY.joints + 1) and np.isfinite(free).all()
    assert (free[:, -1] >= 0).all() and (free[:, -1] <= 1).all()
    np.testing.assert_array_equal(free, policy.chunk(live, goal, proprio, 80.0))
    assert np.abs(policy.chunk(live, live, proprio, 80.0) - free).max() > 1e-5, "the goal matters"
    prefix = np.append(proprio.joints + 0.1 * generator.normal(size=(3, 6)), [[1.0], [1.0], [0.0]], 1)
    bound = policy.chunk(live, goal, proprio, 80.0, prefix)
    np.testing.assert_allclose(bound[:3], prefix, atol=1e-5)
    assert np.isfinite(bound).all() and np.abs(bound[3:] - free[3:]).max() > 1e-5
    long = policy.chunk(live, goal, proprio, 80.0, np.repeat(prefix[:1], TINY.chunk_steps, 0))
    np.testing.assert_allclose(long[: policy.config.most_given], prefix[:1].repeat(policy.config.most_given, 0), atol=1e-5)


def test_a_training_that_is_under_way_can_drive_too(learnt: Path) -> None:
    done, under_way = (ToldPolicy(path) for path in (learnt, learnt.with_name("acting-training.pt")))
    keypoints, proprio = np.full((len(KEYPOINTS), 3), 0.5), Proprio(np.zeros(6), np.zeros(6), 0.0)
    np.testing.assert_allclose(*(policy.chunk(keypoints, keypoints, proprio, 50.0) for policy in (done, under_way)), atol=1e-6)


def test_a_told_policy_drives_while_recording(learnt: Path) -> None:
    """Named by its file, as `act2goal data sim --no-pictures --policy` has it."""
    pytest.importorskip("ogbench")
    from act2goal_ros.cli.data import _recorder
    from act2goal_ros.learning.simulate import Recorder

    recorder: Recorder = _recorder("cube-single", learnt, 32, 0.0, 0.0, False)
    made = next(found for seed in range(60) if (found := recorder.record(seed)) is not None and found.disturbed.any())
    assert made.frames.shape[1:] == (1, 1, 3) and made.keypoints is not None and made.keypoints.shape[1:] == (len(KEYPOINTS), 3)
    assert np.isfinite(made.command).all()


# What the stages do with it


def test_plans_and_live_frames_are_forgotten_but_for_where_things_are(episodes: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = System(TINY)
    features = torch.randn(3, *replace(TINY, located=True).served_features)
    sure = torch.rand(3, TINY.keypoints)
    live = LiveTokens(torch.randn(3, made.expert.live.position.shape[1], TINY.expert_width), torch.randn(3, 2 * POINTS),
                      torch.randn(3, TINY.keypoints, 2 * TINY.live_width), torch.randn(3, TINY.keypoints, 65), sure)  # fmt: skip
    monkeypatch.setattr(system, "BLIND", 0.0)
    assert torch.equal(made._forgotten(features), features)
    assert all(torch.equal(one, other) for one, other in zip(made._overlooked(live)[1:], live[1:], strict=True))
    torch.testing.assert_close(made._overlooked(live).tokens, live.tokens)
    monkeypatch.setattr(system, "BLIND", 1.0)
    kept = made._forgotten(features)
    assert torch.equal(kept[:, -1], features[:, -1]) and not kept[:, :-1].any()
    seen, own = made._overlooked(live), 2 * TINY.keypoints
    assert torch.equal(seen.tokens, made.expert.live.position.expand_as(live.tokens)) and not seen.things.any()
    assert torch.equal(seen.points[:, :own], live.points[:, :own]) and not seen.points[:, own:].any()
    assert torch.equal(seen.maps, live.maps) and torch.equal(seen.sure, sure)
    made.eval()
    assert torch.equal(made._forgotten(features), features) and made._overlooked(live) is live


def test_actions_start_from_zero_as_served_ones_do() -> None:
    torch.manual_seed(0)
    clean = torch.randn(400, 19, 7)
    tau, noisy = noisy_actions(clean, 0.6)
    first = tau == 0
    assert 0.5 < first.float().mean() < 0.7 and not noisy[first].any()
    mix = tau[~first].view(-1, 1, 1)
    noise = (noisy[~first] - mix * clean[~first]) / (1 - mix)
    assert tau.max() < 0.95 and abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


class Apart(torch.nn.Module):
    """Two weights with the same gradient."""

    config = TINY

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.part = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(4))

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"away": (self.whole + self.part - batch).square().mean()}


def test_a_group_of_weights_has_its_share_of_the_learning_rate(tmp_path: Path) -> None:
    module = Apart()
    groups = [{"params": [module.whole], "weight_decay": 0.0}, {"params": [module.part], "weight_decay": 0.0, "share": 0.25}]
    job = fit.Job(name="apart", module=module, batch=lambda generator, count: torch.full((count, 4), 9.0), weights={"away": 1.0},
                  groups=groups, check=lambda: ({}, np.zeros((8, 8, 3), np.uint8)))  # fmt: skip
    fit.fit(job, Schedule(steps=10, batch=2, learning_rate=1e-2, ema=0.0), tmp_path, make_fabric("cpu"), fit.Cadence(log_steps=1))
    assert module.whole.min() > 0.01
    torch.testing.assert_close(module.part, 0.25 * module.whole)
    rows = [line.split(",") for line in (tmp_path / "apart.csv").read_text().splitlines()]
    assert float(rows[-1][rows[0].index("rate")]) == pytest.approx(Schedule(steps=10, learning_rate=1e-2).rate(1.0)), "told is the whole"


def test_the_expert_s_share_is_of_what_acting_has_taught() -> None:
    made = System(TINY)
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    groups = train._groups(made, 0.3)
    slow, usual = ({names[id(p)] for group in groups if group["share"] == share for p in group["params"]} for share in (0.3, 1.0))
    assert {"expert.head.weight", "expert.kind", "expert.spotter.questions"} <= slow
    assert not any(name.startswith(("world.", "expert.live.", "expert.reader.")) for name in slow)
    assert slow | usual == {name for name in names.values() if not name.startswith("autoencoder.")} and not slow & usual


def test_chunks_are_drawn_over_the_true_ones() -> None:
    true = np.zeros((2, 16, 3))
    predicted = true + np.array([0.0, 0.0, 4.0])
    drawn = chunks(predicted, true)
    assert drawn.shape == (160, 320, 3) and drawn.dtype == np.uint8
    coloured = np.argwhere(np.ptp(drawn, axis=-1) > 60)[:, 0]
    assert coloured.min() < 15 and abs(np.median(coloured) - 80) < 80, "one joint is at the upper edge, the others in the middle"
    grey = np.argwhere((drawn == 170).all(-1))[:, 0]
    assert len(grey) and abs(grey - 80).max() < 8


def test_a_wrong_time_to_the_goal_is_wrong_everywhere() -> None:
    torch.manual_seed(0)
    count, chunk = 4000, 4
    times = torch.tensor([2.0, 40.0, 80.0]).expand(count, -1)
    rows = torch.tensor([1.0, 2.0, 3.0, 4.0, 40.0, 80.0]).expand(count, -1)
    seen, own = misjudged(times, rows, chunk, torch.zeros(count, 1))
    assert torch.equal(own[:, :chunk], rows[:, :chunk]), "the chunk's rows are the clock's"
    assert torch.allclose(own[:, chunk:], seen[:, 1:]), "the distal rows are the frames'"
    factor = seen[:, -1] / 80.0
    assert torch.allclose(seen, factor[:, None] * times)
    assert 0.2 < factor.log().std() < 0.3
    anything, _ = misjudged(times, rows, chunk, torch.ones(count, 1))
    assert anything[:, -1].min() < 0.05 * LONGEST and anything[:, -1].max() > 0.95 * LONGEST


def test_nor_does_the_time_tell_that_all_is_done() -> None:
    torch.manual_seed(0)
    times, rows = torch.zeros(1000, 3), torch.zeros(1000, 6)
    known, _ = misjudged(times, rows, 4, torch.zeros(1000, 1))
    assert torch.equal(known, times)
    seen, own = misjudged(times, rows, 4, torch.ones(1000, 1))
    assert seen[:, -1].mean() > 0.4 * LONGEST and own[:, -1].mean() > 0.4 * LONGEST
    assert torch.equal(seen[:, 0], times[:, 0]), "the first frame is the present"
