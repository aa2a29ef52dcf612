"""Where things are in a picture: the simulator's labels, and the losses that ask networks for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_dataset import episode

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402
from test_learning import SMALL, large_frames  # noqa: E402

from act2goal_ros.cli.train import command  # noqa: E402
from act2goal_ros.learning import camera, looking, train  # noqa: E402
from act2goal_ros.learning.batches import AGES, HOLD_STEPS, Episodes, Sampler  # noqa: E402
from act2goal_ros.learning.dataset import KEYPOINTS, read_shard, write_shard  # noqa: E402
from act2goal_ros.learning.devices import make_fabric  # noqa: E402
from act2goal_ros.learning.fit import Cadence  # noqa: E402
from act2goal_ros.learning.keypoints import KeypointReaders, choice_loss, live_loss, which_is_handled  # noqa: E402
from act2goal_ros.learning.pictures import marked  # noqa: E402
from act2goal_ros.learning.schedule import Schedule  # noqa: E402
from act2goal_ros.learning.system import System  # noqa: E402
from act2goal_ros.model.expert import ActionExpert  # noqa: E402
from act2goal_ros.model.live import LiveEncoder, LiveTokens  # noqa: E402
from act2goal_ros.model.reader import PlanReader  # noqa: E402
from act2goal_ros.model.spotter import Spotter  # noqa: E402

LABELS = torch.tensor([[[0.26, 0.63, 1.0], [0.9, 0.1, 1.0], [0.0, 0.0, 0.0], [float("nan")] * 3]])
KNOWING = torch.tensor([[-20.0, -20.0, 20.0, 0.0]])  # logits of being nowhere, right for the LABELS
GRIPPER = len(KEYPOINTS) - 1


def tokens(maps: torch.Tensor, grid: torch.Tensor, nowhere: torch.Tensor = KNOWING) -> LiveTokens:
    """Of logits of where each thing is (B, K, P) and of its being nowhere (B, K)."""
    logits = torch.cat([maps, nowhere.unsqueeze(-1)], -1)
    sure = 1.0 - logits.softmax(-1)[..., -1]
    return LiveTokens(torch.zeros(1), (maps.softmax(-1) @ grid).flatten(1), torch.zeros(1), logits, sure)


def grid_of(side: int) -> torch.Tensor:
    line = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)


def peaks(labels: torch.Tensor, side: int, spread: float = 0.6) -> torch.Tensor:
    """(B, K, side²): logits of a peak of that spread, in places, at each label."""
    middle = (torch.arange(side) + 0.5) / side
    across, down = torch.meshgrid(middle, middle, indexing="xy")
    away = (labels[..., 0:1] - across.flatten()).square() + (labels[..., 1:2] - down.flatten()).square()
    return -away.nan_to_num() * side**2 / (2 * spread**2)


def test_a_live_key_point_where_it_is_costs_nothing_and_elsewhere_it_does() -> None:
    grid = grid_of(16)
    right = live_loss(tokens(peaks(LABELS, 16), grid), LABELS, grid, 16)
    moved = LABELS + torch.tensor([0.1, 0.0, 0.0])
    wrong = live_loss(tokens(peaks(moved, 16), grid), LABELS, grid, 16)
    assert right < 0.05 < 1.0 < wrong


def test_what_is_not_known_has_no_weight_and_what_is_not_seen_is_asked_for_no_place() -> None:
    torch.manual_seed(0)
    grid, maps = grid_of(16), peaks(LABELS, 16).requires_grad_()
    unsure = torch.zeros(1, 4).requires_grad_()
    seen = tokens(maps + torch.randn_like(maps), grid, unsure)
    points = seen.points.detach().requires_grad_()
    live_loss(seen._replace(points=points), LABELS, grid, 16).backward()
    for used in (maps.grad.abs().sum(-1)[0], unsure.grad.abs()[0]):
        assert (used[:3] > 0).all() and used[3] == 0
    assert (points.grad.unflatten(1, (-1, 2)).abs().sum(-1)[0] > 0).tolist() == [True, True, False, False]
    elsewhere = maps.detach().clone()
    elsewhere[:, 2:] = elsewhere[:, 2:].roll(77, -1)
    found = [live_loss(tokens(given, grid, unsure), LABELS, grid, 16) for given in (maps, elsewhere)]
    torch.testing.assert_close(*found)
    nothing = torch.full_like(LABELS, float("nan"))
    assert live_loss(tokens(maps, grid), nothing, grid, 16) == 0


def test_that_a_thing_is_nowhere_is_learnt() -> None:
    """The loss falls with the logit of being nowhere for what is absent and rises with it for what is there."""
    grid, maps = grid_of(16), peaks(LABELS, 16)

    def loss(kind: int, logit: float) -> float:
        nowhere = KNOWING.clone()
        nowhere[0, kind] = logit
        return live_loss(tokens(maps, grid, nowhere), LABELS, grid, 16).item()

    for kind in range(3):
        courses = [loss(kind, logit) for logit in (-8.0, -2.0, 0.0, 2.0, 8.0)]
        assert courses == sorted(courses, reverse=kind == 2) and abs(courses[-1] - courses[0]) > 2.0
    nowhere = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([nowhere], lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        live_loss(tokens(maps, grid, nowhere), LABELS, grid, 16).backward()
        optimizer.step()
    sure = tokens(maps, grid, nowhere).sure[0]
    assert sure[:2].min() > 0.99 and sure[2] < 0.05 and nowhere[0, 3] == 0.0


def test_key_points_are_read_from_features_that_show_them() -> None:
    """A world whose features tell where each thing is, is read by linear maps; one that tells nothing is not."""
    torch.manual_seed(0)
    config = replace(SMALL, world_width=48, keypoints=4, blocks=2, latent_size=8, patch=2)
    readers, reader, rows = KeypointReaders(config), PlanReader(config), 4
    labels = torch.cat([torch.rand(64, 1, 4, 2), (torch.rand(64, 1, 4, 1) < 0.8).float()], -1)
    middle = (torch.arange(rows) + 0.5) / rows
    places = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), -1).reshape(-1, 1, 2)
    away = (labels[..., :2].unsqueeze(2) - places) * rows  # (64, 1, 16, 4, 2)
    near = torch.exp(-away.square().sum(-1, keepdim=True)) * labels[..., 2:].unsqueeze(2)
    told = torch.cat([near, near * away, away, labels[..., 2:].unsqueeze(2).expand_as(near)], -1).flatten(3)
    features = torch.nn.functional.pad(told, (0, 48 - told.shape[-1])).unsqueeze(1).expand(-1, 2, -1, -1, -1)
    nothing = torch.zeros(64, 2, 12)  # of either picture

    def trained(given: torch.Tensor) -> float:
        optimizer = torch.optim.Adam([*readers.parameters(), *reader.parameters()], lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            loss = readers.loss(given, reader, nothing, labels, rows)
            loss.backward()
            optimizer.step()
        return loss.item()

    blind = trained(torch.zeros_like(features))
    assert trained(features) < 0.5 * blind
    assert readers.loss(features, reader, nothing, torch.full_like(labels, float("nan")), rows) == 0
    points, there = reader(features[:, -1], nothing).detach().unflatten(-1, (3, 4)).split([2, 1], -2)
    live = config.camera_size // 8
    expected = 2 * (labels[..., :2] * live - 0.5) / (live - 1) - 1
    seen = labels[..., 2] > 0.5
    off = (points.transpose(-1, -2) - expected).abs().amax(-1)[seen]
    assert off.median() < 0.06, "of 2, the width of the picture"
    assert there.squeeze(-2)[seen].mean() > there.squeeze(-2)[~seen].mean() + 0.3


def test_where_a_resting_thing_is_comes_from_the_picture_that_shows_it_best() -> None:
    """Features tell roughly where the thing is; the frame is like the start before it is moved, like the goal after."""
    torch.manual_seed(0)
    config = replace(SMALL, world_width=8, keypoints=1, latent_size=8, patch=2)
    reader, live = PlanReader(config), 15
    start, end = (2 * torch.rand(256, 2) - 1 for _ in range(2))
    true = torch.stack([start, end], 1)  # (B, F, 2)
    known = torch.cat([true, torch.ones(256, 2, 1)], -1)
    rough = ((true + 0.1 * torch.randn_like(true) + 1) / 2 * live + 0.5) / 4  # tokens from the corner, of 4 · 4
    features = (rough.unsqueeze(2) - reader.middles[:, 0]) / 4
    features = torch.nn.functional.pad(features, (0, 6), value=1.0)  # (B, F, T, 8)
    optimizer = torch.optim.Adam(reader.parameters(), lr=0.02)

    def off(seen: torch.Tensor) -> torch.Tensor:
        return (reader(features, seen)[..., :2] - true).abs().sum(-1)

    for _ in range(300):
        optimizer.zero_grad()
        (off(known).mean() + off(torch.zeros_like(known)).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert off(known).median() < 0.25 * off(torch.zeros_like(known)).median()
        unsure = torch.cat([known[..., :2] + 1.0, 0 * known[..., 2:]], -1)
        torch.testing.assert_close(reader(features, unsure), reader(features, torch.zeros_like(known)), atol=0.02, rtol=0)


def test_the_thing_that_is_handled_is_the_nearest_to_where_it_is_seen_by_this_camera() -> None:
    keypoints = torch.tensor([[[0.25, 0.5, 1.0], [0.75, 0.5, 1.0], [0.5, 0.5, 0.0], [0.5, 0.25, 1.0]]])  # the last is the gripper
    places = 2 * (keypoints[..., :2] * 16 - 0.5) / 15 - 1

    def chosen(handled: torch.Tensor, labels: torch.Tensor = keypoints, tool: torch.Tensor = places[:, 3]) -> list[float]:
        return which_is_handled(handled, tool, labels, 16, 16)[0].tolist()

    assert chosen(places[:, 1] + 0.03) == [0.0, 1.0, 0.0, 0.0]
    turned = torch.tensor([[0.45, 0.0]])  # the training's camera would show all further to the right
    assert chosen(places[:, 0] + turned, tool=places[:, 3] + turned) == [1.0, 0.0, 0.0, 0.0]
    nothing = [0.0] * 4
    assert chosen(places[:, 2]) == nothing, "none is near"
    assert chosen((places[:, 0] + places[:, 1]) / 2) == nothing, "two are as near"
    assert chosen(places[:, 1], torch.full_like(keypoints, float("nan"))) == nothing
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    known = torch.tensor([[1.0, 0.0, 0.0, 0.0], nothing])
    assert choice_loss(logits, known) == pytest.approx(torch.nn.functional.cross_entropy(logits[:1], torch.tensor([0])))
    assert choice_loss(logits, torch.zeros(2, 4)) == 0


@pytest.mark.parametrize("moved", [0, 1])
def test_what_the_plan_moves_can_be_told_from_what_it_leaves(moved: int) -> None:
    """The expert's tokens of things change with where the plan's features have them, hidden frames excepted."""
    torch.manual_seed(0)
    config = replace(SMALL, keypoints=3)
    expert = ActionExpert(config).eval()
    torch.nn.init.normal_(expert.foreseen[-1].weight)
    things = torch.zeros(1, 3, 2 * config.live_width)
    live = LiveTokens(torch.zeros(1, 16, config.expert_width), torch.zeros(1, 64), things, torch.zeros(1, 3, 257), torch.ones(1, 3))
    read = torch.zeros(1, config.frames, 9)
    read[..., 6:] = 1.0
    other = read.clone()
    other[:, -1, moved] = 0.5  # u, in the last frame
    mask, times = torch.ones(1, config.frames), torch.arange(config.frames).float()[None]

    def seen(places: torch.Tensor, mask: torch.Tensor, live: LiveTokens = live) -> torch.Tensor:
        return expert._things(live, torch.zeros(1, 2), places, mask, times)[0]

    differs = (seen(other, mask) - seen(read, mask)).abs().amax(-1)[0] > 1e-6
    assert differs.tolist() == [k == moved for k in range(3)]
    absent = live._replace(sure=torch.zeros(1, 3))
    assert torch.equal(seen(other, mask, absent), seen(read, mask, absent)), "what is nowhere is not moved"
    mask[:, -1] = 0.0
    assert torch.equal(seen(other, mask), seen(read, mask))


def test_unlabelled_episodes_among_labelled_ones(tmp_path: Path) -> None:
    made = [episode(24 + HOLD_STEPS, 0), episode(24 + HOLD_STEPS, 1)]
    labels = np.random.default_rng(0).random((len(made[1].frames), len(KEYPOINTS), 3)).astype(np.float32)
    write_shard(tmp_path / "0", [made[0], replace(made[1], keypoints=labels)])
    first, second = read_shard(tmp_path / "0")
    assert first.keypoints is not None and np.isnan(first.keypoints).all()
    np.testing.assert_array_equal(second.keypoints, labels)
    write_shard(tmp_path / "1", made)
    assert next(read_shard(tmp_path / "1")).keypoints is None


def test_other_key_points_than_the_configuration_s_are_named(tmp_path: Path) -> None:
    good = large_frames(episode(24 + HOLD_STEPS, 0))
    write_shard(tmp_path / "0", [replace(good, keypoints=np.zeros((len(good.frames), 3, 3), np.float32))])
    write_shard(tmp_path / "1", [good])
    found = Episodes(tmp_path, config=SMALL)
    count = len(good.frames)
    assert [str(s.reason) for s in found.skipped] == [f"keypoints has shape ({count}, 3, 3), expected ({count}, {len(KEYPOINTS)}, 3)"]


@pytest.fixture
def dots(tmp_path: Path) -> Path:
    """Episodes whose pictures show nothing but one white dot, which is the first key point."""
    generator = np.random.default_rng(0)
    made = []
    for seed in range(3):
        e = episode(24 + HOLD_STEPS, seed)
        frames, labels = np.zeros((len(e.frames), 128, 128, 3), np.uint8), np.zeros((len(e.frames), len(KEYPOINTS), 3), np.float32)
        for frame, label in zip(frames, labels, strict=True):
            u, v = generator.integers(10, 118, 2)
            frame[v - 4 : v + 4, u - 4 : u + 4] = 255
            label[0] = (u / 128, v / 128, 1.0)
        made.append(replace(e, frames=frames, keypoints=labels))
    write_shard(tmp_path / "dots" / "0", made)
    return tmp_path / "dots"


def test_the_live_encoder_learns_where_things_are(dots: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    live, fabric = LiveEncoder(SMALL), make_fabric()
    schedule = Schedule(steps=240, batch=16, learning_rate=4e-3, ema=0.9)
    looking.train_looking(Episodes(dots, config=SMALL), SMALL, live, tmp_path, schedule, fabric, Cadence(check_steps=60))
    pixels = [line.split(",") for line in (tmp_path / "looking-training.csv").read_text().splitlines()]
    column = pixels[0].index("pixels")
    assert float(pixels[1][column]) > 5 > 1 > float(pixels[-1][column])
    shown = torch.from_numpy(np.array(next(read_shard(dots / "0")).frames[:8])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        sure = live(shown).sure
        torch.testing.assert_close(live.located(shown)[:, -len(KEYPOINTS) :], sure)
        torch.testing.assert_close(live.located(shown), live(shown).located())
    assert sure[:, 0].min() > 0.9 > 0.1 > sure[:, 1:].max(), "only the first thing is there"
    fresh = LiveEncoder(SMALL)
    assert looking.take_over(fresh, tmp_path) and not looking.take_over(LiveEncoder(SMALL), tmp_path / "elsewhere")
    torch.testing.assert_close(fresh.points.weight, live.points.weight)
    torch.testing.assert_close(fresh.nowhere, live.nowhere)
    assert (tmp_path / "looking-training.png").exists()


def test_samples_carry_labels_or_say_that_there_are_none(dots: Path) -> None:
    found = Episodes(dots, config=SMALL)
    found.latents = [np.zeros((len(e.frames), 8, 8, 8), np.float16) for e in found.all]
    batch = Sampler(found, [0, 1], SMALL, 0).batch(2)
    assert batch.keypoints.shape == (2, SMALL.frames, len(KEYPOINTS), 3)
    assert batch.live_keypoints.shape == (2 * len(AGES), len(KEYPOINTS), 3)
    u, v = (batch.live_keypoints[0, 0, :2] * 128).int().tolist()
    assert batch.pictures[0, :, v, u].min() == 1.0, "the live frame shows the dot where its label says"


CAMERA = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, -1.3, 1.5, 0.3], [0.0, 0.6, 0.5, -1.0]])  # metres in the base frame → −1 .. 1


def seen_by(camera: np.ndarray, places: np.ndarray) -> np.ndarray:
    image = np.concatenate([places, np.ones((len(places), 1))], 1) @ camera.T
    return image[:, :2] / image[:, 2:]


def test_where_the_tool_is_in_the_picture_is_fitted_to_the_data(tmp_path: Path) -> None:
    generator, made = np.random.default_rng(0), []
    system = System(SMALL)
    for seed in range(20):
        e = episode(40 + HOLD_STEPS, seed)
        joints = (np.array([-1.9, -1.5, 2.1, -2.1, -1.57, 0.0]) + 0.15 * generator.normal(size=(len(e), 6))).astype(np.float32)
        tool = system.expert.kinematics(torch.from_numpy(joints[::2])).tool.numpy()
        points = (((seen_by(CAMERA, tool) + 1) / 2 * 15) + 0.5) / 16
        labels = np.zeros((len(e.frames), len(KEYPOINTS), 3), np.float32)
        labels[:, -1] = np.concatenate([points, ((points > 0) & (points < 1)).all(1, keepdims=True)], 1)
        made.append(replace(large_frames(e), joints=joints, keypoints=labels))
    write_shard(tmp_path / "0", made)
    found = camera.tool_projection(Episodes(tmp_path, config=SMALL), system)
    places = generator.uniform((-0.2, 0.3, 0.05), (0.2, 0.6, 0.3), (50, 3))
    np.testing.assert_allclose(seen_by(found, places), seen_by(CAMERA, places), atol=0.01)
    write_shard(tmp_path / "unlabelled" / "0", [large_frames(episode(40 + HOLD_STEPS, seed)) for seed in range(2)])
    assert not camera.tool_projection(Episodes(tmp_path / "unlabelled", config=SMALL), system).any()


def test_how_high_a_thing_is_and_where_its_key_point_shows_it_is_measured(tmp_path: Path) -> None:
    """Of the second kind, 8 cm high, whose key point is 1 and 2 cm beside what is handled; of the others nothing is known."""
    generator, system, made = np.random.default_rng(0), System(SMALL), []
    for seed in range(20):
        e = episode(40 + HOLD_STEPS, seed)
        joints = (np.array([-1.9, -1.5, 2.1, -2.1, -1.57, 0.0]) + 0.15 * generator.normal(size=(len(e), 6))).astype(np.float32)
        tool = system.expert.kinematics(torch.from_numpy(joints[::2])).tool.numpy()
        place = np.append(generator.uniform((-0.15, 0.35), (0.15, 0.55)), 0.08)
        labels = np.zeros((len(e.frames), len(KEYPOINTS), 3), np.float32)
        for kind, points in ((1, seen_by(CAMERA, place[None] - [0.01, -0.02, 0.0])), (GRIPPER, seen_by(CAMERA, tool))):
            shares = ((points + 1) / 2 * 15 + 0.5) / 16
            labels[:, kind] = np.concatenate([shares, ((shares > 0) & (shares < 1)).all(1, keepdims=True)], 1)
        world = np.array([place[1], -place[0], place[2]], np.float32)
        made.append(replace(large_frames(e), joints=joints, keypoints=labels, cube=np.tile(world, (len(e), 1))))
    write_shard(tmp_path / "0", made)
    episodes = Episodes(tmp_path, config=SMALL)
    train.prepare(system, episodes)
    found = system.expert.spotter.thing_offsets.numpy()
    np.testing.assert_allclose(found[1], [0.01, -0.02, 0.08], atol=0.004)
    np.testing.assert_allclose(np.delete(found, 1, 0), [[0.0, 0.0, 0.02]] * GRIPPER)


def test_a_picture_that_is_shifted_is_noticed_by_where_the_tool_is_seen() -> None:
    """By a key point that is there and a known camera alone; a little is the key point's own error."""
    torch.manual_seed(0)
    expert, grid, tool = System(SMALL).expert, grid_of(16), torch.tensor([[0.05, 0.45, 0.15]])
    expected = torch.from_numpy(seen_by(CAMERA, tool.numpy())).float()

    def found(moved: tuple[float, float], nowhere: float = -20.0) -> list[float]:
        share = (((expected + torch.tensor(moved)) + 1) / 2 * 15 + 0.5) / 16
        live = tokens(peaks(share.unsqueeze(1).expand(1, SMALL.keypoints, 2), 16), grid, torch.full((1, SMALL.keypoints), nowhere))
        points = torch.nn.functional.pad(live.points, (0, 64 - live.points.shape[1]))
        shift: torch.Tensor = expert.shift(live._replace(points=points), tool)
        return [float(x) for x in shift[0]]

    assert found((0.2, -0.1)) == [0.0, 0.0], "the camera is not known"
    expert.projection.copy_(torch.from_numpy(CAMERA))
    np.testing.assert_allclose(found((0.2, -0.1)), (0.2, -0.1), atol=0.02)
    assert np.abs(found((0.01, 0.01))).max() < 0.003
    np.testing.assert_allclose(found((0.2, -0.1), nowhere=20.0), 0.0, atol=1e-6, err_msg="the tool is not to be seen")


