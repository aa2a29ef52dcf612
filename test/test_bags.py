"""rosbag2 recordings to episodes: what stands in the bag stands in the shard, on the model's time grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_maker import ROBOT, Bag, angles, compressed, joint_state, raw, teleoperated, without_definitions
from click.testing import CliRunner
from rollout_maker import drawn, moving_square

torch = pytest.importorskip("torch")

from act2goal_ros.cli.data import command  # noqa: E402
from act2goal_ros.cli.train import command as train_command  # noqa: E402
from act2goal_ros.control.segments import Points  # noqa: E402
from act2goal_ros.data.bag import BagError  # noqa: E402
from act2goal_ros.data.messages import find_recordings  # noqa: E402
from act2goal_ros.learning import convert as convert_module  # noqa: E402
from act2goal_ros.learning.bags import BagOptions, episode_of_bag  # noqa: E402
from act2goal_ros.learning.batches import Episodes, Sampler  # noqa: E402
from act2goal_ros.learning.checkpoint import load  # noqa: E402
from act2goal_ros.learning.commands import Sent, in_force  # noqa: E402
from act2goal_ros.learning.convert import Source, convert  # noqa: E402
from act2goal_ros.learning.dataset import Episode, read_shard  # noqa: E402
from act2goal_ros.learning.resample import Grid, RecordingError  # noqa: E402
from act2goal_ros.learning.system import System  # noqa: E402
from act2goal_ros.model.config import PRESETS, ModelConfig  # noqa: E402

GRID, OPTIONS = Grid(), BagOptions(robot=ROBOT)
SMALL = ModelConfig(world_width=48, world_heads=4, expert_width=32, blocks=2, live_width=8, autoencoder_width=8)


def times(episode: Episode) -> np.ndarray:
    return 0.05 * np.arange(len(episode))


def motion(seconds: np.ndarray) -> np.ndarray:
    return np.stack([angles(t) for t in seconds])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "sqlite3 without definitions"])
def test_joints_pictures_and_commands_are_those_of_their_times(storage: str, tmp_path: Path) -> None:
    path = teleoperated(tmp_path / "bag", storage.split()[0])
    if storage.endswith("definitions"):
        without_definitions(path)
    made = episode_of_bag(path, OPTIONS, GRID)
    t = times(made)
    assert len(made) == 60  # until 2.95 s; the last picture is of 2.97 s
    np.testing.assert_allclose(made.joints, motion(t), atol=2e-4)
    np.testing.assert_allclose(made.velocities[5:-5], np.gradient(motion(t), 0.05, axis=0)[5:-5], atol=2e-3)
    np.testing.assert_allclose(made.gripper, np.clip(t - 1.0, 0.0, 0.5), atol=2e-3)
    np.testing.assert_allclose(made.command[:, :6], motion(t) + 0.1, atol=5e-4)
    np.testing.assert_array_equal(made.command[:, 6], (t > 1.0 + 1e-6).astype(np.float32))
    assert made.frames.shape == (30, 128, 128, 3)
    nearest = np.round(t[::2] * 30) / 30
    np.testing.assert_allclose(made.frames[:, 64, 64, 0], np.floor(20 + 20 * nearest), atol=2)
    assert not made.labelled
    assert (made.joint_names, made.source) == (ROBOT.joint_names, str(path))


def test_the_trajectory_in_force_is_the_command_where_there_is_no_reference(tmp_path: Path) -> None:
    made = episode_of_bag(teleoperated(tmp_path / "bag", without=("reference",)), OPTIONS, GRID)
    t = times(made)[1:]
    newest = np.floor(t * 50 + 1e-3) / 50
    # the newest trajectory leads in, in 0.02 s, from the end of the one before
    between = ((t - newest) / 0.02)[:, None]
    np.testing.assert_allclose(made.command[1:, :6], 0.2 + (1 - between) * motion(newest - 0.02) + between * motion(newest), atol=2e-5)


def test_the_next_joint_states_stand_for_commands_that_were_not_recorded(tmp_path: Path) -> None:
    made = episode_of_bag(teleoperated(tmp_path / "bag", without=("reference", "trajectory", "gripper")), OPTIONS, GRID)
    np.testing.assert_allclose(made.command[:-1, :6], made.joints[1:], atol=2e-4)
    np.testing.assert_allclose(made.command[:-1, 6], made.gripper[1:], atol=1e-6)


def test_a_command_stands_for_a_gripper_that_is_not_measured(tmp_path: Path) -> None:
    made = episode_of_bag(teleoperated(tmp_path / "bag", without=("fingers",)), OPTIONS, GRID)
    np.testing.assert_array_equal(made.gripper, made.command[:, 6])
    with pytest.raises(RecordingError, match="nothing of robotiq_85_left_knuckle_joint, and no command"):
        episode_of_bag(teleoperated(tmp_path / "none", without=("fingers", "gripper")), OPTIONS, GRID)


def test_stamps_of_a_simulation_s_clock(tmp_path: Path) -> None:
    """Trajectories and the gripper's commands carry no stamps: their time is that of reception, which another clock tells."""
    made = episode_of_bag(teleoperated(tmp_path / "bag", clock=1.7e9, without=("reference",)), OPTIONS, GRID)
    live = episode_of_bag(teleoperated(tmp_path / "live", without=("reference",)), OPTIONS, GRID)
    np.testing.assert_allclose(made.joints, live.joints, atol=1e-5)
    np.testing.assert_allclose(made.command[1:-1], live.command[1:-1], atol=1e-3)


