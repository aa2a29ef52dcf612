"""An expert for whole tasks: it chooses what is to be done next, and has it done by the expert for that object."""

from typing import NamedTuple

import numpy as np

from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.experts.base import FREE, OPEN, ObjectExpert
from act2goal_ros.sim.experts.button import ButtonExpert
from act2goal_ros.sim.experts.cube import PLACED, CubeExpert
from act2goal_ros.sim.experts.motion import clear_way
from act2goal_ros.sim.experts.order import AT_HEIGHT, LET_GO, is_ready, next_cube, parking_place, settled_cubes, tolerance
from act2goal_ros.sim.experts.slide import SlideExpert
from act2goal_ros.sim.furniture import SLIDES, FurnitureScene
from act2goal_ros.sim.tasks import OPEN_DRAWER

IN_GRIPPER = 0.025  # m
MISPLACED = 0.025  # m, from which a drawer or a window is moved
IN_DRAWER = 0.024  # m beside its place, and still well placed in the drawer
ASIDE = (0.4, 0.06, 0.02)  # m, on the table, for a cube whose drawer is shut: neither the drawer nor the window's handle get there
FRONT = 0.128  # m from the drawer's handle to the middle of a cube that leaves room for the gripper at its front


class Job(NamedTuple):
    """One object to be brought where it belongs; equal jobs are the same job."""

    kind: str  # cube, drawer, window or button
    number: int = 0  # of the cube or the button
    to: tuple[float, ...] = ()  # a parking place (3,) m, a slide's position m, a button's state; empty: a cube's own target


