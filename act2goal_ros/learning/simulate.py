"""Episodes of the scripted expert in the simulated arm, with disturbances it recovers from."""

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from act2goal_ros.learning.dataset import KEYPOINTS, Episode
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.serving.policy import PolicyOutput, Proprio
from act2goal_ros.sim.arm import REST_SPEED, SimulatedArm
from act2goal_ros.sim.experts.base import OPEN
from act2goal_ros.sim.experts.motion import STEP, ExpertLimits, SetPoints
from act2goal_ros.sim.experts.sequence import SequenceExpert
from act2goal_ros.sim.look import RANGE, SHADOWED, LookRange
from act2goal_ros.sim.tasks import free_task

if TYPE_CHECKING:
    from act2goal_ros.learning.acting import ToldPolicy

Steps = list[dict[str, np.ndarray]]

CLOSED = 0.3  # gripper position, from which a driver that takes over goes on closing
REPLAN = 4  # steps between a driver's chunks
TOLD_ERROR = 0.004  # of the picture's width, 0.5 pixels of 128
NO_PICTURE = np.zeros((1, 1, 3), np.uint8)  # in place of pictures, where there are none
FRAME_STRIDE = 2  # control steps between recorded frames
CARRYING = ("lift", "transfer", "lower", "push")
HOLD_STEPS = 16  # recorded at rest at the end, so that "arrived" is in the data
PAUSE_STEPS, MISS_STEPS = 40, 80  # at most
SLOPPY = 0.035  # m
LONGEST = 2  # times OGBench's limit


@dataclass(frozen=True, kw_only=True)
class Disturbances:
    """How often, per episode, things go wrong; the expert makes up for all of it.

    A disturbed step is flagged, so that its command is not learnt. With several objects to handle, all of it may happen with
    each of them, with those after the first `again` times as often.
    """

    kick: float = 0.6  # the target pose is off for a few steps
    miss: float = 0.6  # the gripper goes beside the cube, up to three times
    drop: float = 0.08  # the gripper opens on the way
    misplace: float = 0.3  # the cube is carried beside its target at first
    sloppy: float = 0.25  # it is let go up to 35 mm beside its target: good enough, or to be taken once more
    placed: float = 0.04  # a single cube is at its target from the start
    pause: float = 0.4  # between two objects the arm goes somewhere and rests: a goal picture of what was done so far
    home: float = 0.4  # … namely where it will end: being there does not mean that all is done
    again: float = 0.5

    def later(self) -> "Disturbances":
        """For the objects after the first."""
        return replace(self, kick=self.again * self.kick, miss=self.again * self.miss, misplace=self.again * self.misplace)


class Driver(Protocol):
    """Somebody else than the expert who moves the arm for a while: a policy, whose mistakes the expert then makes up for."""

    def begin(self, arm: SimulatedArm, goal: np.ndarray) -> None:
        """A new episode on this arm, with its goal picture."""

    def advance(self, arm: SimulatedArm, picture: np.ndarray | None) -> tuple[np.ndarray, float]:
        """Joint set-point (J,) rad and gripper 0 .. 1 in 0.05 s; a picture at every second call."""


