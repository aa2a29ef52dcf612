"""The simulated UR5e: physics, controllers and camera behind the topics a real one offers.

publishes: joint_states (arm and gripper joint), image_raw and camera_info (stamped with the instant of the rendered state),
sim/state (for evaluation only), /clock (only while stepped); with controller_server.py and gripper_server.py everything of
the joint trajectory controller and of the gripper. services: sim/reset (ResetSim), sim/set_task (SetTask: for the next
reset). The topics of controller, gripper, joint states and camera are those the robot file names.
"""

from __future__ import annotations

import importlib
import math
import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from act2goal_msgs.msg import NodeStatus, SimState
from act2goal_msgs.srv import ResetSim, SetTask
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header

from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController
from act2goal_ros.control.gripper import GripperController
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import HEARTBEAT, ManagedNode, run
from act2goal_ros.nodes.controller_server import ControllerServer, numbers, stamp
from act2goal_ros.nodes.gripper_server import GripperServer
from act2goal_ros.nodes.parameters import NodeParameters, niceness, param
from act2goal_ros.sim.realtime import STEP, Joints, LiveArm, Picture, Rates, Scene
from act2goal_ros.sim.trace import Trace

REPORT_PERIOD = 1.0  # s
SLOW = 0.98  # real-time factor below which the node warns


@dataclass(frozen=True, kw_only=True)
class SimulatedArmParameters(NodeParameters):
    """Parameters of the simulated arm."""

    nice: int = niceness(-10)  # it stands for hardware, which others do not slow down; rendering as well
    robot: str = param("ur5e_sim", "", "name or path of a file in config/robots: joints, controller, gripper, camera")
    task: str = param("cube-single-1", "", "what the first episode is; sim/set_task tells what there is")
    seed: int = param(-1, "", "of the first episode; negative: unseeded", low=-1, high=2**31 - 1)
    image_size: int = param(128, "pixels", "height and width of camera frames", low=32, high=512)
    camera_rate: float = param(25.0, "Hz", "camera frames a second", low=1.0, high=60.0)
    joint_state_rate: float = param(125.0, "Hz", "joint states a second", low=10.0, high=500.0)
    controller_state_rate: float = param(50.0, "Hz", "controller states a second", low=10.0, high=500.0)
    scene_rate: float = param(20.0, "Hz", "sim/state messages a second; how often success is judged", low=1.0, high=100.0)
    allow_trajectory_replacement: bool = param(
        False, "", "the controller splices a new trajectory into the running one, as the newest ros2_controllers do"
    )
    interpolate_from_desired_state: bool = param(
        True, "", "the controller leads in to a new trajectory from the desired, not from the measured state"
    )
    allow_nonzero_velocity_at_trajectory_end: bool = param(False, "", "the controller takes trajectories that end moving")
    path_tolerance: float = param(
        1.0, "rad", "a joint further from its reference is held; 0: never (a UR5e: 0.2; these servos lag)", low=0.0, high=7.0
    )
    goal_tolerance: float = param(0.1, "rad", "of an action goal's end; 0: none", low=0.0, high=7.0)
    goal_time: float = param(0.0, "s", "an action goal may come in later than its end; 0: for ever", low=0.0, high=60.0)
    max_deceleration_on_cancel: float = param(
        0.0, "rad/s²", "with which a canceled goal is braked; 0: held at once, as the real default", low=0.0, high=100.0
    )
    speed_scaling: float = param(
        1.0, "", "the teach pendant's slider: s of trajectory a second, 0 pauses", low=0.0, high=1.0, runtime=True
    )
    niceness: int = param(-10, "", "of the physics thread at most, where the system permits it", low=-20, high=19)
    stepped: bool = param(False, "", "keep a clock of its own and publish it as /clock; the other nodes use_sim_time")
    step_speed: float = param(1.0, "", "simulated seconds a second while stepped", low=0.01, high=20.0)
    trace: str = param("", "", "file (.npz) that set-points of every physics step and frames' delays go to at the end; empty: none")


