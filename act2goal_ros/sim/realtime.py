"""The simulated arm in real time: physics and control in one thread, the camera in another. No ROS in here.

Rendering needs the one thread that owns the OpenGL context. So everything that renders (building, resetting, frames) runs in
the camera thread; frames are rendered from a copy of the physics state, and physics goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.controller import JointTrajectoryController
from act2goal_ros.control.gripper import GripperController
from act2goal_ros.sim.trace import Trace

CAMERA = "front_pixels"

if TYPE_CHECKING:
    from act2goal_ros.sim.arm import SimulatedArm

Picture = NDArray[np.uint8]
Vector = NDArray[np.float64]
STEP = 0.002  # s of physics
MOST_BEHIND = 0.1  # s that physics may catch up; what is more is given up
AT_ONCE = 0.0005  # s that reading two clocks may take
GRIPPER_EVERY = 4  # steps
JUMP = 0.005  # s by which the clock may leave the monotonic one before that counts as a jump
DRIFT = 0.01  # of the difference, taken over per wake-up
STEPPED_START = 1.0  # s; 0 would mean "no time yet"
CLOCK_RATE = 100.0  # Hz


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What is passed on how often, Hz; rounded to divisors of the physics rate."""

    joints: float = 125.0
    camera: float = 25.0
    controller: float = 50.0
    scene: float = 20.0

    def every(self, name: str) -> int:
        """Physics steps from one to the next."""
        return max(1, round(1.0 / (float(getattr(self, name)) * STEP)))


@dataclass(frozen=True)
class Joints:
    """Measured at `time`: arm (6,) rad and rad/s, gripper joint rad and rad/s."""

    time: float
    positions: Vector
    velocities: Vector
    gripper: float
    gripper_velocity: float


@dataclass(frozen=True)
class Scene:
    """What only the simulation knows, at `time`."""

    time: float
    task: str
    episode: int
    episode_time: float
    success: bool
    success_once: bool
    at_rest_and_released: bool
    objects: Vector  # (n, 3) m
    targets: Vector  # (n, 3) m


class Listener(Protocol):
    """Who is told; `image` in the camera thread, the rest in the physics thread."""

    def clock(self, time: float) -> None:
        """Only while stepped."""

    def joints(self, joints: Joints) -> None:
        """Measured joints."""

    def controller(self, time: float) -> None:
        """Time to pass the controller's state on."""

    def scene(self, scene: Scene) -> None:
        """For evaluation."""

    def image(self, time: float, picture: Picture) -> None:
        """A frame (H, W, 3) of the state at `time`."""

    def failed(self, error: Exception) -> None:
        """One of the threads ended by an error."""


class Pacer:
    """Says how many steps are due and how fast simulated time really runs; times from a monotonic clock."""

    def __init__(self, now: float, speed: float = 1.0, window: float = 1.0) -> None:
        self.step, self._window = STEP / speed, window  # s
        self.lost = 0.0  # s given up
        self.factor = math.nan  # real-time factor over the last whole window
        self.restart(now)

    def restart(self, now: float) -> None:
        """Goes on after a pause that is not to count."""
        self.next = now + self.step  # when the next step ends
        self._marked, self._steps = now, 0

    def due(self, now: float) -> int:
        """Steps that have ended by now; those more than MOST_BEHIND late are given up."""
        behind = now - self.next - MOST_BEHIND
        if behind > 0.0:
            self.lost += behind
            self.next += behind
        steps = max(0, math.floor((now - self.next) / self.step) + 1)
        self.next += steps * self.step
        self._steps += steps
        if now - self._marked >= self._window:
            self.factor = self._steps * self.step / (now - self._marked)
            self._marked, self._steps = now, 0
        return steps


