"""The plain Python loop: the same networks, command stream and controller timing as the graph, without ROS.

Simulated time: a camera frame every 40 ms, a chunk that takes effect after a fixed delay, commands at 50 Hz.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.join import JOINS
from act2goal_ros.control.progress import ReachedSample, rms_distance
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.learning.execution import MakeExecution, StreamExecution
from act2goal_ros.learning.levels import Denoiser, policy_at
from act2goal_ros.learning.plans import VARIANTS, make_planner
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.serving.imagination import Imagination, Imagined
from act2goal_ros.serving.policy import GoalPolicy, LiveFrame, PlanKeys, Proprio
from act2goal_ros.sim.arm import PHYSICS_STEP, SimulatedArm
from act2goal_ros.sim.look import look_range
from act2goal_ros.sim.tasks import environment_of, official_tasks

PHYSICS_PER_COMMAND = 10  # 50 Hz
TICK = PHYSICS_STEP * np.arange(1, PHYSICS_PER_COMMAND + 1, dtype=np.float64)  # s, of a command's physics steps


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Periods and delays in s; `variant` (learning/plans.py) corrupts the plan, to learn whether it matters."""

    variant: str = "normal"
    denoising_steps: int = 4  # of the variant `denoised`
    spacing: str | None = None  # of the imagined frames (MSTH), by default as trained
    look: str = "fast"  # of sim.look.LOOKS
    until_success: bool = False  # end there, which takes less time; how it would have ended is then not known
    frame_period: float = 0.04
    chunk_every: int = 1  # frames
    plan_period: float = 0.2
    delay: float = 0.04  # camera frame to first command that follows it; the graph: p50 28 ms, and a lead of 10 ms
    serial: bool = True  # the delay is an inference's, one at a time; else a transport's, and there is a chunk of every frame
    join: str = "prefix"
    duration: float | None = None  # by default OGBench's limit of the task's environment
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError for a variant, look or way to join that there is not, and for periods and delays that cannot be."""
        for name, there_are in (("variant", VARIANTS), ("join", JOINS)):
            if getattr(self, name) not in there_are:
                raise ValueError(f"{name} '{getattr(self, name)}' is not one of {', '.join(there_are)}")
        look_range(self.look)
        for name in ("frame_period", "chunk_every", "plan_period", "denoising_steps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name):g}, it must be above 0")
        if not self.delay >= 0:
            raise ValueError(f"delay = {self.delay:g} s, it must be at least 0")


@dataclass
class Trace:
    """What was commanded and done, every PHYSICS_STEP; `borders` index the first set-point after a chunk arrived."""

    sent: list[np.ndarray] = field(default_factory=list)  # (J,) rad each
    measured: list[np.ndarray] = field(default_factory=list)
    borders: list[int] = field(default_factory=list)
    chunks: list[ActionChunk] = field(default_factory=list)


@dataclass
class EpisodeResult:
    """What became of one episode."""

    task: str
    seed: int
    success: bool = False  # OGBench's criterion after any of its control steps
    success_time: float = float("nan")  # s
    at_rest: bool | None = False  # at the end: success, at rest, gripper open; None: it was ended at success
    distance: float = float("nan")  # m, at the end, of the object that is farthest from its target
    samples: list[ReachedSample] = field(default_factory=list)  # what a reached detector sees, at each plan
    replaced_plans: int = 0  # see Planner
    trace: Trace = field(default_factory=Trace)
    seen: "Seen | None" = None


@dataclass
class Seen:
    """An episode for people: the goal's picture, camera pictures (H, W, 3) with their times in s, and plans: time in s,
    offsets (F,) s and latents (F, C, h, w)."""

    goal: np.ndarray
    frames: list[tuple[float, np.ndarray]] = field(default_factory=list)
    plans: list[tuple[float, np.ndarray, np.ndarray]] = field(default_factory=list)


class Loop:
    """Runs episodes with a model bundle; `execution` makes of chunks what the arm is told, by default as the policy node does.

    Between episodes periods, delays, `execution` and `policy` may be exchanged, and everything else by `configure`.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        settings: LoopSettings,
        robot: str = "ur5e_sim",
        threads: int = 1,
        execution: MakeExecution | None = None,
        arms: dict[bool, SimulatedArm] | None = None,
    ) -> None:
        self.bundle, self._threads = bundle, threads
        self._served, self._policies = bundle.imagination(threads=threads).served, {1.0: bundle.policy(threads=threads)}
        self._denoiser = Denoiser.load(bundle.folder, threads)
        self._arms = {} if arms is None else arms  # by whether they render fast; loops of one thread may share them
        self.robot = RobotConfig.load(robot)
        self.execution: MakeExecution
        self.configure(settings)
        if execution is not None:
            self.execution = execution

    def configure(self, settings: LoopSettings) -> None:
        """From now on with these settings. ValueError for a spacing that there is not, and a variant that these networks cannot do."""
        config = self.bundle.config if settings.spacing is None else replace(self.bundle.config, spacing=settings.spacing)
        self.settings = settings
        self.execution = partial(StreamExecution, join=settings.join)
        self.imagination = Imagination(config, self._served)
        self.planner = make_planner(settings.variant, self.imagination, self._denoiser, settings.denoising_steps)
        level = self.planner.level
        if level not in self._policies:
            self._policies[level] = policy_at(self.bundle, level, self._threads)
        self.policy: GoalPolicy = self._policies[level]
        light, look = settings.look != "stock", look_range(settings.look)
        if light not in self._arms:
            self._arms[light] = SimulatedArm(light=light)  # resets rebuild it for other environments
        self.arm = self._arms[light]
        self.arm.look = look

    def run(self, task: str, seed: int, keep_pictures: bool = False) -> EpisodeResult:
        """One episode of full length; unless told otherwise, it goes on after success, to see how it ends."""
        goal_picture = self.arm.reset(task, seed)
        if self.settings.variant == "other_goal":
            goal_picture = self._other_goal(task, seed)
        self.planner.begin(self.arm, seed)
        seen, replaced = (Seen(goal_picture) if keep_pictures else None), self.planner.replaced
        episode = _Episode(self, goal_picture, seed, seen)
        result = EpisodeResult(task, seed)
        duration = self.settings.duration or self.arm.episode_limit
        while self.arm.time < duration - 1e-9:
            episode.tick()
            if self.settings.until_success and self.arm.succeeded_at is not None:
                break
        if self.arm.succeeded_at is not None:
            result.success, result.success_time = True, self.arm.succeeded_at
        result.at_rest = None if self.settings.until_success else self.arm.at_rest_and_released()
        result.distance = float(np.linalg.norm(self.arm.object_positions - self.arm.target_positions, axis=1).max())
        result.samples, result.trace, result.seen = episode.samples, episode.trace, seen
        result.replaced_plans = self.planner.replaced - replaced
        return result

    def _other_goal(self, task: str, seed: int) -> np.ndarray:
        """The goal picture of another task of the same environment; the scene itself stays."""
        tasks = official_tasks(environment_of(task))
        other = tasks[(tasks.index(task) + 1 + seed % (len(tasks) - 1)) % len(tasks)]
        picture = self.arm.reset(other, seed + 1)
        self.arm.reset(task, seed)
        return picture


