"""Streams a sine on one joint to the controller at 50 Hz until it is killed.

Every message covers 120 ms and ends at rest with a braking tail, as design.md asks of a sender. usage: sine.py JOINT
"""

import sys
import time

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.nodes import qos, trajectories

AMPLITUDE, FREQUENCY = 0.5, 2.5  # rad, rad/s: at most 1.25 rad/s
BACK, COVER, STEP, TAIL = 0.04, 0.08, 0.02, 0.3  # s


def main() -> None:
    """Runs until killed."""
    robot = RobotConfig.load("ur5e_sim")
    joint = robot.joint_names.index(sys.argv[1])
    rclpy.init()
    node = Node("sine")
    publisher = node.create_publisher(JointTrajectory, robot.controller.joint_trajectory_topic, qos.COMMAND)
    states: list[JointState] = []
    subscription = node.create_subscription(JointState, robot.joint_states_topic, states.append, qos.SENSOR)
    while not states or not publisher.get_subscription_count():
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_subscription(subscription)
    home = np.array(states[-1].position[: len(robot.joint_names)])
    began = time.time()
    while True:
        publisher.publish(trajectories.to_message(piece(home, joint, began, time.time()), robot.joint_names))
        print(time.time(), flush=True)
        time.sleep(STEP)


def piece(home: np.ndarray, joint: int, began: float, now: float) -> Trajectory:
    """From BACK before now to COVER after it, then to rest within TAIL."""
    times = np.arange(0.0, BACK + COVER + 1e-9, STEP)
    phase = FREQUENCY * (now - BACK - began + times)
    q, v, a = (np.zeros((len(times) + 1, len(home))) for _ in range(3))
    q[:] = home
    ramp = np.clip(phase / np.pi, 0.0, None) ** 3 / (1 + np.clip(phase / np.pi, 0.0, None) ** 3)
    wave = AMPLITUDE * ramp * np.sin(phase)
    q[:-1, joint] += wave
    v[:-1, joint] = np.gradient(wave, STEP)
    a[:-1, joint] = np.gradient(v[:-1, joint], STEP)
    q[-1, joint] = q[-2, joint] + v[-2, joint] * TAIL / 2
    return Trajectory(now - BACK, np.append(times, times[-1] + TAIL), q, v, a)


if __name__ == "__main__":
    main()