def test_a_namespace_and_raw_pictures(tmp_path: Path) -> None:
    bag = Bag(tmp_path / "bag")
    for k in range(100):
        bag.add("/left/joint_states", "joints", 0.03 * k, joint_state(0.03 * k, 0.03 * k, 0.25))
        bag.add("/left/wrist/image", "raw", 0.03 * k, raw(0.03 * k, 0.03 * k))
    made = episode_of_bag(bag.close(), BagOptions(robot=ROBOT, cameras=("wrist/image",)), GRID)
    assert made.frames[-1, 0, 0, 0] == 20 + int(20 * round(times(made)[::2][-1] / 0.03) * 0.03)
    np.testing.assert_allclose(made.gripper, 0.25, atol=1e-6)


def two_cameras(path: Path, blind: tuple[float, float] = (3.0, 3.0)) -> Path:
    """Joint states at 50 Hz; a camera at 25 Hz, and one at the wrist at 10 Hz, but for a while, that is 100 brighter."""
    bag = Bag(path)
    for k in range(150):
        t = k / 50
        bag.add("/joint_states", "joints", t, joint_state(t, t, 0.25))
        if k % 2 == 0:
            bag.add("/image_raw", "raw", t, raw(t, t))
        if k % 5 == 0 and not blind[0] <= t < blind[1]:
            bag.add("/wrist/image_raw/compressed", "compressed", t, compressed(t + 5.0, t, side=200))
    return bag.close()