class Recorder:
    """Runs episodes and records them at 20 Hz; frames at every second step.

    With a driver, it and the expert take turns, of up to `driven` seconds (dataset aggregation, Ross et al. 2011).
    The share `randomised` of the episodes has random looks, the share `shadowed` shadows and nothing else. Without `pictures` only key
    points tell where things are, which takes a fifth of the time.
    """

    def __init__(
        self,
        arm: SimulatedArm,
        disturbances: Disturbances | None = None,
        max_steps: int | None = None,
        driver: Driver | None = None,
        driven: float = 5.0,
        randomised: float = 0.0,
        shadowed: float = 0.0,
        pictures: bool = True,
    ) -> None:
        if not 0.0 <= randomised + shadowed <= 1.0:
            raise ValueError(f"randomised {randomised:g} and shadowed {shadowed:g} are shares of all episodes, together at most 1")
        self._arm = arm
        self._disturbances = disturbances or Disturbances()
        self._max_steps = max_steps or round(LONGEST * arm.episode_limit / STEP)
        self._driver, self._driven, self._pictures = driver, driven, pictures
        self._randomised, self._shadowed = randomised, shadowed

    def record(self, seed: int) -> Episode | None:
        """One episode, or None if not everything got to its target."""
        generator = np.random.default_rng(seed)
        arm = self._arm
        arm.look = self._look(generator.random())
        goal = arm.reset(free_task(arm.environment), seed)
        if generator.random() < self._disturbances.placed and arm.environment == "cube-single":
            arm.place_cube_at_target(generator.uniform(-0.008, 0.008, 2))
        expert = SequenceExpert(arm, self._final_position(generator))
        if self._driver:
            self._driver.begin(arm, goal)
        steps: Steps = []
        milestones = self._run(expert, generator, steps)
        if not (expert.done and arm.success()):
            return None
        return Episode.from_steps(steps, np.stack([step["target"] for step in steps]), arm.environment, milestones)

    def _look(self, draw: float) -> LookRange | None:
        """What an episode's look is drawn from; `draw` from 0 to 1. None: OGBench's without shadows."""
        if draw < self._randomised:
            return RANGE
        return SHADOWED if draw < self._randomised + self._shadowed else None

    def _final_position(self, generator: np.random.Generator) -> np.ndarray:
        """(3,) m: anywhere in the air, or where the arm starts; with a driver, where the goal's picture shows it, as that is where a driver
        waits that takes itself to be done."""
        drawn = _home_or_anywhere(self._arm, generator, self._arm.pinch_position, self._disturbances)
        return self._arm.goal_pinch_position if self._driver else drawn

    def _run(self, expert: SequenceExpert, generator: np.random.Generator, steps: Steps) -> list[int]:
        """Appends the expert's steps to `steps`; returns the milestones."""
        arm = self._arm
        command, gripper, disturbed = arm.joint_positions, 0.0, False
        setpoints = SetPoints(command, ExpertLimits(), arm.joint_velocities)
        course = _Course(generator, self._disturbances)
        turns = _Turns(generator, int(self._driven / STEP))
        holding = 0
        while len(steps) < self._max_steps and holding < HOLD_STEPS:
            steps.append(self._observe(expert, len(steps), command, gripper, disturbed))
            holding = holding + 1 if expert.done or holding else 0
            if self._driver and turns.is_drivers() and not expert.done:
                expert.act()  # so that it knows where it is
                (target, gripper), disturbed = self._driver.advance(arm, steps[-1].get("frame")), True
            else:
                target, gripper, disturbed = course.apply(expert, arm, len(steps) - 1)
            points = setpoints.advance(target)
            for point in points:
                arm.step(point, gripper)
            command = points[-1]
        return course.milestones

    def _observe(self, expert: SequenceExpert, index: int, command: np.ndarray, gripper: float, disturbed: bool) -> dict[str, np.ndarray]:
        arm = self._arm
        step: dict[str, np.ndarray] = {
            "joints": arm.joint_positions,
            "velocities": arm.joint_velocities,
            "gripper": np.array(arm.gripper_position, np.float32),
            "command": np.append(command, gripper),
            "disturbed": np.array(disturbed),
            "cube": expert.handled,
            "target": expert.destination,
        }
        if index % FRAME_STRIDE == 0:
            step["frame"] = arm.render() if self._pictures else NO_PICTURE
            step["keypoints"] = arm.keypoints(KEYPOINTS)
        return step


class _Turns:
    """Who has the arm: the driver and the expert, one after the other, each for up to `longest` steps."""

    def __init__(self, generator: np.random.Generator, longest: int) -> None:
        self._generator, self._longest = generator, longest
        self._drivers, self._left = bool(generator.random() < 0.5), self._length()

    def is_drivers(self) -> bool:
        """Whether the next step is the driver's."""
        if self._left == 0:
            self._drivers, self._left = not self._drivers, self._length()
        self._left -= 1
        return self._drivers

    def _length(self) -> int:
        return int(self._generator.integers(10, max(self._longest, 11) + 1))