class SequenceExpert:
    """Does all that is left to do, then moves to a final position (3,) m.

    Between jobs the next one follows from the state alone. `completed` counts those that are done and left behind.
    """

    def __init__(self, arm: SimulatedArm, final_position: np.ndarray) -> None:
        self._arm, self._final = arm, np.asarray(final_position, float)
        self._job: Job | None = None
        self._expert: ObjectExpert = CubeExpert(arm, self._final)
        self.completed = 0
        self.object_error = self.target_error = np.zeros(4)  # as of ObjectExpert
        self.look()

    def look(self) -> None:
        """Chooses the next job, unless the present one is under way."""
        job = self.next_job() if self._expert.phase in FREE else None
        if job is None or job == self._job:
            return
        if self._job is not None and self._expert.finished:
            self.completed += 1
        self._job, self._expert = job, self._expert_for(job)

    def act(self) -> tuple[np.ndarray, float]:
        """Joint target (6,) rad and gripper command (0 open .. 1 closed) for the present state."""
        self.look()
        self._expert.object_error, self._expert.target_error = self.object_error, self.target_error
        return self._expert.act()

    def moved_target(self, offset: np.ndarray) -> np.ndarray:
        """As of ObjectExpert."""
        return self._expert.moved_target(offset)

    def flight(self, position: np.ndarray) -> np.ndarray:
        """Joint target (6,) rad on a way to `position` (3,) m above everything."""
        arm = self._arm
        way = clear_way(arm.pinch_position, position, position, arm.scene.obstacles())
        return arm.scene.inverse_kinematics(way, arm.gripper_yaw, arm.joint_positions)

    @property
    def final_position(self) -> np.ndarray:
        """(3,) m, where the gripper rests in the end."""
        return self._final

    @property
    def job(self) -> Job | None:
        """The present one; the last one once all are done."""
        return self._job

    @property
    def phase(self) -> str:
        """What is done with the present object."""
        return self._expert.phase

    @property
    def handled(self) -> np.ndarray:
        """(3,) m, where the present object is."""
        return self._expert.handled

    @property
    def destination(self) -> np.ndarray:
        """(3,) m, where it is to be."""
        return self._expert.destination

    @property
    def done(self) -> bool:
        """Whether everything is where it belongs and the gripper rests at its final position."""
        return self._expert.done and self.next_job() is None

    def next_job(self) -> Job | None:
        """What follows from the state; None once everything is where it belongs."""
        scene = self._arm.scene
        return self._furniture_job(scene) if isinstance(scene, FurnitureScene) else self._cube_job()

    def _cube_job(self) -> Job | None:
        cubes, targets = self._arm.scene.cube_positions(), self._arm.scene.cube_targets()
        held = self._held(cubes)
        if held is None:
            found = next_cube(cubes, targets)
            if found is None:
                return None
            index, free = found
        else:
            index, free = held, bool(settled_cubes(cubes, targets)[held]) or is_ready(cubes, targets, held)
        return Job("cube", index, () if free else tuple(parking_place(cubes, targets, index).tolist()))

    def _furniture_job(self, scene: FurnitureScene) -> Job | None:
        cube, place = scene.cube_positions()[0], self._place(scene)
        inside = scene.is_in_drawer(scene.cube_targets()[0], scene.slide_target("drawer"))
        placed = np.linalg.norm((cube - place)[:2]) < (IN_DRAWER if inside else LET_GO) and abs(cube[2] - place[2]) < AT_HEIGHT
        drawer = OPEN_DRAWER if inside and not placed else scene.slide_target("drawer")
        ajar = drawer - scene.slide("drawer")
        if self._held(cube[None]) is not None:
            return Job("cube", 0, ASIDE if inside and ajar < -MISPLACED else ())
        if not placed and ajar < MISPLACED and (not inside or ajar > -MISPLACED):  # shut before a cube is fetched, open after it
            return Job("cube")
        for name, position in (("drawer", drawer), ("window", scene.slide_target("window"))):
            if abs(position - scene.slide(name)) > MISPLACED:
                return self._slide_job(scene, name, position)
        for i in np.flatnonzero(scene.button_states != scene.button_targets).tolist():
            return Job("button", i, (int(scene.button_targets[i]),))
        return None

    def _slide_job(self, scene: FurnitureScene, name: str, position: float) -> Job:
        button = SLIDES.index(name)
        if scene.button_states[button] == 0:
            return Job("button", button, (1,))
        return Job(name, 0, (position,))

    def _place(self, scene: FurnitureScene) -> np.ndarray:
        """(3,) m, where the cube goes; in the drawer, wherever that is at present."""
        target = scene.cube_targets()[0]
        goal = scene.slide_target("drawer")
        if not scene.is_in_drawer(target, goal):
            return target
        present = scene.handle("drawer")[1]
        beside = min(target[1] - scene.handle_at("drawer", goal)[1], -FRONT)
        return np.array([target[0], present + beside, target[2]])

    def _held(self, cubes: np.ndarray) -> int | None:
        """The cube (n, 3) that the gripper has not let go yet."""
        apart = np.linalg.norm(cubes - self._arm.pinch_position, axis=1)
        nearest = int(np.argmin(apart))
        return nearest if apart[nearest] < IN_GRIPPER and self._arm.gripper_position > OPEN else None

    def _expert_for(self, job: Job) -> ObjectExpert:
        arm, scene = self._arm, self._arm.scene
        if job.kind == "cube":
            spot = np.array(job.to)
            own = (lambda: self._place(scene)) if isinstance(scene, FurnitureScene) else None
            targets = scene.cube_targets()
            let_go = LET_GO if job.to else tolerance(targets, job.number)
            if not job.to and isinstance(scene, FurnitureScene) and scene.is_in_drawer(targets[0], scene.slide_target("drawer")):
                let_go = PLACED
            return CubeExpert(arm, self._final, job.number, (lambda: spot) if job.to else own, let_go)
        assert isinstance(scene, FurnitureScene)
        if job.kind == "button":
            return ButtonExpert(arm, scene, self._final, job.number, int(job.to[0]))
        return SlideExpert(arm, scene, self._final, job.kind, job.to[0])
