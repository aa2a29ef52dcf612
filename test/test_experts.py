"""Scripted experts for several objects, and what is recorded of them."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

pytest.importorskip("ogbench")

from act2goal_ros.learning.dataset import Episode  # noqa: E402
from act2goal_ros.learning.simulate import Disturbances, Recorder  # noqa: E402
from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.experts.cube import CENTRED, SLOW, CubeExpert  # noqa: E402
from act2goal_ros.sim.experts.motion import (  # noqa: E402
    STEP,
    WRIST,
    ExpertLimits,
    SetPoints,
    clear_way,
    finger_room,
    roomy,
    turn_to,
    turns_left,
    wrap,
)
from act2goal_ros.sim.experts.order import APART, is_ready, next_cube, parking_place, settled_cubes  # noqa: E402
from act2goal_ros.sim.experts.sequence import ASIDE, Job, SequenceExpert  # noqa: E402

CLEAN = Disturbances(kick=0, miss=0, drop=0, misplace=0, sloppy=0, placed=0, pause=0, home=0)


@pytest.fixture(scope="module")
def arm() -> SimulatedArm:
    return SimulatedArm("cube-double-1", image_size=32)


# -- which cube is next ----------------------------------------------------------------------------------------


def test_the_bottom_of_a_stack_comes_first():
    cubes = np.array([[0.35, -0.1, 0.02], [0.5, -0.2, 0.02], [0.5, 0.0, 0.02]])
    targets = np.array([[0.4, 0.2, 0.10], [0.4, 0.2, 0.02], [0.4, 0.2, 0.06]])
    order = []
    while (found := next_cube(cubes, targets)) is not None:
        order.append(found)
        cubes[found[0]] = targets[found[0]]
    assert order == [(1, True), (2, True), (0, True)]


def test_a_stack_is_taken_down_from_the_top():
    cubes = np.array([[0.4, 0.2, 0.02], [0.4, 0.2, 0.06], [0.4, 0.2, 0.10]])
    targets = np.array([[0.35, -0.1, 0.02], [0.5, -0.2, 0.02], [0.5, 0.0, 0.02]])
    assert next_cube(cubes, targets) == (2, True)


def test_a_stack_that_is_turned_over_needs_a_place_in_between():
    cubes = np.array([[0.4, 0.2, 0.02], [0.4, 0.2, 0.06]])
    targets = cubes[::-1].copy()
    assert next_cube(cubes, targets) == (1, False)
    cubes[1] = parking_place(cubes, targets, 1)
    assert next_cube(cubes, targets) == (0, False), "its target is in the air; it stands where the other one belongs"
    cubes[0] = parking_place(cubes, targets, 0)
    assert next_cube(cubes, targets) == (1, True)


def test_cubes_that_change_places_need_one_in_between():
    cubes = np.array([[0.4, -0.1, 0.02], [0.4, 0.1, 0.02], [0.5, 0.25, 0.02]])
    targets = cubes[[1, 0, 2]]
    assert settled_cubes(cubes, targets).tolist() == [False, False, True]
    assert not is_ready(cubes, targets, 0)
    assert next_cube(cubes, targets) == (0, False)
    place = parking_place(cubes, targets, 0)
    assert min(np.linalg.norm(place - other) for other in (cubes[1], cubes[2], *targets)) >= APART - 1e-9
    cubes[0] = place
    assert next_cube(cubes, targets) == (1, True)


def test_a_cube_on_a_wrong_support_is_not_done():
    cubes = np.array([[0.4, 0.0, 0.06], [0.5, 0.2, 0.02], [0.4, 0.0, 0.02]])
    targets = np.array([[0.4, 0.0, 0.06], [0.4, 0.0, 0.02], [0.3, -0.2, 0.02]])
    assert not settled_cubes(cubes, targets).any()
    index, free = next_cube(cubes, targets)
    assert (index, free) == (0, False), "it stands on what has to go"


@pytest.mark.parametrize(("off", "on_top", "done"), [(0.025, False, True), (0.035, False, False), (0.025, True, False)])
def test_a_cube_a_little_beside_its_target_is_left_alone_unless_another_is_to_stand_on_it(off, on_top, done):
    targets = np.array([[0.4, 0.0, 0.02], [0.4, 0.0, 0.06] if on_top else [0.5, 0.2, 0.02]])
    cubes = targets + [[off, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert settled_cubes(cubes, targets)[0] == done


def test_what_was_let_go_carelessly_is_left_alone_or_taken_again():
    recorder, ends = Recorder(SimulatedArm("cube-single-1", image_size=32), replace(CLEAN, sloppy=1.0)), []
    for seed in range(4):
        episode = recorder.record(seed)
        assert episode is not None
        ends.append(np.linalg.norm(episode.cube[-1, :2] - episode.target[-1, :2]))
    assert max(ends) < 0.032 and max(ends) > 0.012, ends


# -- ways around what stands about ---------------------------------------------------------------------------


def test_what_is_in_the_way_is_passed_above():
    wall = np.array([[0.4, -0.05, 0.42, 0.05, 0.15]])
    low, end = np.array([0.3, 0.0, 0.05]), np.array([0.5, 0.0, 0.02])
    up = clear_way(low, end, end, wall)
    np.testing.assert_allclose(up[:2], low[:2])
    assert up[2] > 0.18
    across = clear_way(up, end, end, wall)
    assert across[2] > 0.18 and low[0] < across[0] < end[0]
    beyond = clear_way(np.array([0.5, 0.0, 0.2]), end, end, wall)
    np.testing.assert_allclose(beyond[:2], end[:2])
    assert beyond[2] < 0.2
    np.testing.assert_array_equal(clear_way(low, end, end, wall + [0, 0.5, 0, 0.5, 0]), end)


def test_fingers_keep_clear_of_a_neighbour():
    neighbour = np.array([[0.4 - 0.024, 0.06 - 0.024, 0.4 + 0.024, 0.06 + 0.024, 0.04]])
    cube = np.array([0.4, 0.0, 0.02])
    assert finger_room(cube, 0.0, neighbour) < 0.001 < 0.02 < finger_room(cube, np.pi / 2, neighbour)
    assert roomy(0.2, cube, neighbour[:0]) == 0.2
    for start in (0.2, -0.2, 1.3):
        heading, ways = start, []
        while abs(turn := roomy(heading, cube, neighbour) - heading) > 1e-9:
            ways.append(np.sign(turn))
            heading += 0.1 * turn
        assert finger_room(cube, heading, neighbour) > 0.004 and len(set(ways)) <= 1, (start, heading, ways)


def test_a_gripper_turns_back_before_its_joint_ends():
    neighbour = np.array([[0.4 - 0.024, 0.06 - 0.024, 0.4 + 0.024, 0.06 + 0.024, 0.04]])
    cube = np.array([0.4, 0.0, 0.02])
    for wrist in (0.2 - WRIST, WRIST - 0.2, -WRIST - 0.5):
        turn = roomy(0.2, cube, neighbour, turns_left(wrist)) - 0.2
        assert abs(wrist - turn) <= max(WRIST, abs(wrist)), wrist
        assert finger_room(cube, 0.2 + turn, neighbour) > 0.004


def test_a_handle_is_taken_with_the_same_turns_of_the_wrist_whichever_way_is_nearer():
    """No two ways are as good: the turn grows steadily with how far the wrist is off."""
    joints = np.zeros(6)
    for pan in (-2.5, -1.3):
        ends = set()
        turns = []
        for wrist in np.linspace(-4.4, 4.4, 90):
            joints[0], joints[-1] = pan, wrist
            turn = turn_to(np.pi / 2, wrap(pan - wrist + np.pi / 2), joints)
            ends.add(round(wrist - turn, 6))  # yaw grows as the wrist is turned back
            turns.append(turn)
        assert ends == {round(pan, 6)} and (np.diff(turns) > 0).all()
    joints[0], joints[-1] = -2.0, -1.0
    assert turn_to(0.0, 0.62, joints) == pytest.approx(-0.62), "a tilted gripper's yaw is the one that counts"


# -- whole tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "seed"), [("cube-double-4", 2), ("cube-double-4", 11), ("cube-triple-5", 1), ("scene-5", 1), ("scene-5", 1002)]
)
def test_a_task_is_done_within_ogbench_s_limit_and_the_arm_s(arm, task, seed):
    arm.reset(task, seed)
    expert = SequenceExpert(arm, np.array([0.425, 0.0, 0.28]))
    points, limits = SetPoints(arm.joint_positions, ExpertLimits()), ExpertLimits()
    command = arm.joint_positions
    while not expert.done and arm.time < arm.episode_limit:
        target, gripper = expert.act()
        for point in points.advance(target):
            arm.step(point, gripper)
            assert np.abs(point - command).max() <= limits.velocity * 0.002 + 1e-6
            command = point
    assert expert.done and arm.at_rest_and_released(), (expert.job, expert.phase, arm.scene.successes())
    assert expert.completed >= 2


def test_a_cube_near_the_base_is_met_from_above_and_let_go_where_it_belongs(arm):
    arm.reset("cube-single-2", 8)
    expert = SequenceExpert(arm, np.array([0.425, 0.0, 0.28]))
    points, let_go = SetPoints(arm.joint_positions, ExpertLimits()), []
    while not expert.done and arm.time < 6.0:
        target, gripper = expert.act()
        if expert.phase == "release" and not let_go:
            let_go = [np.linalg.norm(arm.object_positions - arm.target_positions), np.abs(arm.joint_velocities).max()]
        _follow(arm, points, target, gripper)
    assert expert.done and arm.at_rest_and_released()
    assert let_go[0] < CENTRED + 0.006 or let_go[1] < SLOW  # 6 mm: it may hang lower than its target


def test_a_cube_on_its_side_is_still_grasped(arm):
    arm.reset("cube-double-1", 3)
    for i in range(2):  # one edge stays where its top was
        arm.data.joint(f"object_joint_{i}").qpos[3:] = np.sqrt([0.5, 0.0, 0.5, 0.0])
    expert = SequenceExpert(arm, np.array([0.425, 0.0, 0.28]))
    points = SetPoints(arm.joint_positions, ExpertLimits())
    while not expert.done and arm.time < 8.0:
        _follow(arm, points, *expert.act())
    assert expert.done and arm.success()


def test_the_gripper_keeps_its_yaw_however_the_cube_lies():
    arm = SimulatedArm("cube-single-1", image_size=32)
    arm.reset("cube-single-1", 0)
    arm.data.joint("object_joint_0").qpos[3:] = [np.cos(0.25), 0.0, 0.0, np.sin(0.25)]  # turned by 0.5 rad
    expert, start = SequenceExpert(arm, np.array([0.425, 0.0, 0.28])), arm.gripper_yaw
    points, turned = SetPoints(arm.joint_positions, ExpertLimits()), []
    while not expert.done and arm.time < 10.0:
        _follow(arm, points, *expert.act())
        turned.append(abs(wrap(arm.gripper_yaw - start)))
    assert expert.done and arm.success()
    assert max(turned) < 0.2, "fingers that close turn the cube"


def is_sound(episode: Episode, arm: SimulatedArm) -> bool:
    """Labels are of one object until it is done, and the last one is done."""
    assert episode.target.shape == episode.cube.shape == (len(episode), 3)
    assert list(episode.milestones) == sorted(episode.milestones)
    assert all(0 < step < len(episode) for step in episode.milestones)
    return episode.environment == arm.environment and arm.success()


def test_a_recording_tells_what_is_handled_and_when_it_is_done(arm):
    recorder = Recorder(arm, CLEAN)
    arm.reset("cube-double-random", 0)
    swap = next(s for s in range(100) if _is_swap(s))
    episode = recorder.record(swap)
    assert episode is not None and is_sound(episode, arm) and len(episode.milestones) == 2
    parked, placed = episode.milestones
    for step in (parked, placed, len(episode) - 1):
        assert np.linalg.norm(episode.cube[step] - episode.target[step]) < 0.02, "the object is where its label wanted it"
        assert episode.command[step, -1] < 0.5, "and let go"
    assert np.linalg.norm(episode.target[0] - episode.target[-1]) > 0.05, "parked first"
    assert not episode.disturbed.any()


def _is_swap(seed: int) -> bool:
    from act2goal_ros.sim.tasks import reset_options

    task = reset_options("cube-double-random", seed)["task_info"]
    return np.allclose(task["init_xyzs"], task["goal_xyzs"][::-1]) and (task["init_xyzs"][:, 2] == 0.02).all()


def test_disturbances_come_with_every_object_and_pauses_in_between(arm):
    arm.reset("cube-double-random", 0)
    swap = next(s for s in range(100) if _is_swap(s))
    episode = Recorder(arm, Disturbances(kick=1, miss=1, pause=1, again=1)).record(swap)
    assert episode is not None and is_sound(episode, arm) and len(episode.milestones) >= 2
    for step in episode.milestones:
        assert np.abs(episode.velocities[step]).max() < 0.1, "a pause ends at rest"
        assert episode.disturbed[step], "and is not learnt"
    assert episode.disturbed[episode.milestones[0] + 1 :].any()
    assert STEP * len(episode) < 32.5


def test_the_arm_is_also_where_it_ends_while_there_is_more_to_do(arm):
    """Else a policy learns that all is done from where the arm is alone, and waits there for good."""
    arm.reset("cube-double-random", 0)
    swap = next(s for s in range(100) if _is_swap(s))
    episode = Recorder(arm, replace(CLEAN, pause=1, home=1)).record(swap)
    assert episode is not None and len(episode.milestones) >= 2
    for step in (0, *episode.milestones):
        away = np.linalg.norm(_tool(arm, episode.joints[step]) - _tool(arm, episode.joints[-1]))
        assert away < 0.025, (step, away)


def test_with_a_driver_the_arm_ends_where_the_goal_s_picture_shows_it(arm):
    class Capable:
        def begin(self, arm, goal):
            self.expert = SequenceExpert(arm, np.array([0.425, 0.0, 0.28]))

        def advance(self, arm, picture):
            return self.expert.act()

    arm.reset("cube-single-random", 3)
    episode = Recorder(arm, CLEAN, driver=Capable(), driven=5.0).record(3)
    assert episode is not None
    assert np.linalg.norm(_tool(arm, episode.joints[-1]) - arm.goal_pinch_position) < 0.015


def _tool(arm: SimulatedArm, joints: np.ndarray) -> np.ndarray:
    arm.data.qpos[arm.scene.arm_joints] = joints
    mujoco.mj_forward(arm.model, arm.data)
    return arm.pinch_position


def test_a_cube_that_was_taken_too_early_is_put_down_until_its_drawer_is_open(arm):
    """As a policy may do; else the expert carries it to the shut drawer for good."""
    arm.reset("scene-4", 0)
    expert, points = SequenceExpert(arm, np.array([0.425, 0.0, 0.28])), SetPoints(arm.joint_positions, ExpertLimits())
    taking = CubeExpert(arm, np.array([0.425, 0.0, 0.28]))
    while taking.phase not in ("transfer", "lower"):
        _follow(arm, points, *taking.act())
    assert expert.next_job() == Job("cube", 0, ASIDE)
    while not expert.done and arm.time < arm.episode_limit:
        _follow(arm, points, *expert.act())
    assert expert.done and arm.success(), (expert.job, expert.phase)


def _follow(arm: SimulatedArm, points: SetPoints, target: np.ndarray, gripper: float) -> None:
    for point in points.advance(target):
        arm.step(point, gripper)


def test_a_kick_is_action_noise_that_is_flagged_and_made_up_for() -> None:
    arm = SimulatedArm("cube-single-1")
    calm, kicked = (Recorder(arm, replace(CLEAN, kick=kick)).record(12) for kick in (0.0, 1.0))
    assert calm is not None and kicked is not None
    assert not calm.disturbed.any() and 3 <= kicked.disturbed.sum() <= 3 * 8
    first = int(np.argmax(kicked.disturbed))
    same = min(len(calm.joints), first)
    np.testing.assert_array_equal(kicked.command[:same], calm.command[:same])
    assert np.abs(kicked.command[first : first + 5, :6] - calm.command[first : first + 5, :6]).max() > 0.005  # rad