class _Course:
    """An episode's disturbances, object after object, with pauses in between.

    `milestones` are the steps at which an object was done and left behind: after a pause, when the arm rests.
    """

    def __init__(self, generator: np.random.Generator, rates: Disturbances) -> None:
        self._generator, self._rates = generator, rates
        self._disturber = _Disturber(generator, rates)
        self._completed = 0
        self._pause: np.ndarray | None = None
        self._pause_steps = 0
        self.milestones: list[int] = []

    def apply(self, expert: SequenceExpert, arm: SimulatedArm, step: int) -> tuple[np.ndarray, float, bool]:
        """Joint target and gripper for a step, and whether they are other than the expert's."""
        if self._pause is not None and self._is_resting(arm, step):
            self._pause = None
        if self._pause is not None:
            return expert.flight(self._pause), 0.0, True
        if self._completed and expert.done:
            return *expert.act(), False
        action = self._disturber.apply(expert, arm)
        if expert.completed > self._completed:
            self._completed = expert.completed
            self._disturber = _Disturber(self._generator, self._rates.later())
            if self._generator.random() < self._rates.pause:
                self._pause = _home_or_anywhere(arm, self._generator, expert.final_position, self._rates)
                self._pause_steps = 0
                return expert.flight(self._pause), 0.0, True
            self.milestones.append(step)
        return action

    def _is_resting(self, arm: SimulatedArm, step: int) -> bool:
        """Whether the pause is over."""
        self._pause_steps += 1
        near = np.linalg.norm(arm.pinch_position - self._pause) < 0.01
        if near and np.abs(arm.joint_velocities).max() < REST_SPEED:
            self.milestones.append(step)
            return True
        return self._pause_steps > PAUSE_STEPS


class _Disturber:
    """Turns the expert's clean action into what is executed, and says whether they differ."""

    def __init__(self, generator: np.random.Generator, rates: Disturbances) -> None:
        self._generator = generator
        self._kicks = self._kick_times() if generator.random() < rates.kick else {}
        self._misses = int(generator.integers(1, 4)) if generator.random() < rates.miss else 0
        self._start_miss(wait=0)
        self._misplace = _error(generator, 0.08) if generator.random() < rates.misplace else None
        self._drop = int(generator.integers(2, 18)) if generator.random() < rates.drop else -1
        self._step, self._carried = 0, 0
        self._misplace_steps = int(generator.integers(2, 22))
        self._sloppy = _error(generator, SLOPPY) if generator.random() < rates.sloppy else None
        self._slipping = False

    def _start_miss(self, wait: int) -> None:
        """It is noticed near the wrong place but still above it, on the way down, or closed on nothing."""
        generator = self._generator
        self._miss, self._miss_wait, self._missing = _error(generator, 0.08), wait, 0
        self._miss_steps = int(generator.choice(np.array([generator.integers(0, 4), generator.integers(4, 14), 20])))

    def _kick_times(self) -> dict[int, np.ndarray]:
        kicks: dict[int, np.ndarray] = {}
        for _ in range(self._generator.integers(1, 4)):
            start, length = self._generator.integers(0, 80), self._generator.integers(3, 9)
            offset = np.append(self._generator.normal(0.0, 0.05, 3), self._generator.normal(0.0, 0.4))
            kicks.update({int(k): offset for k in range(start, start + length)})
        return kicks

    def apply(self, expert: SequenceExpert, arm: SimulatedArm) -> tuple[np.ndarray, float, bool]:
        kick = self._kicks.get(self._step)
        self._step += 1
        target, gripper = expert.act()
        if expert.phase in CARRYING:
            self._misses = 0
        if self._misses and self._miss_wait <= 0:
            target, gripper = _mistaken(expert, self._miss, None)
            self._miss_steps -= expert.phase in ("descend", "grasp")
            self._missing += 1
            if self._miss_steps < 0 or self._missing > MISS_STEPS:
                self._misses -= 1
                self._start_miss(wait=int(self._generator.integers(8, 24)))
            return target, gripper, True
        self._miss_wait -= 1
        if self._misplace is not None and expert.phase in CARRYING:
            target, gripper = _mistaken(expert, None, self._misplace)
            self._misplace_steps -= 1
            if self._misplace_steps < 0:
                self._misplace = None
            return target, gripper, True
        if self._sloppy is not None and (self._slipping or expert.phase == "lower"):
            target, gripper = _mistaken(expert, None, self._sloppy)
            self._slipping = gripper > 0.5 or arm.gripper_position > OPEN
            self._sloppy = self._sloppy if self._slipping else None
            return target, gripper, True
        self._carried += expert.phase in ("lift", "transfer")
        if self._drop >= 0 and self._drop <= self._carried < self._drop + 3 and expert.phase in ("lift", "transfer"):
            self._carried += 1
            return target, 0.0, True
        if kick is not None and expert.phase not in ("grasp", "release"):
            return expert.moved_target(kick), gripper, True
        return target, gripper, False


