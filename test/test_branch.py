"""A simulation that is looked into ahead goes on as if it had not been; looks and regions of an evaluation."""

import numpy as np
import pytest

pytest.importorskip("ogbench")

from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.branch import expert_future  # noqa: E402
from act2goal_ros.sim.look import LOOKS, RANGE, UNSEEN, look_range  # noqa: E402
from act2goal_ros.sim.tasks import HIGH, LOW, MARGIN, beyond_task, environment_of, reset_options  # noqa: E402


@pytest.fixture(scope="module")
def arm() -> SimulatedArm:
    return SimulatedArm(image_size=64)


def wander(arm: SimulatedArm, steps: int) -> np.ndarray:
    """Joints and velocities after so many physics steps of a motion."""
    for k in range(steps):
        arm.step(arm.joint_positions + 0.02 * np.sin(np.arange(6) + 0.1 * k), 0.5)
    return np.concatenate([arm.data.qpos, arm.data.qvel])


@pytest.mark.parametrize("task", ["cube-single-2", "scene-2"])
def test_the_future_changes_nothing(arm: SimulatedArm, task: str) -> None:
    arm.reset(task, 1)
    wander(arm, 60)
    snapshot = arm.snapshot()
    expected = wander(arm, 80)
    arm.restore(snapshot)
    picture, time = arm.render(), arm.time
    future = expert_future(arm, lambda arrival: np.array([0, arrival // 2, arrival]))
    assert future is not None and future.arrival > 20
    assert arm.time == time
    np.testing.assert_array_equal(arm.render(), picture)
    np.testing.assert_array_equal(wander(arm, 80), expected)


def test_the_future_ends_as_the_goal_picture(arm: SimulatedArm) -> None:
    goal = arm.reset("cube-single-2", 1).astype(float)
    future = expert_future(arm, lambda arrival: np.array([0, arrival]))
    assert future is not None
    start, end = (np.abs(picture - goal).mean() for picture in future.pictures.astype(float))
    assert end < 0.5 * start


def test_a_region_nobody_trained_in() -> None:
    drawn = [reset_options(beyond_task(), seed)["task_info"] for seed in range(300)]
    places = np.array([[task["init_xyzs"][0], task["goal_xyzs"][0]] for task in drawn])[..., :2]
    outside = ((places < LOW) | (places > HIGH)).any(2)
    assert outside.any(1).all() and not outside.all(), "start or goal, often only one of them"
    assert (places >= np.subtract(LOW, MARGIN)).all() and (places <= np.add(HIGH, MARGIN)).all()
    assert environment_of(beyond_task()) == "cube-single"


def test_looks_by_name() -> None:
    assert look_range("fast") is None and look_range("stock") is None and look_range("unseen:region") is None
    assert look_range("randomised") is RANGE
    assert {f"unseen:{name}" for name in UNSEEN} < set(LOOKS) and look_range("unseen:camera") == UNSEEN["camera"]
    with pytest.raises(ValueError, match="look 'nice' is not one of fast, stock, randomised"):
        look_range("nice")
