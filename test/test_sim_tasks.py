"""OGBench's tasks with several objects: resets, goal pictures, success, random tasks, and an arm that changes its scene."""

import time

import mujoco
import numpy as np
import pytest

pytest.importorskip("ogbench")

from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController  # noqa: E402
from act2goal_ros.control.gripper import GripperController  # noqa: E402
from act2goal_ros.learning.dataset import KEYPOINTS  # noqa: E402
from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.furniture import FurnitureScene  # noqa: E402
from act2goal_ros.sim.realtime import LiveArm  # noqa: E402
from act2goal_ros.sim.scene import LightScene  # noqa: E402
from act2goal_ros.sim.tasks import ENVIRONMENTS, all_tasks, free_task, official_tasks, reset_options  # noqa: E402


@pytest.fixture(scope="module")
def arm() -> SimulatedArm:
    return SimulatedArm(image_size=64)


def ogbench_s_own(environment: str):
    """Its visual environment, but for the random actions before the goal picture, which it does not seed."""
    from ogbench.manipspace.envs.cube_env import CubeEnv
    from ogbench.manipspace.envs.scene_env import SceneEnv

    kind = SceneEnv if environment == "scene" else CubeEnv
    seeded = type("Seeded", (kind,), {"action_space": LightScene.action_space})
    return seeded(environment.removeprefix("cube-"), ob_type="pixels", width=64, height=64, visualize_info=False)


@pytest.mark.parametrize("task", ["cube-single-2", "cube-double-4", "cube-triple-3", "scene-4"])
def test_a_reset_is_ogbench_s_own(task):
    environment, _, number = task.rpartition("-")
    reference = ogbench_s_own(environment)
    _, info = reference.reset(seed=5, options={"task_id": int(number), "render_goal": True})
    arm = SimulatedArm(task, image_size=64, light=False)
    goal = arm.reset(seed=5)
    np.testing.assert_allclose(arm.data.qpos, reference.data.qpos, atol=1e-9)
    np.testing.assert_allclose(arm.data.mocap_pos, reference.data.mocap_pos)
    assert np.abs(goal.astype(float) - info["goal_rendered"]).mean() < 0.5
    assert np.abs(goal.astype(float) - arm.render()).mean() > 1.0
    assert np.abs(arm.render().astype(float) - reference.render()).mean() < 0.5, "and afterwards the scene looks as at the start"


@pytest.mark.parametrize(("environment", "seconds"), [("cube-single", 10.0), ("cube-double", 25.0), ("cube-triple", 50.0), ("scene", 37.5)])
def test_episodes_last_as_long_as_ogbench_s(arm, environment, seconds):
    arm.reset(official_tasks(environment)[0], 0)
    assert arm.environment == environment
    assert arm.episode_limit == seconds and arm.time == 0.0


@pytest.mark.parametrize("task", ["cube-double-random", "cube-triple-random", "scene-random", "scene-5"])
def test_a_seed_fixes_a_task(arm, task):
    first, state = arm.reset(task, 3), arm.data.qpos.copy()
    arm.reset(task, 4)
    assert not np.array_equal(arm.data.qpos, state)
    np.testing.assert_array_equal(arm.reset(task, 3), first)
    np.testing.assert_array_equal(arm.data.qpos, state)


def test_the_goal_s_buttons_are_seen_and_then_put_back(arm):
    goal = arm.reset("scene-4", 1)  # the first button is to change
    scene = arm.scene
    assert isinstance(scene, FurnitureScene)
    assert scene.button_states.tolist() == [0, 0] and scene.button_targets.tolist() == [1, 0]
    assert arm.model.joint("drawer_slide").damping[0] == 1e6 and arm.model.joint("window_slide").damping[0] == 1e6
    present = arm.render()
    with scene.goal_look():
        changed = np.abs(arm.render().astype(int) - present).max(2) > 40
    assert 3 < changed.sum() < 300
    np.testing.assert_array_equal(arm.render(), present)
    whiter = goal[changed].astype(int).min(1) - present[changed].min(1)
    assert np.median(whiter) > 20, "what is red now is white in the goal"


def test_success_takes_everything(arm):
    arm.reset("scene-4", 1)
    scene = arm.scene
    assert isinstance(scene, FurnitureScene)
    arm.data.qpos[:] = scene.goal_qpos
    assert arm.scene.successes() == [True, False, True, True, True] and not arm.success()
    with scene.goal_look():
        assert arm.success()
        arm.data.joint("window_slide").qpos[0] += 0.05
        assert not arm.success()
    arm.reset("cube-triple-5", 1)
    arm.data.qpos[:] = arm.scene.goal_qpos
    assert arm.success()
    arm.data.joint("object_joint_2").qpos[2] -= 0.05
    assert arm.scene.successes() == [True, True, False] and not arm.success()