def test_several_cameras_stand_one_above_the_other_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    path = two_cameras(tmp_path / "bag")
    made = episode_of_bag(path, BagOptions(robot=ROBOT, cameras=("image_raw", "wrist/image_raw")), GRID)
    assert made.frames.shape == (len(made) // 2 + 1, 256, 128, 3)
    t = times(made)[::2]
    np.testing.assert_allclose(made.frames[:, 64, 64, 0], 20 + np.floor(20 * np.round(25 * t) / 25), atol=1)
    np.testing.assert_allclose(made.frames[:, 192, 64, 0], 120 + np.floor(20 * np.round(10 * t) / 10), atol=2)
    other = episode_of_bag(path, BagOptions(robot=ROBOT, cameras=("wrist/image_raw", "image_raw")), GRID)
    np.testing.assert_array_equal(other.frames, np.concatenate([made.frames[:, 128:], made.frames[:, :128]], axis=1))


def test_a_camera_among_several_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path, both = two_cameras(tmp_path / "bag", (1.0, 1.5)), ("image_raw", "wrist/image_raw")
    for cameras, reason in (
        (("image_raw", "side"), r"no pictures on side or side/compressed \(--camera\); topics with messages: /image_raw"),
        (("image_raw", "/image_raw"), r"/image_raw is given twice \(--camera\)"),
        (both, r"frames of wrist/image_raw: the nearest to 1\.20 s is 0\.300 s away, at most 0\.06 s"),
    ):
        with pytest.raises(RecordingError, match=reason):
            episode_of_bag(path, BagOptions(robot=ROBOT, cameras=cameras), GRID)
    short = episode_of_bag(two_cameras(tmp_path / "short", (1.5, 3.0)), BagOptions(robot=ROBOT, cameras=both), GRID)
    assert len(short) == 29, "1.4 s: as long as every camera has frames"


def test_recordings_of_two_cameras_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From bags to a stage of training, by the command line."""
    for k in range(3):
        two_cameras(tmp_path / "bags" / str(k), (3.0 - 0.2 * k, 3.0))
    folder, cameras = tmp_path / "shards", ["--camera", "image_raw", "--camera", "wrist/image_raw"]
    result = CliRunner().invoke(command, ["bag", str(tmp_path / "bags"), str(folder), *cameras])
    assert result.exit_code == 0 and "3 episodes made" in result.output, result.output
    checked = CliRunner().invoke(command, ["check", str(folder), "--views", "2"])
    assert "recorded                        3            0" in checked.output and "0 shards or episodes skipped" in checked.output
    alone = CliRunner().invoke(command, ["check", str(folder)])
    assert "episode 2: pictures of 2 cameras, expected of 1 (--views of train and data check)" in alone.output
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    options = [str(folder), str(tmp_path / "run"), "--views", "2", "--recipe", "paper", "--batch", "2", "--steps", "1"]
    for part in ("autoencoder", "stage1"):
        result = CliRunner().invoke(train_command, [*options, "--part", part])
        assert result.exit_code == 0, result.output
    trained = load(tmp_path / "run" / "stage1.pt")
    assert trained["steps"] == 1 and trained["model"]["world.view"].shape == (2, 1, 48)


def test_two_arms_in_one_recording_must_be_told_apart(tmp_path: Path) -> None:
    bag = Bag(tmp_path / "bag")
    for side in ("left", "right"):
        bag.add(f"/{side}/joint_states", "joints", 0.0, joint_state(0.0, 0.0, 0.0))
    with pytest.raises(BagError, match="joint_states may be /left/joint_states or /right/joint_states"):
        episode_of_bag(bag.close(), OPTIONS, GRID)


def test_a_camera_of_another_namespace_is_not_taken_for_one_that_is_compressed(tmp_path: Path) -> None:
    bag = Bag(tmp_path / "bag")
    for k in range(60):
        t = k / 30
        bag.add("/joint_states", "joints", t, joint_state(t, t, 0.25))
        bag.add("/image_raw/compressed", "compressed", t, compressed(t, t))
        bag.add("/wrist/image_raw", "raw", t, raw(t + 5.0, t))
    path = bag.close()
    for cameras in ((), ("image_raw",), ("/image_raw",)):
        made = episode_of_bag(path, BagOptions(robot=ROBOT, cameras=cameras), GRID)
        assert made.frames[0, 64, 64, 0] == pytest.approx(20, abs=2) and made.cameras == (cameras or ("image_raw",))
    with pytest.raises(RecordingError, match="no pictures on /side/image_raw"):
        episode_of_bag(path, BagOptions(robot=ROBOT, cameras=("/side/image_raw",)), GRID)


def test_a_topic_of_another_type_is_named(tmp_path: Path) -> None:
    bag = Bag(tmp_path / "bag")
    for k in range(60):
        bag.add("/joint_states", "joints", k / 30, joint_state(k / 30, k / 30, 0.25))
        bag.add("/image_raw", "raw", k / 30, raw(k / 30, k / 30))
    bag.add("/gripper_controller/command", "joints", 1.0, joint_state(1.0, 1.0, 0.25))
    with pytest.raises(RecordingError, match="/gripper_controller/command is sensor_msgs/msg/JointState, must be std_msgs/msg/Float64"):
        episode_of_bag(bag.close(), OPTIONS, GRID)


@pytest.mark.parametrize("kind", ["reference", "trajectory"])
def test_an_arm_that_did_not_follow_its_commands_is_refused(kind: str, tmp_path: Path) -> None:
    """As when it is led by hand: the controller was on at first only, and its last set-point is not what was done afterwards."""
    without = ("trajectory",) if kind == "reference" else ("reference",)
    path = teleoperated(tmp_path / "bag", without=without, harm=lambda t, of, made: None if of == kind and t > 0.1 else made)
    with pytest.raises(RecordingError, match=r"wrist_3_joint is \d\.\d\d rad from its command at .* s, at most 0\.3 rad: .*--command next"):
        episode_of_bag(path, OPTIONS, GRID)
    made = episode_of_bag(path, BagOptions(robot=ROBOT, command="next"), GRID)
    np.testing.assert_allclose(made.command[:-1, :6], made.joints[1:], atol=2e-4)


def nan_in_reference(seconds: float, kind: str, made: Any) -> Any:
    if kind == "reference" and seconds == 1.5:
        made.reference.positions[2] = np.nan
    return made


def backwards(seconds: float, kind: str, made: Any) -> Any:
    if kind == "joints" and seconds == 1.5:
        made.header.stamp.sec -= 1
    return made


def strangers(made: Any) -> Any:
    made.name = ["a_joint", *made.name[1:]]
    return made


HARMED = {
    "no pictures": ({"without": ("compressed",)}, r"no pictures on image_raw or image_raw/compressed .*topics with messages: /gripper"),
    "no joint states": ({"without": ("joints",)}, "no messages on joint_states; topics with messages: "),
    "another arm's joints": (
        {"harm": lambda t, kind, made: strangers(made) if kind == "joints" else made},
        rf"joint_states: none with all joints of {ROBOT.name}: ",
    ),
    "joint states stop for a while": (
        {"harm": lambda t, kind, made: None if kind == "joints" and 1.0 < t < 1.5 else made},
        r"joint states: none for 0\.50 s at 1\.00 s, at most 0\.25 s",
    ),
    "pictures stop for a while": (
        {"harm": lambda t, kind, made: None if kind == "compressed" and 1.0 < t < 1.5 else made},
        r"frames: the nearest to 1\.[23]0 s is 0\.\d+ s away, at most 0\.06 s",
    ),
    "time goes back": ({"harm": backwards}, "joint states: time does not increase: sample 150 is -0.9900 s after"),
    "too short": ({"total": 0.1}, "joint states and frames together for 0.07 s, at least 0.1 s needed"),
}


@pytest.mark.parametrize("damage", HARMED)
def test_a_recording_that_gives_no_episode_is_named_with_the_bound(damage: str, tmp_path: Path) -> None:
    arguments, reason = HARMED[damage]
    with pytest.raises(RecordingError, match=reason):
        episode_of_bag(teleoperated(tmp_path / "bag", **arguments), OPTIONS, GRID)


def test_pictures_smaller_than_the_model_s_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image of 48 × 48 pixels, 128 × 128 are needed"):
        episode_of_bag(moving_square(tmp_path / "rollout"), OPTIONS, GRID)


def test_the_newest_trajectory_that_has_arrived_is_in_force() -> None:
    def sent(arrived: float, start: float, times: list[float], positions: list[float]) -> Sent:
        missing = np.full((len(times), 1), np.nan)
        return Sent(arrived, start, Points(np.array(times), np.array(positions)[:, None], missing, missing))

    trajectories = [sent(1.0, 1.2, [0.0, 1.0], [2.0, 3.0]), sent(1.7, 1.6, [0.0, 0.2], [5.0, 6.0])]
    at = np.array([0.0, 0.9, 1.1, 1.2, 1.6, 1.75, 1.9, 50.0])
    values = in_force(at, trajectories, np.array([1.0]))[:, 0]
    # held, led in from 1.0 at 1.0 s to 2.0 at 1.2 s, along; then the second, entered in its middle, and held at its end
    np.testing.assert_allclose(values, [1.0, 1.0, 1.5, 2.0, 2.4, 5.75, 6.0, 6.0], atol=1e-9)


def test_recordings_are_found_below_a_folder_and_cut_off_ones_named(tmp_path: Path) -> None:
    for name in ("b", "a"):
        teleoperated(tmp_path / "bags" / name, total=0.1)
    assert find_recordings(tmp_path / "bags") == [tmp_path / "bags" / "a", tmp_path / "bags" / "b"]
    assert find_recordings(tmp_path / "bags" / "a" / "a.mcap") == [tmp_path / "bags" / "a" / "a.mcap"]
    (tmp_path / "bags" / "a" / "metadata.yaml").unlink()
    with pytest.raises(BagError, match="a has no metadata.yaml: the recording was cut off; `ros2 bag reindex"):
        find_recordings(tmp_path / "bags" / "a")
    with pytest.raises(BagError, match="is no recording and holds none"):
        find_recordings(Path(__file__).parent)


def sources(*paths: Path) -> list[Source]:
    return [Source(str(p), lambda p=p: episode_of_bag(p, OPTIONS, GRID), p) for p in paths]  # type: ignore[misc]


def test_conversion_goes_on_where_it_was_interrupted_and_names_what_it_skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "EPISODES_PER_SHARD", 1)
    bags = [teleoperated(tmp_path / name, total=1.5) for name in ("a", "b", "c")]
    truncated = teleoperated(tmp_path / "d", total=1.5) / "d.mcap"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    bags += [
        tmp_path / "d",
        teleoperated(tmp_path / "g", total=1.6, harm=nan_in_reference),
        teleoperated(tmp_path / "f", total=0.8),
    ]
    folder, config = tmp_path / "shards", PRESETS["tiny"]
    interrupted = convert(sources(*bags), folder, config)
    next(interrupted), next(interrupted)
    interrupted.close()
    assert sorted(p.name for p in folder.iterdir()) == ["00000", "00001"]
    first = (folder / "00000" / "index.json").stat().st_mtime_ns
    *_, done = convert(sources(*bags), folder, config)
    assert (done.made, done.known) == (1, 2)
    reasons = {s.path.name: s.reason for s in done.skipped}
    assert set(reasons) == {"d", "g", "f"}
    assert "cannot be read" in reasons["d"]
    assert reasons["g"].startswith("command: nan at step 30, elbow_joint")
    assert reasons["f"].endswith("steps, at least 17 needed")
    assert (folder / "00000" / "index.json").stat().st_mtime_ns == first
    assert [e.source for p in sorted(folder.iterdir()) for e in read_shard(p)] == [str(p) for p in bags[:3]]


def test_a_damaged_shard_s_recordings_are_made_again(tmp_path: Path) -> None:
    bags = [teleoperated(tmp_path / name, total=1.5) for name in ("a", "b")]
    folder, config = tmp_path / "shards", PRESETS["tiny"]
    *_, done = convert(sources(*bags), folder, config)
    frames = folder / "00000" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[: frames.stat().st_size // 2])
    (folder / "00007.tmp").mkdir()
    (folder / "00007.tmp" / "index.json").write_text((folder / "00000" / "index.json").read_text())
    *_, again = convert(sources(*bags), folder, config)
    assert (done.made, again.made, again.known) == (2, 2, 0)
    assert [episode.source for episode in Episodes(folder).all] == [str(path) for path in bags]


def test_what_a_folder_has_with_other_cameras_is_not_taken_for_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        two_cameras(tmp_path / name)
    folder = tmp_path / "shards"

    def called(bag: str, *cameras: str, preset: str = "tiny") -> str:
        options = [option for camera in cameras for option in ("--camera", camera)]
        return CliRunner().invoke(command, ["bag", str(tmp_path / bag), str(folder), *options, "--preset", preset]).output

    assert "1 episodes made" in called("a", "image_raw", "wrist/image_raw")
    assert "0 episodes made, 1 were there" in called("a", "image_raw", "wrist/image_raw")
    reason = f"{tmp_path / 'a'} as image_raw, wrist/image_raw saw it, asked for is image_raw: give another folder"
    assert reason in called("a", "image_raw")
    assert "in 128 × 256 pixels, asked for are 224 × 448: give another folder" in called("a", "image_raw", "wrist/image_raw", preset="base")
    assert "1 episodes made" in called("b", "wrist/image_raw", "image_raw")
    checked = CliRunner().invoke(command, ["check", str(folder), "--views", "2"]).output
    assert "00001, episode 0: shows wrist/image_raw, image_raw from the top, earlier episodes image_raw, wrist/image_raw" in checked


def test_rollouts_become_episodes_that_are_trained_on(tmp_path: Path) -> None:
    """From the bags that the rollouts node writes to a training step, by the command line."""
    for k in range(3):
        moving_square(tmp_path / "rollouts" / f"rollout_2026010{k + 1}-120000_g{k}", total=3.0 + k, side=160)
    folder = tmp_path / "shards"
    result = CliRunner().invoke(command, ["bag", str(tmp_path / "rollouts"), str(folder)])
    assert result.exit_code == 0, result.output
    assert "3 episodes made, 0 were there, 0 skipped" in result.output
    episodes = Episodes(folder)
    first = episodes.all[0]
    t = times(first)
    np.testing.assert_allclose(first.joints, np.sin(0.3 * t[:, None] * np.arange(1, 7)), atol=1e-3)
    newest = np.floor(t / 0.04 + 1e-3) * 0.04
    np.testing.assert_allclose(first.command[2:, :6], np.sin(0.3 * newest[2:, None] * np.arange(1, 7)), atol=1e-3)
    np.testing.assert_array_equal(first.command[:, 6], ((newest > 1.0 + 1e-6) & (newest < 3.0 - 1e-6)).astype(np.float32))
    square = np.argmax(first.frames[:, 18, :, 0] > 150, axis=1)  # its left edge, at 0.8 of the recorded size
    shown = [np.argmax(drawn(round(s / 0.04) * 0.04, 160)[22, :, 0] > 150) for s in t[::2]]
    np.testing.assert_allclose(square, 0.8 * np.array(shown), atol=4)
    episodes.latents = [np.zeros((len(e.frames), 8, 8, 8), np.float16) for e in episodes.all]
    losses = System(SMALL).losses(Sampler(episodes, [0, 1, 2], SMALL, 0).batch(2))
    assert all(torch.isfinite(loss) for loss in losses.values())
    checked = CliRunner().invoke(command, ["check", str(folder)])
    assert "recorded                        3            0" in checked.output
    again = CliRunner().invoke(command, ["bag", str(tmp_path / "rollouts"), str(folder)])
    assert "0 episodes made, 3 were there" in again.output


def test_pictures_may_be_as_large_as_another_preset_s(tmp_path: Path) -> None:
    teleoperated(tmp_path / "bag", side=240)
    made = CliRunner().invoke(command, ["bag", str(tmp_path / "bag"), str(tmp_path / "shards"), "--preset", "base"])
    assert made.exit_code == 0 and "1 episodes made" in made.output, made.output
    (episode,) = read_shard(tmp_path / "shards" / "00000")
    assert episode.frames.shape[1:] == (224, 224, 3)
    for preset, usable in (("base", "1 shards; 0 shards or episodes skipped"), ("tiny", "224")):
        checked = CliRunner().invoke(command, ["check", str(tmp_path / "shards"), "--preset", preset])
        assert usable in checked.output, checked.output


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    moving_square(tmp_path / "rollout_20260101-120000_g")
    result = CliRunner().invoke(command, ["bag", str(tmp_path), str(tmp_path / "shards")])
    assert result.exit_code == 1
    assert "image of 48 × 48 pixels" in result.output
    assert "0 of 1 recordings gave an episode" in result.output
