"""The scripted expert over the topics: its ways, and the command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ros_tools import new_domain

from act2goal_ros.sim.experts.motion import ExpertLimits
from act2goal_ros.sim.remote import Way

LIMITS = ExpertLimits()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-2.0, 2.0), st.floats(0.02, 0.5)), min_size=1, max_size=8))
def test_ways_join_smoothly_within_limits_and_end_at_rest(turns):
    way, now = Way(np.zeros(2)), 100.0
    for target, wait in turns:
        way.turn(now + 0.01, np.array([target, -target / 2]))
        trajectory = way.trajectory(now - 0.02)
        velocity, acceleration, _ = trajectory.peaks()
        assert velocity.max() < LIMITS.velocity * 1.02
        assert acceleration.max() < LIMITS.acceleration * 1.05
        assert trajectory.velocities[-1] == pytest.approx(0.0)
        assert trajectory.positions[-1] == pytest.approx([target, -target / 2], abs=1e-6)
        now += wait
        following = way.trajectory(now - 0.02)
        for mine, theirs, off in zip(trajectory.sample(now), following.sample(now), (1e-4, 5e-3, 0.5), strict=True):
            assert mine == pytest.approx(theirs, abs=off)


def test_a_way_can_always_turn_also_where_it_is_nearly_at_rest():
    random, plans = np.random.default_rng(0), 0
    for _ in range(20):
        way, target, now = Way(random.normal(size=6)), random.normal(size=6), 1.7e9
        for _ in range(200):
            target = target + random.normal(size=6) * random.choice([0.0, 1e-4, 0.01, 0.3], p=[0.3, 0.4, 0.25, 0.05])
            way.turn(now, target)
            plans += 1
            now += 0.05 + random.exponential(0.003)
    assert plans == 4000


def test_a_way_is_at_rest_where_it_began_until_it_turns():
    way = Way(np.array([1.0, 2.0]))
    assert way.trajectory(5.0).positions == pytest.approx(np.tile([1.0, 2.0], (1, 1)))


def drive(*arguments):
    environment = {**os.environ, "ROS_DOMAIN_ID": str(new_domain())}
    code = "from act2goal_ros.cli.drive import command; command()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


def test_the_expert_carries_the_cube_to_its_target():
    process = drive("--episodes", "2", "--seed", "11", "--task", "cube-single-4")
    output, _ = process.communicate(timeout=150)
    assert "2 of 2 episodes succeeded" in output, output
    assert output.count("at rest and released") == 2, output
    assert process.returncode == 0


def test_an_episode_that_does_not_succeed_in_time_fails_the_command():
    process = drive("--timeout", "1", "--seed", "11")
    output, _ = process.communicate(timeout=120)
    assert "FAILED" in output
    assert process.returncode == 1


def test_without_an_arm_it_says_so():
    process = drive("--no-start")
    process.communicate(timeout=60)
    assert process.returncode == 1


def children(process):
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_an_arm_that_stood_still_for_a_second_is_driven_on():
    process = drive("--episodes", "2", "--seed", "11", "--task", "cube-single-4")
    assert process.stdout.readline().startswith("no simulated arm")
    assert process.stdout.readline().startswith("cube-single-4")
    time.sleep(2.5)
    os.kill(children(process)[0], signal.SIGSTOP)
    time.sleep(1.2)
    os.kill(children(process)[0], signal.SIGCONT)
    output, _ = process.communicate(timeout=120)
    assert output.startswith("cube-single-4 seed 12: success"), output


def test_interrupted_it_leaves_no_process_behind():
    process = drive("--episodes", "50")
    assert process.stdout.readline().startswith("no simulated arm")
    time.sleep(8.0)
    arm = children(process)
    assert arm
    process.send_signal(signal.SIGINT)
    process.wait(20)
    time.sleep(0.2)
    assert not any(os.path.exists(f"/proc/{child}") for child in arm)
