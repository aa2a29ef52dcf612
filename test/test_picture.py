"""The picture of a rollout, the story it is drawn from, and the commands that show rollouts."""

import numpy as np
import pytest
from click.testing import CliRunner
from rollout_maker import JOINTS, Maker, drawn, header, image, message, moving_square

from act2goal_ros.cli.picture import command as picture
from act2goal_ros.cli.rollout import command as rollout_command
from act2goal_ros.cli.rollout import reached_samples
from act2goal_ros.data import rollout
from act2goal_ros.data.story import spread, tell
from act2goal_ros.nodes import images

NAME = "rollout_20260101-000000_g1"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("rollouts") / NAME)


def test_the_story_has_what_happened(recorded):
    story = tell(rollout.describe(recorded), images.to_rgb, frames=6, plans=3)
    assert story.goal is not None and np.array_equal(story.goal, drawn(5.0))
    assert [t for t, _ in story.frames] == pytest.approx(list(np.minimum(np.linspace(0, 5.3, 6), 4.96)), abs=0.03)
    for time, seen in story.frames:
        assert np.array_equal(seen, drawn(round(time / 0.04) * 0.04))
    assert story.plans == 25 and len(story.imagined) == 3 and story.goal_ended == pytest.approx(5.0)
    first = story.imagined[0]
    assert first.time == pytest.approx(0.0) and len(first.pictures) == len(first.offsets) == 6
    assert np.array_equal(first.start, drawn(0.0)) and np.array_equal(first.pictures[0], drawn(0.4))
    assert first.chosen == {0: True, 1: True, 3: False, 4: False, 5: False}
    assert story.joint_names == JOINTS
    at = int(np.argmin(np.abs(story.commanded.times - 2.0)))
    assert story.commanded.values[at] == pytest.approx(np.sin(0.6 * np.arange(1, 7)), abs=1e-6)
    assert np.all(np.diff(story.commanded.times) > -1e-6)
    assert story.measured.values.shape[1] == 6
    assert [(s, w) for _, _, s, w in story.states] == [("running", ""), ("holding", "goal reached")]
    assert story.gripper.values.max() == 1.0 and story.progress.values[-1, 1] == 0.0
    assert story.ahead.shape[1] == 3 and np.all(story.ahead[story.ahead[:, 2] == 1.0, 1] <= 0.8 + 1e-6)


def test_the_picture_shows_frames_goal_and_the_selected_colours(recorded, tmp_path):
    result = CliRunner().invoke(picture, [str(recorded), "-o", str(tmp_path / "p.png")])
    assert result.exit_code == 0, result.output
    drawn_picture = images.load(tmp_path / "p.png")
    assert drawn_picture.shape[1] == 1700 and drawn_picture.shape[0] > 1000
    for colour in ((0xE0, 0x70, 0x1A), (0x24, 0x67, 0xC9), (0x2A, 0x8F, 0x4D)):  # near, far, goal
        exact = np.all(np.abs(drawn_picture.astype(int) - colour) < 4, axis=2)
        assert exact.sum() > 500
    square = np.all(np.abs(drawn_picture.astype(int) - (230, 120, 40)) < 12, axis=2)
    assert square.sum() > 7 * 300  # the moving square is in every live frame


def test_the_newest_rollout_is_drawn_into_its_own_folder(recorded):
    result = CliRunner().invoke(picture, ["--root", str(recorded.parent), "--frames", "3", "--plans", "1"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(recorded / "picture.png") and (recorded / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("what", ["nothing", "goal only", "no previews"])
def test_a_rollout_that_lacks_things_can_be_drawn(tmp_path, what):
    directory = tmp_path / NAME
    if what == "no previews":
        moving_square(directory, 2.0, plans_with_previews=0)
    else:
        made = Maker(directory)
        if what == "goal only":
            made.add("/goal", 0.0, header=header(0.0), goal_id="g1", state=1, image=image(drawn(1.0)))
            made.add("/goal", 1.0, header=header(1.0), goal_id="g1", state=4)
        made.close(outcome="failed")
    result = CliRunner().invoke(picture, [str(directory), "-o", str(tmp_path / "p.png")])
    assert result.exit_code == 0, result.output
    assert images.load(tmp_path / "p.png").shape[1] == 1700


def test_what_cannot_be_drawn_is_named(tmp_path):
    result = CliRunner().invoke(picture, ["nope", "--root", str(tmp_path)])
    assert result.exit_code == 1 and "'nope' must name one rollout" in result.output
    result = CliRunner().invoke(picture, ["--root", str(tmp_path)])
    assert result.exit_code == 1 and f"no finished rollout in {tmp_path}" in result.output


def test_spread_takes_the_nearest_and_no_frame_twice():
    assert spread([0.0, 1.0, 2.0, 3.0, 4.0], 3, 0.0, 4.0) == [0, 2, 4]
    assert spread([0.0, 5.0], 4, 0.0, 5.0) == [0, 1]
    assert spread([], 3, 0.0, 1.0) == [] and spread([1.0], 0, 0.0, 1.0) == []


def test_rollouts_are_listed_and_shown(recorded):
    listed = CliRunner().invoke(rollout_command, ["list", "--root", str(recorded.parent)])
    assert listed.exit_code == 0 and "reached" in listed.output and NAME in listed.output
    assert "1 rollouts" in listed.output
    shown = CliRunner().invoke(rollout_command, ["show", "--root", str(recorded.parent)])
    assert shown.exit_code == 0, shown.output
    assert "goal_id" in shown.output and "/image_raw" in shown.output and "125 " in shown.output


def made_for_detector(directory, success_at: float | None, low_from: float) -> None:
    made = Maker(directory)
    for k in range(100):
        t = 0.04 * k
        made.add("/joint_states", t, header=header(t), name=[*JOINTS, "gripper_knuckle_joint"], velocity=[0.0] * 6 + [3.0])
        made.add("/sim/state", t, header=header(t), success=success_at is not None and t >= success_at)
        point = message("trajectory_msgs/msg/JointTrajectoryPoint", positions=np.zeros(6))
        made.add(
            "/scaled_joint_trajectory_controller/joint_trajectory",
            t,
            header=header(t),
            joint_names=JOINTS,
            points=[point],
        )
        made.add("/progress", t, header=header(t), time_to_goal=0.1 if t >= low_from else 3.0, progress=0.9)
    made.close()


def test_false_positives_and_negatives_are_counted_from_recordings(tmp_path):
    made_for_detector(tmp_path / "rollout_20260101-000000_right", 1.0, 1.2)
    made_for_detector(tmp_path / "rollout_20260101-000001_wrong", None, 1.0)
    made_for_detector(tmp_path / "rollout_20260101-000002_missed", 1.0, 9.0)
    samples = reached_samples(rollout.find(tmp_path, "right"))
    assert len(samples) >= 98 and samples[-1].truth and samples[-1].speed == 0.0  # the gripper's joint does not count
    thresholds = ["--time-to-goal", "0.5", "--time-to-goal", "0.05"]
    result = CliRunner().invoke(rollout_command, ["reached", "--root", str(tmp_path), *thresholds])
    assert result.exit_code == 0, result.output
    loose, strict = (line.split() for line in result.output.splitlines()[-2:])
    assert loose[:6] == ["0.50", "s", "1", "1", "(", "50.0"] and "0.72" in loose[-5]
    assert strict[:4] == ["0.05", "s", "0", "0"] and strict[-6] == "1"