class PolicyDriver:
    """A trained model at the wheel: a plan and a chunk every 0.2 s."""

    def __init__(self, bundle: ModelBundle) -> None:
        self._imagination, self._policy = bundle.imagination(threads=1), bundle.policy(threads=1)

    def begin(self, arm: SimulatedArm, goal: np.ndarray) -> None:
        """Takes the goal picture."""
        self._goal = self._imagination.encode(goal)
        self._row, self._time, self._gripper = REPLAN, -np.inf, 0.0
        self._chunk: PolicyOutput | None = None

    def advance(self, arm: SimulatedArm, picture: np.ndarray | None) -> tuple[np.ndarray, float]:
        """The next row of the newest chunk."""
        if arm.time > self._time + 1.5 * STEP:  # a turn begins
            self._row, self._chunk, self._gripper = REPLAN, None, float(arm.gripper_position > CLOSED)
        self._time = arm.time
        if picture is not None and self._row >= REPLAN:
            frame = self._policy.observe(picture)
            plan = self._imagination.imagine(frame.latent, self._goal, 0)
            keys, mask = self._policy.set_plan(plan.features), self._policy.mask(plan, 0.0)
            proprio = Proprio(arm.joint_positions, arm.joint_velocities, arm.gripper_position)
            self._chunk, self._row = self._policy.act(keys, frame, proprio, mask, plan.offsets), 0
        if self._chunk is None or self._row >= len(self._chunk.positions):
            return arm.joint_positions, self._gripper
        self._row += 1
        self._gripper = float(np.clip(self._chunk.gripper[self._row - 1], 0.0, 1.0))
        return self._chunk.positions[self._row - 1], self._gripper


class ToldDriver:
    """A policy that is told where things are (learning/acting.py), somewhat wrong, at the wheel: a chunk every 0.2 s."""

    def __init__(self, policy: "ToldPolicy") -> None:
        self._policy = policy

    def begin(self, arm: SimulatedArm, goal: np.ndarray) -> None:
        """Takes where the goal has things. What it gets wrong follows from the goal's picture, so from the episode's seed."""
        self._generator = np.random.default_rng(zlib.crc32(goal.tobytes()))
        self._goal, self._steps = somewhat_wrong(arm.goal_keypoints(KEYPOINTS), self._generator), float(self._generator.uniform(20, 300))
        self._row, self._time = 0, -np.inf

    def advance(self, arm: SimulatedArm, picture: np.ndarray | None) -> tuple[np.ndarray, float]:
        """The next row of the newest chunk."""
        self._row = 0 if arm.time > self._time + 1.5 * STEP else self._row  # a turn begins
        self._time = arm.time
        if self._row % REPLAN == 0:
            live = somewhat_wrong(arm.keypoints(KEYPOINTS), self._generator)
            proprio = Proprio(arm.joint_positions, arm.joint_velocities, arm.gripper_position)
            self._chunk, self._row = self._policy.chunk(live, self._goal, proprio, self._steps), 0
        self._row += 1
        return self._chunk[self._row - 1, :-1], float(np.clip(self._chunk[self._row - 1, -1], 0.0, 1.0))


def somewhat_wrong(keypoints: np.ndarray, generator: np.random.Generator, error: float = TOLD_ERROR) -> np.ndarray:
    """Key points (K, 3), moved by as much as networks are wrong: `error`, of the picture's width, is a standard deviation."""
    keypoints[:, :2] += error * generator.standard_normal((len(keypoints), 2))
    return keypoints


def _home_or_anywhere(arm: SimulatedArm, generator: np.random.Generator, home: np.ndarray, rates: Disturbances) -> np.ndarray:
    """(3,) m: `home` as often as `rates` say, else anywhere in the air."""
    anywhere = arm.scene.random_arm_position(generator)
    return home if generator.random() < rates.home else anywhere


def _error(generator: np.random.Generator, largest: float) -> np.ndarray:
    """(4,): x, y and z in m, yaw in rad."""
    angle, radius = generator.uniform(-np.pi, np.pi), generator.uniform(0.015, largest)
    return np.array([radius * np.cos(angle), radius * np.sin(angle), 0.0, generator.normal(0.0, 0.25)])


def _mistaken(expert: SequenceExpert, cube: np.ndarray | None, target: np.ndarray | None) -> tuple[np.ndarray, float]:
    """What the expert does if it sees the object or its target where they are not."""
    expert.object_error = np.zeros(4) if cube is None else cube
    expert.target_error = np.zeros(4) if target is None else target
    action = expert.act()
    expert.object_error = expert.target_error = np.zeros(4)
    return action