def test_without_labels_the_part_says_what_is_missing(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "0", [large_frames(episode(24 + HOLD_STEPS, seed)) for seed in range(2)])
    arguments = [str(tmp_path / "data"), str(tmp_path / "run"), "--part", "looking", "--steps", "1"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1 and "no episode has key points, at least 1 needed" in result.output


def test_key_points_are_marked_where_they_are() -> None:
    picture = marked(torch.zeros(2, 3, 64, 64), torch.tensor([[[20.0, 30.0]], [[50.0, 10.0]]]), torch.tensor([[True], [False]]))
    lit = np.argwhere(picture.max(-1) > 100)
    assert picture.shape == (128, 256, 3)
    np.testing.assert_allclose(lit.mean(0), [60, 40], atol=1)


def test_a_place_is_found_where_the_camera_shows_it() -> None:
    torch.manual_seed(0)
    expert = ActionExpert(SMALL)
    places = torch.tensor([0.0, 0.4, 0.1]) + 0.2 * (torch.rand(8, 2, 3) - 0.5)
    points = torch.zeros(8, 2, 2)
    middle = expert.unprojected(points, places[..., 2])
    torch.testing.assert_close(middle, torch.cat([expert.workspace[:2].expand(8, 2, 2), places[..., 2:]], -1))  # without a camera
    expert.projection.copy_(torch.tensor([[-2.0, 0.1, 0.0, 0.0], [0.0, 1.3, -1.5, -0.35], [0.0, -0.64, -0.49, 0.96]]))
    points = torch.stack([expert.projected(places[:, n])[0] for n in range(2)], 1)
    torch.testing.assert_close(expert.unprojected(points, places[..., 2]), places, atol=1e-5, rtol=0)


def test_object_and_target_are_of_the_thing_that_is_named() -> None:
    """Each thing has its own course in the picture; what is named decides, never a mean."""
    torch.manual_seed(0)
    spotter, width = Spotter(SMALL), SMALL.expert_width
    spotter.choice.weight.data.mul_(1000.0)  # decided
    known, things, plan = torch.randn(3, 5, width), torch.randn(3, SMALL.keypoints, width), torch.randn(3, SMALL.spotter_layers, 4, width)
    ways = torch.randn(3, SMALL.keypoints, 4)
    for teacher in (None, torch.nn.functional.one_hot(torch.tensor([2, 0, 1]), SMALL.keypoints).float()):
        found = spotter(plan, plan, torch.zeros(3, 1, 1, 9), known, things, ways, teacher)
        named = (found.choice if teacher is None else teacher).argmax(-1)
        torch.testing.assert_close(found.points, ways[torch.arange(3), named].unflatten(-1, (2, 2)) / 4)
        assert not found.offsets.any() and torch.allclose(found.heights, torch.tensor(0.02)), "of what nothing was learnt of yet"