class SimulatedArmNode(ManagedNode[SimulatedArmParameters]):
    """Builds the arm when configured; physics runs while active."""

    def __init__(self) -> None:
        super().__init__("simulated_arm", SimulatedArmParameters)

    # lifecycle

    def setup(self) -> None:
        robot = RobotConfig.load(self.p.robot)
        self._names = [*robot.joint_names, robot.gripper.joint]
        self._frame_id = robot.camera.frame_id
        self._joints_out = self.own(self.create_publisher(JointState, robot.joint_states_topic, qos.SENSOR))
        self._images_out = self.own(self.create_publisher(Image, robot.camera.topic, qos.SENSOR))
        self._info_out = self.own(self.create_publisher(CameraInfo, topics.CAMERA_INFO, qos.SENSOR))
        self._scene_out = self.own(self.create_publisher(SimState, topics.SIM_STATE, qos.SENSOR))
        self._clock_out = self.own(self.create_publisher(ClockMsg, "/clock", qos.SENSOR)) if self.p.stepped else None
        self._live = self.own(self._build(robot))
        self._live.controller.speed_scaling = self.p.speed_scaling
        self._task = self.p.task
        self._info = _camera_info(self.p.image_size, self._live.field_of_view, self._frame_id)
        self._server = self.own(ControllerServer(self, robot.controller.name, self._live))
        self.own(GripperServer(self, robot.gripper, self._live))
        self.own(self.create_service(ResetSim, topics.RESET_SIM, self._reset))
        self.own(self.create_service(SetTask, topics.SET_TASK, self._set_task))
        self.own(self.create_timer(REPORT_PERIOD, self._tell, clock=Clock(clock_type=ClockType.STEADY_TIME)))

    def start(self) -> None:
        self._live.start()

    def halt(self) -> None:
        self._live.stop()

    def changed(self, names: set[str]) -> None:
        with self._live.lock:
            self._live.controller.speed_scaling = self.p.speed_scaling

    # callbacks

    def _reset(self, request: ResetSim.Request, response: ResetSim.Response) -> ResetSim.Response:
        task, seed = request.task or self._task, None if request.seed < 0 else int(request.seed)
        try:
            goal_image = self._when_reset(self._live.reset(task, seed))
        except ValueError as error:
            response.message = str(error)
            return response
        self._task = task
        response.success, response.episode = True, self._live.episode
        response.message = f"episode {response.episode}: {task}"
        response.goal_image = images.to_message(goal_image, self._header(self._live.time))
        return response

    def _set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        response.tasks = self._live.tasks
        response.success = request.task in response.tasks
        if response.success:
            self._task = request.task
            response.message = f"the next reset starts {request.task}"
        else:
            response.message = f"unknown task '{request.task}'; there are {', '.join(response.tasks)}"
        return response

    def _tell(self) -> None:
        live = self._live
        values = {
            "task": self._task,
            "episode": live.episode,
            "real_time_factor": f"{live.pacer.factor:.4f}",
            "lost_s": f"{live.pacer.lost:.3f}",
            "skipped_frames": live.skipped_frames,
            "speed_scaling": f"{live.controller.speed_scaling:g}",
        }
        if self.is_active and live.pacer.factor < SLOW:
            text = f"real-time factor {live.pacer.factor:.3f} is below {SLOW:g}: this machine is too slow or too busy"
            self.report(NodeStatus.WARN, text, **values)
        else:
            self.report(NodeStatus.OK, "active" if self.is_active else "configured", **values)

    # what LiveArm tells, in its threads

    def clock(self, time: float) -> None:
        """Publishes /clock."""
        if self._clock_out is not None:
            self._clock_out.publish(ClockMsg(clock=stamp(time)))

    def joints(self, joints: Joints) -> None:
        """Publishes joint_states."""
        message = JointState(name=self._names)
        message.header.stamp = stamp(joints.time)
        message.position = numbers(np.append(joints.positions, joints.gripper))
        message.velocity = numbers(np.append(joints.velocities, joints.gripper_velocity))
        self._joints_out.publish(message)

    def controller(self, time: float) -> None:
        """Publishes controller_state."""
        self._server.publish_state(time)

    def scene(self, scene: Scene) -> None:
        """Publishes sim/state."""
        message = SimState(task=scene.task, episode=scene.episode, episode_time=scene.episode_time)
        message.header.stamp = stamp(scene.time)
        message.success, message.success_once = scene.success, scene.success_once
        message.at_rest_and_released = scene.at_rest_and_released
        message.real_time_factor = self._live.pacer.factor
        message.object_positions, message.target_positions = numbers(scene.objects), numbers(scene.targets)
        self._scene_out.publish(message)

    def image(self, time: float, picture: Picture) -> None:
        """Publishes image_raw and camera_info."""
        header = self._header(time)
        self._images_out.publish(images.to_message(picture, header))
        self._info.header = header
        self._info_out.publish(self._info)

    def failed(self, error: Exception) -> None:
        """Ends the node's work: an arm without physics is no arm."""
        self.get_logger().fatal(f"the simulation stopped: {type(error).__name__}: {error}")
        self.report(NodeStatus.ERROR, f"the simulation stopped: {type(error).__name__}: {error}")
        self.soon(self.trigger_deactivate)

    # private helpers

    def _build(self, robot: RobotConfig) -> LiveArm:
        from act2goal_ros.sim.arm import SimulatedArm  # takes seconds; starts while the node waits to be configured

        def build() -> SimulatedArm:
            arm = SimulatedArm(p.task, p.image_size)
            arm.reset(p.task, None if p.seed < 0 else p.seed)
            return arm

        p, joints = self.p, len(robot.joint_names)
        if robot.joint_names != SimulatedArm.joint_names:
            raise ValueError(f"robot {robot.name} has joints {robot.joint_names}, simulated is {SimulatedArm.joint_names}")
        config = ControllerConfig(
            joint_names=robot.joint_names,
            update_period=STEP,
            allow_trajectory_replacement=p.allow_trajectory_replacement,
            interpolate_from_desired_state=p.interpolate_from_desired_state,
            allow_nonzero_velocity_at_trajectory_end=p.allow_nonzero_velocity_at_trajectory_end,
            path_tolerance=(p.path_tolerance,) * joints,
            goal_tolerance=(p.goal_tolerance,) * joints,
            goal_time=p.goal_time,
            max_deceleration_on_cancel=(p.max_deceleration_on_cancel,) * joints if p.max_deceleration_on_cancel else (),
        )
        rates = Rates(
            joints=p.joint_state_rate, camera=p.camera_rate, controller=p.controller_state_rate, scene=p.scene_rate
        )
        return LiveArm(
            build,
            JointTrajectoryController(config),
            GripperController(robot.gripper.open, robot.gripper.closed),
            self,
            self.now,
            rates,
            p.stepped,
            p.step_speed,
            p.niceness,
            Trace(Path(p.trace), joints) if p.trace else None,
        )

    def _when_reset(self, future: Future[Picture]) -> Picture:
        """Waits, because awaiting is beyond Jazzy's events executor; another environment takes seconds, and the heart beats on."""
        while not future.done():
            wait([future], 1.0 / HEARTBEAT)
            self._beat()
        return future.result()

    def _header(self, time: float) -> Header:
        return Header(stamp=stamp(time), frame_id=self._frame_id)


def _camera_info(size: int, field_of_view: float, frame_id: str) -> CameraInfo:
    """A pinhole without distortion; field of view in degrees."""
    focal, centre = size / 2 / math.tan(math.radians(field_of_view) / 2), size / 2
    info = CameraInfo(height=size, width=size, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [focal, 0.0, centre, 0.0, focal, centre, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, centre, 0.0, 0.0, focal, centre, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.header.frame_id = frame_id
    return info


def main() -> None:
    """Runs the node."""
    threading.Thread(target=importlib.import_module, args=("act2goal_ros.sim.arm",), daemon=True).start()
    run(SimulatedArmNode)


if __name__ == "__main__":
    main()