class LiveArm:
    """Runs an arm under a joint trajectory controller.

    `build` gives an arm that has been reset. Use the controllers from another thread only under `lock`. `clock` gives the
    time of all stamps in s; with `stepped` the simulation keeps its own time, `speed` s a second, and tells it at 100 Hz.
    `niceness` is the physics thread's at most, where the system permits it: the arm stands for hardware, which others do
    not slow down. A `trace` records set-points and frames, and is saved by close().
    """

    def __init__(
        self,
        build: Callable[[], SimulatedArm],
        controller: JointTrajectoryController,
        gripper: GripperController,
        listener: Listener,
        clock: Callable[[], float] = time.time,
        rates: Rates | None = None,
        stepped: bool = False,
        speed: float = 1.0,
        niceness: int = 19,
        trace: Trace | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.controller, self.gripper, self.skipped_frames = controller, gripper, 0
        self.pacer = Pacer(time.monotonic(), speed if stepped else 1.0)
        self._listener, self._clock, self._stepped, self._niceness = listener, clock, stepped, niceness
        self._trace = trace
        rates = rates or Rates()
        self._every = {name: rates.every(name) for name in ("joints", "camera", "controller", "scene")}
        self._camera = ThreadPoolExecutor(1, "camera")
        self._frame: Future[None] | None = None
        self._physics: threading.Thread | None = None
        self._stopping, self._paused, self._closed = threading.Event(), False, False
        self._arrived: deque[tuple[float, Callable[[], object]]] = deque()
        self._offset = clock() - time.monotonic()
        self._steps = 0
        self.time = STEPPED_START if stepped else clock()  # the instant the physics stands at
        self._arm = self._camera.submit(build).result()
        import mujoco  # type: ignore[import-untyped, unused-ignore]  # it takes a second

        self._new_data, self._copy = mujoco.MjData, mujoco.mj_copyData
        self._shown = self._new_data(self._arm.model)
        self.episode = 0
        self._begin()

    @property
    def tasks(self) -> list[str]:
        """What reset() knows."""
        return self._arm.tasks

    @property
    def field_of_view(self) -> float:
        """Of the camera, vertically, degrees."""
        return float(self._arm.model.camera(CAMERA).fovy[0])

    @property
    def running(self) -> bool:
        """Whether physics runs."""
        return self._physics is not None and self._physics.is_alive()

    def before_update(self, apply: Callable[[], object]) -> None:
        """Calls `apply` under the lock before the first update whose time is yet to come, in order.

        Physics may be late: an update that is made up for must not know of what arrived after its time.
        """
        self._arrived.append((time.monotonic(), apply))  # without the lock: physics that catches up lets go of it for an instant only

    def reset(self, task: str | None, seed: int | None) -> Future[Picture]:
        """Starts an episode at rest; gives the goal picture. ValueError in the future for an unknown task.

        The first task of another environment takes seconds, in which physics goes on and frames are skipped.
        """
        return self._camera.submit(self._reset, task, seed)

    def start(self) -> None:
        """Lets physics run, the controller holding where the arm is."""
        self._stopping.clear()
        self._paused = True
        self.time = self.time if self._stepped else self._clock()
        self._settle()
        self._physics = threading.Thread(target=self._run, name="physics", daemon=True)
        self._physics.start()

    def stop(self) -> None:
        """Stops physics where it is; an action goal still running is aborted."""
        self._stopping.set()
        if self._physics is not None:
            self._physics.join()
        if self._frame is not None:
            self._frame.result()
        self._take(math.inf)
        self.controller.activate(self.time, self._arm.joint_positions)

    def close(self) -> None:
        """Ends both threads; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.stop()
        self._camera.submit(self._arm.close).result()
        self._camera.shutdown()
        if self._trace is not None:
            self._trace.save()

    @property
    def measured(self) -> Joints:
        """Where the joints are."""
        return self._joints

    def _reset(self, task: str | None, seed: int | None) -> Picture:
        if task is not None:
            self._arm.prepare(task)
        with self.lock:
            before = self._arm.model
            picture = self._arm.reset(task, seed)
            if self._arm.model is not before:
                self._shown = self._new_data(self._arm.model)
                self._copy(self._shown, self._arm.model, self._arm.data)  # a frame may still be waiting to be rendered
            self._begin()
            self._paused = True
        return picture

    def _begin(self) -> None:
        """An episode starts now."""
        self.episode += 1
        self._since = self.time
        self.gripper.reset(self._gripper_position())
        self._settle()

    def _settle(self) -> None:
        """The controller holds where the arm is, whatever has arrived."""
        self._take(math.inf)
        arm = self._arm
        self._joints = Joints(self.time, arm.joint_positions, arm.joint_velocities, self._gripper_position(), 0.0)
        self.controller.activate(self.time, self._joints.positions)

    def _gripper_position(self) -> float:
        gripper = self.gripper
        return gripper.open_at + self._arm.gripper_position * (gripper.closed_at - gripper.open_at)

    def _run(self) -> None:
        if self._niceness < os.getpriority(os.PRIO_PROCESS, 0):
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        try:
            while not self._stopping.is_set():
                now = time.monotonic()
                if self._paused:
                    self._paused = False
                    self.pacer.restart(now)
                self._catch_up(now)
                time.sleep(max(0.0, self.pacer.next - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - a dead thread must be told, whatever ended it
            self._listener.failed(error)

    def _catch_up(self, now: float) -> None:
        steps = self.pacer.due(now)
        self._follow_clock()
        for remaining in range(steps - 1, -1, -1):
            due = self.pacer.next - (remaining + 1) * self.pacer.step
            self._step(self.time + STEP if self._stepped else due + self._offset, due)

    def _follow_clock(self) -> None:
        before = time.monotonic()
        clock = self._clock()
        after = time.monotonic()
        if after - before > AT_ONCE:  # held up in between: the two clocks were not read at one time
            return
        difference = clock - (before + after) / 2 - self._offset
        self._offset += difference if abs(difference) > JUMP else DRIFT * difference

    def _step(self, ended: float, due: float) -> None:
        """`due`: when it ends, on the monotonic clock."""
        with self.lock:
            self._take(due - self.pacer.step)
            before = self._joints
            command = self.controller.update(ended - STEP, before.positions, before.velocities)
            self._arm.step(command, self.gripper.fraction)
            if self._trace is not None:
                self._trace.step(ended, command)
            self.time = ended
            self._steps += 1
            gripper, speed = before.gripper, before.gripper_velocity
            if self._steps % GRIPPER_EVERY == 0:
                gripper = self._gripper_position()
                speed = (gripper - before.gripper) / (GRIPPER_EVERY * STEP)
                self.gripper.update(ended, gripper, speed)
            self._joints = Joints(ended, self._arm.joint_positions, self._arm.joint_velocities, gripper, speed)
            scene = self._scene() if self._is_turn("scene") else None
            if self._is_turn("camera"):
                self._take_frame(ended)
        self._tell(scene)

    def _take(self, until: float) -> None:
        """What has arrived by then, on the monotonic clock."""
        while self._arrived and self._arrived[0][0] <= until:
            self._arrived.popleft()[1]()

    def _is_turn(self, name: str) -> bool:
        return self._steps % self._every[name] == 0

    def _tell(self, scene: Scene | None) -> None:
        if self._stepped and self._steps % round(1.0 / (CLOCK_RATE * STEP)) == 0:
            self._listener.clock(self.time)
        if self._is_turn("joints"):
            self._listener.joints(self._joints)
        if self._is_turn("controller"):
            self._listener.controller(self.time)
        if scene is not None:
            self._listener.scene(scene)

    def _scene(self) -> Scene:
        arm = self._arm
        success = arm.success()
        done = success and arm.at_rest_and_released()
        since, objects, targets = self.time - self._since, arm.object_positions, arm.target_positions
        return Scene(self.time, arm.task, self.episode, since, success, arm.succeeded_at is not None, done, objects, targets)

    def _take_frame(self, time: float) -> None:
        if self._frame is not None and not self._frame.done():
            self.skipped_frames += 1
            return
        self._copy(self._shown, self._arm.model, self._arm.data)
        self._frame = self._camera.submit(self._show, time)

    def _show(self, time: float) -> None:
        try:
            picture = self._arm.render(self._shown)
            if self._trace is not None:
                self._trace.frame(time, self._clock())
            self._listener.image(time, picture)
        except Exception as error:  # noqa: BLE001 - as in _run
            self._listener.failed(error)