def test_success_is_looked_for_after_each_of_ogbench_s_control_steps(arm):
    arm.reset("cube-single-2", 1)
    hold, before = arm.joint_positions, arm.snapshot()
    away = arm.data.joint("object_joint_0").qpos.copy()
    for step in range(1, 76):
        if step == 30:
            arm.place_cube_at_target(np.zeros(2))
        elif step == 40:  # before the control step ends
            arm.data.joint("object_joint_0").qpos[:] = away
        elif step == 60:
            arm.place_cube_at_target(np.zeros(2))
        arm.step(hold, 0.0)
        assert (arm.succeeded_at is None) == (step < 75)
    assert arm.succeeded_at == pytest.approx(0.15)
    arm.restore(before)
    assert arm.succeeded_at is None, "what was tried out does not count"


def test_a_pressed_button_changes_once_and_unlocks(arm):
    arm.reset("scene-2", 0)
    scene, button = arm.scene, arm.data.joint("buttonbox_joint_0")
    assert isinstance(scene, FurnitureScene)
    states = []
    for pressed in (False, True, True, False, True):
        button.qpos[0], button.qvel[0] = -0.023 * pressed, 0.0
        scene.after_control_step()
        states.append(int(scene.button_states[0]))
    assert states == [0, 1, 1, 1, 0]


def test_random_cubes_are_like_those_ogbench_collects():
    drawn = [reset_options("cube-triple-random", seed)["task_info"] for seed in range(200)]
    starts, goals = (np.array([d[name] for d in drawn]) for name in ("init_xyzs", "goal_xyzs"))
    for cubes in (*starts, *goals):
        assert (cubes[:, :2] >= [0.3, -0.3]).all() and (cubes[:, :2] <= [0.55, 0.3]).all()
        for i in range(3):
            below = [j for j in range(3) if abs(cubes[j, 2] - cubes[i, 2] + 0.04) < 1e-9 and np.allclose(cubes[j, :2], cubes[i, :2])]
            assert cubes[i, 2] == 0.02 or len(below) == 1, "every cube stands on the table or on one cube"
        apart = [np.linalg.norm(a - b) for i, a in enumerate(cubes) for b in cubes[:i]]
        assert min(apart) > 0.039
    assert 0.3 < (goals[:, :, 2] > 0.05).any(1).mean() < 0.9, "stacks"
    assert (goals[:, :, 2] > 0.09).any() and (starts[:, :, 2] > 0.05).any()
    assert 0.01 < (starts == goals).all((1, 2)).mean() < 0.15, "sometimes nothing is to be done"
    swapped = [not np.allclose(s, g) and np.allclose(np.sort(s, 0), np.sort(g, 0)) for s, g in zip(starts, goals, strict=True)]
    assert 0.1 < np.mean(swapped) < 0.5
    bottoms = [[i for i in range(3) if (np.linalg.norm(g[:, :2] - g[i, :2], axis=1) < 0.01).sum() > 1 and g[i, 2] < 0.03] for g in goals]
    moved = [any(np.linalg.norm(s[i] - g[i]) > 0.05 for i in below) for s, g, below in zip(starts, goals, bottoms, strict=True)]
    assert np.mean(moved) > 0.3, "stacks on a cube that has to be brought first"


def test_random_furniture_changes_in_every_way():
    drawn = [reset_options("scene-random", seed)["task_info"] for seed in range(200)]
    inits, goals = [d["init"] for d in drawn], [d["goal"] for d in drawn]
    for name in ("drawer_pos", "window_pos"):
        changes = np.array([g[name] - i[name] for i, g in zip(inits, goals, strict=True)])
        assert (changes > 0.07).any() and (changes < -0.07).any() and 0.2 < (changes == 0).mean() < 0.8
    buttons = np.array([i["button_states"] != g["button_states"] for i, g in zip(inits, goals, strict=True)])
    assert (buttons.mean(0) > 0.3).all() and (buttons.mean(0) < 0.8).all()
    inside = np.array([g["block_xyzs"][0, 2] > 0.05 for g in goals])
    still = np.array([np.allclose(i["block_xyzs"], g["block_xyzs"]) for i, g in zip(inits, goals, strict=True)])
    assert 0.4 < inside.mean() < 0.6 and 0.1 < still.mean() < 0.5


def test_tasks_have_ogbench_s_names():
    assert len(all_tasks()) == 6 * len(ENVIRONMENTS) + 1
    assert free_task("scene") == "scene-random" and official_tasks("cube-double")[3] == "cube-double-4"


class Ears:
    """Keeps the frames."""

    def __init__(self):
        self.pictures, self.errors = [], []

    def image(self, time, picture):
        self.pictures.append(picture)

    def failed(self, error):
        self.errors.append(error)

    def ignore(self, *_):
        pass

    clock = joints = controller = scene = ignore