class _Episode:
    """State of one episode in the loop."""

    def __init__(self, loop: Loop, goal_picture: np.ndarray, seed: int, seen: Seen | None) -> None:
        self._loop, self._seed, self._s, self._seen = loop, seed, loop.settings, seen
        self._arm = loop.arm
        self._goal = loop.imagination.encode(goal_picture)
        self._execution = loop.execution(loop.robot.limits, self._arm.joint_positions, loop.bundle.step)
        self._frames = self._plans = 0
        self._plan: Imagined | None = None
        self._keys: PlanKeys | None = None
        self._plan_stamp = 0.0
        self._waiting: deque[tuple[float, ActionChunk]] = deque()
        self.samples: list[ReachedSample] = []
        self.trace = Trace()

    def tick(self) -> None:
        """20 ms: sense, think, command, move."""
        now, trace = self._arm.time, self.trace
        self._receive(now)
        if now >= self._frames * self._s.frame_period - 1e-9:
            self._see(now)
            self._frames += 1
            self._receive(now)  # without any delay
        set_points, gripper = self._execution.command(now + TICK)
        for q in set_points:
            self._arm.step(q, gripper)
            trace.sent.append(q)
            trace.measured.append(self._arm.joint_positions)

    def _receive(self, now: float) -> None:
        """Chunks whose delay is over."""
        while self._waiting and now >= self._waiting[0][0] - 1e-9:
            self._execution.adopt(self._waiting.popleft()[1], now)
            self.trace.borders.append(len(self.trace.sent))

    def _see(self, now: float) -> None:
        plan_due = now >= self._plans * self._s.plan_period - 1e-9
        chunk_due = self._frames % self._s.chunk_every == 0 and not (self._s.serial and self._waiting)
        chunk_due = chunk_due and self._execution.wants_chunk(now)
        if not plan_due and not chunk_due:
            return
        picture = self._arm.render()
        if self._seen is not None:
            self._seen.frames.append((now, picture))
        frame = self._loop.policy.observe(picture)
        if plan_due:
            self._imagine(frame.latent, now)
            self._plans += 1
        if chunk_due and self._s.variant != "none":
            chunk = self._act(frame, now)
            self._waiting.append((now + self._s.delay, chunk))
            self.trace.chunks.append(chunk)

    def _imagine(self, latent: np.ndarray, now: float) -> None:
        plan = self._loop.planner.plan(latent, self._goal, self._seed * 1000 + self._plans)
        self._plan, self._plan_stamp = plan, now
        self._keys = self._loop.policy.set_plan(plan.features)
        if self._seen is not None:
            self._seen.plans.append((now, plan.offsets, plan.latents))
        self.samples.append(
            ReachedSample(
                time=now,
                time_to_goal=plan.time_to_goal,
                progress=1.0,
                goal_distance=rms_distance(latent, self._goal),
                speed=float(np.abs(self._arm.joint_velocities).max()),
                truth=self._arm.success(),
            )
        )

    def _act(self, frame: LiveFrame, now: float) -> ActionChunk:
        policy, plan = self._loop.policy, self._plan
        assert plan is not None and self._keys is not None
        age = now - self._plan_stamp
        mask = self._loop.planner.seen(policy.mask(plan, age))
        proprio = Proprio(self._arm.joint_positions, self._arm.joint_velocities, self._arm.gripper_position)
        prefix = self._execution.prefix(now, self._s.delay)
        out = policy.act(self._keys, frame, proprio, mask, plan.offsets - age, prefix)
        return ActionChunk(now, policy.config.step, out.positions, np.clip(out.gripper, 0.0, 1.0))
