"""The simulated arm and its expert."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("ogbench")

from act2goal_ros.learning.simulate import Disturbances, Recorder  # noqa: E402
from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.experts.motion import ExpertLimits  # noqa: E402
from act2goal_ros.sim.look import PLAIN, RANGE, UNSEEN  # noqa: E402
from act2goal_ros.sim.scene import CAMERA, CubeScene  # noqa: E402


@pytest.fixture(scope="module")
def arm() -> SimulatedArm:
    return SimulatedArm()


def test_a_seed_fixes_the_reset(arm: SimulatedArm) -> None:
    first = arm.reset("cube-single-2", 7)
    state = arm.data.qpos.copy()
    arm.reset("cube-single-4", 3)
    second = arm.reset("cube-single-2", 7)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(state, arm.data.qpos)
    assert first.shape == (128, 128, 3)


def test_the_goal_picture_leaves_the_scene_alone(arm: SimulatedArm) -> None:
    goal = arm.reset("cube-single-1", 1)
    assert np.abs(goal.astype(int) - arm.render()).max() > 60
    np.testing.assert_allclose(arm.target_positions, [[0.425, -0.1, 0.02]])
    assert np.abs(arm.object_positions[0, :2] - [0.425, 0.1]).max() <= 0.01
    assert not arm.success()


def test_light_meshes_weigh_the_same() -> None:
    masses = []
    for light in (True, False):
        scene = CubeScene(light=light)
        scene.reset(seed=0, options={"task_id": 1})
        model = scene.model
        masses.append({model.body(i).name: model.body_mass[i] for i in range(model.nbody) if model.body(i).name != "distractor"})
    assert masses[0].keys() == masses[1].keys()
    np.testing.assert_allclose([*masses[0].values()], [*masses[1].values()], rtol=1e-6)


def test_light_meshes_look_alike() -> None:
    """Against OGBench's own rendering, without what the light one leaves out: shadows and multisampling."""
    pictures = []
    for light in (True, False):
        scene = CubeScene(render_size=128, light=light)
        scene.reset(seed=0, options={"task_id": 1})
        scene.model.light_castshadow[:] = 0
        pictures.append(scene.render(camera=CAMERA).astype(float))
    assert np.abs(pictures[0] - pictures[1]).mean() < 4.0


def test_unknown_tasks_are_named(arm: SimulatedArm) -> None:
    with pytest.raises(ValueError, match="unknown task 'cube-9'; there are cube-single-1"):
        arm.reset("cube-9")


def test_the_expert_gets_there_within_its_limits(arm: SimulatedArm) -> None:
    recorder = Recorder(arm, Disturbances(kick=0, miss=0, drop=0, misplace=0, sloppy=0, placed=0))
    for seed in range(3):
        episode = recorder.record(seed)
        assert episode is not None
        assert np.linalg.norm(episode.cube[-1] - episode.target[-1]) < 0.02
        assert not episode.disturbed.any()
        speed = np.abs(np.diff(episode.command[:, :6], axis=0)) / 0.05
        assert speed.max() <= ExpertLimits().velocity + 1e-3


def test_the_expert_recovers_from_a_miss_and_a_drop(arm: SimulatedArm) -> None:
    episode = Recorder(arm, Disturbances(kick=1, miss=1, drop=1, sloppy=0, placed=0)).record(4)
    assert episode is not None
    assert 0.02 < episode.disturbed.mean() < 0.9
    grasps = np.diff((episode.command[:, 6] > 0.5).astype(int)) == 1
    assert grasps.sum() >= 2


class _Wanderer:
    """Moves one joint, and closes the gripper, whatever is seen."""

    def __init__(self) -> None:
        self.goals: list[np.ndarray] = []
        self.pictures = 0

    def begin(self, goal: np.ndarray) -> None:
        self.goals.append(goal)

    def advance(self, arm: SimulatedArm, picture: np.ndarray | None) -> tuple[np.ndarray, float]:
        self.pictures += picture is not None
        return arm.joint_positions + np.array([0.05, 0, 0, 0, 0, 0]), 1.0


def test_the_expert_makes_up_for_what_a_driver_did(arm: SimulatedArm) -> None:
    driver = _Wanderer()
    clean = Disturbances(kick=0, miss=0, drop=0, misplace=0, sloppy=0, placed=0)
    episode = Recorder(arm, clean, driver=driver, driven=1.0).record(0)
    assert episode is not None and len(driver.goals) == 1
    driven = int(np.argmin(episode.disturbed))
    assert 10 <= driven <= 21 and not episode.disturbed[driven + 1 :].any(), "the driver's steps are not learnt, the expert's are"
    assert driver.pictures == driven // 2
    assert np.linalg.norm(episode.cube[-1] - episode.target[-1]) < 0.02
    steps = np.abs(np.diff(episode.command[:, :6], axis=0))
    assert steps[driven - 1 : driven + 2].max() < 0.15, "the expert takes over without a jump"


def test_a_random_look_changes_what_the_camera_sees_and_nothing_else() -> None:
    arm = SimulatedArm("cube-double-1")
    plain_goal, plain = arm.reset("cube-double-1", seed=3), arm.render()
    start = arm.data.qpos.copy()
    for limits in (RANGE, *UNSEEN.values()):
        arm.look = limits
        goal, seen = arm.reset("cube-double-1", seed=3), arm.render()
        assert np.abs(seen.astype(int) - plain).mean() > 0.02
        assert np.abs(goal.astype(int) - plain_goal).mean() > 0.02
        np.testing.assert_array_equal(arm.data.qpos, start)
        np.testing.assert_array_equal(arm.reset("cube-double-1", seed=3), goal)  # the seed decides
    arm.look = None
    np.testing.assert_array_equal(arm.reset("cube-double-1", seed=3), plain_goal)
    np.testing.assert_array_equal(arm.render(), plain)


def test_the_distractor_touches_nothing() -> None:
    arm = SimulatedArm("cube-single-1", look=replace(PLAIN, distractor=1.0))
    arm.reset("cube-single-1", seed=0)
    geom = arm.model.geom("distractor")
    assert geom.contype == 0 and geom.conaffinity == 0
    place = arm.data.geom_xpos[geom.id]
    assert place[2] > 0.0
    for thing in (*arm.object_positions, *arm.target_positions):
        assert np.linalg.norm(place[:2] - thing[:2]) > 0.12