def test_the_live_arm_changes_its_scene(arm):
    def build() -> SimulatedArm:
        made = SimulatedArm("cube-single-1", image_size=64)
        made.reset(seed=0)
        return made

    ears = Ears()
    controller = JointTrajectoryController(ControllerConfig(joint_names=SimulatedArm.joint_names))
    live = LiveArm(build, controller, GripperController(0.0, 0.8), ears)
    try:
        live.start()
        goal = live.reset("scene-3", 2).result(60.0)
        np.testing.assert_array_equal(goal, arm.reset("scene-3", 2))
        with pytest.raises(ValueError, match="unknown task 'fly'"):
            live.reset("fly", 2).result(60.0)
        count, end = len(ears.pictures), time.monotonic() + 20.0
        while len(ears.pictures) < count + 3 and time.monotonic() < end:
            time.sleep(0.05)
        assert ears.errors == [] and len(ears.pictures) >= count + 3
        assert np.abs(ears.pictures[-1].astype(float) - arm.render()).mean() < 3.0, "frames show the new scene"
        np.testing.assert_allclose(live.measured.positions, arm.joint_positions, atol=0.05)
    finally:
        live.close()


CUBES = ("cube 0", "cube 1", "cube 2", "gripper")
FURNITURE = ("cube 0", "button 0 on", "button 1 off", "drawer", "window", "gripper")


@pytest.mark.parametrize(("environment", "present"), [("cube-triple", CUBES), ("scene", FURNITURE)])
def test_key_points_are_where_the_picture_shows_the_things(arm, environment, present):
    """Hidden, a thing is missing from the picture at its key point and nowhere else of note."""
    arm.reset(f"{environment}-random", 3)
    found = arm.keypoints(KEYPOINTS)
    assert [KEYPOINTS[number] for number in np.flatnonzero(found[:, 2])] == list(present)
    for number in range(arm.scene.cube_positions().shape[0]):
        before = arm.render().astype(int)
        joint = arm.data.joint(f"object_joint_{number}")
        kept, joint.qpos[0] = joint.qpos[0].copy(), 10.0
        mujoco.mj_forward(arm.model, arm.data)
        assert arm.keypoints(KEYPOINTS)[number].tolist() == [0, 0, 0]
        changed = np.argwhere(np.abs(arm.render() - before).max(-1) > 40)
        joint.qpos[0] = kept
        mujoco.mj_forward(arm.model, arm.data)
        np.testing.assert_allclose(changed.mean(0)[::-1] + 0.5, found[number, :2] * 64, atol=1.5)


def seen_by_name(keypoints: np.ndarray) -> dict[str, list[float]]:
    return {name: row[:2].tolist() for name, row in zip(KEYPOINTS, keypoints, strict=True) if row[2] == 1.0}


def test_a_button_that_is_pressed_is_another_thing_at_the_same_place(arm):
    arm.reset("scene-2", 0)
    scene, button = arm.scene, arm.data.joint("buttonbox_joint_0")
    assert isinstance(scene, FurnitureScene)
    before = seen_by_name(arm.keypoints(KEYPOINTS))
    button.qpos[0] = -0.023
    scene.after_control_step()
    after = seen_by_name(arm.keypoints(KEYPOINTS))
    assert scene.button_states.tolist() == [1, 0]
    assert before.keys() - after.keys() == {"button 0 off"} and after.keys() - before.keys() == {"button 0 on"}
    assert after["button 0 on"] == before["button 0 off"] and after["button 1 off"] == before["button 1 off"]


@pytest.mark.parametrize("task", ["cube-triple-random", "scene-4"])
def test_goal_key_points_are_where_the_goal_has_the_things(arm, task):
    arm.reset(task, 1)
    now, told = seen_by_name(arm.keypoints(KEYPOINTS)), arm.goal_keypoints(KEYPOINTS)
    for number, target in enumerate(arm.scene.cube_targets()):
        np.testing.assert_allclose(told[number], [*arm._project(target), 1.0], atol=0.01)
    goal = seen_by_name(told)
    assert max(abs(goal[f"cube {number}"][0] - now[f"cube {number}"][0]) for number in range(len(arm.scene.cube_targets()))) > 0.01
    if task == "scene-4":  # the first button is to change, drawer and window are to move
        assert now.keys() - goal.keys() == {"button 0 off"} and goal.keys() - now.keys() == {"button 0 on"}
    arm.data.qpos[:] = arm.scene.goal_qpos
    with arm.scene.goal_look():
        mujoco.mj_forward(arm.model, arm.data)
        np.testing.assert_array_equal(arm.keypoints(KEYPOINTS), told)
    told[:] = 0.0
    assert seen_by_name(arm.goal_keypoints(KEYPOINTS)) == goal, "what is told is the caller's own"
