"""What all experts share: jerk-limited set-points, and ways around what stands about."""

from dataclasses import dataclass

import numpy as np
from ruckig import InputParameter, OutputParameter, Ruckig

from act2goal_ros.sim.arm import PHYSICS_STEP

STEP = 0.05  # s between recorded set-points
ABOVE, BESIDE = 0.03, 0.05  # m that the pinch point keeps above and beside what the gripper passes
LOW, HIGH = 0.012, 0.02  # m: how far below that height it climbs again, and how far above it it flies, because joint motions dip
CARRIED = 0.025  # m more with a cube in the gripper
AHEAD, DOWN = 0.12, 0.08  # m, how far ahead the next pose is while passing above something, and on the way down behind it
AT_END, PRECISE = 0.035, 0.008  # m: from there on no climbing, from there on the way leads down
ROOM = 0.004  # m that a finger needs beside an obstacle
TURNS = np.pi / 36 * np.arange(1, 37)  # rad that the gripper may turn for it, smallest first
FINGERS = ((-0.004, (0.042, 0.052)), (0.035, (0.052, 0.066, 0.08)))  # m, open: lower end, faces; of pads and of what bears them
FINGER_HALF_WIDTH = 0.011  # m
WRIST = 4.5  # rad either way, of the last joint's 2π, as the arm's own turns come on top: no gripper is turned beyond
Turns = tuple[float, float]  # rad, how far the gripper may turn clockwise (≤ 0) and counterclockwise (≥ 0)
UNLIMITED: Turns = (-np.inf, np.inf)


@dataclass(frozen=True)
class ExpertLimits:
    """Slower than the robot's own limits, so that whoever follows the expert has room to catch up."""

    velocity: float = 2.2  # rad/s
    acceleration: float = 7.0  # rad/s²
    jerk: float = 70.0  # rad/s³


class SetPoints:
    """Jerk-limited set-points towards joint targets that may change at any step."""

    def __init__(self, joints: np.ndarray, limits: ExpertLimits, velocities: np.ndarray | None = None) -> None:
        self._otg = Ruckig(len(joints), STEP)
        self._input = InputParameter(len(joints))
        self._output = OutputParameter(len(joints))
        self._input.current_position = list(joints)
        if velocities is not None:
            self._input.current_velocity = list(np.clip(velocities, -limits.velocity, limits.velocity))
        self._input.max_velocity = [limits.velocity] * len(joints)
        self._input.max_acceleration = [limits.acceleration] * len(joints)
        self._input.max_jerk = [limits.jerk] * len(joints)

    def advance(self, target: np.ndarray) -> np.ndarray:
        """Set-points (25, J) at the physics rate for the next step of 0.05 s."""
        self._input.target_position = list(target)
        self._otg.update(self._input, self._output)
        times = np.arange(1, round(STEP / PHYSICS_STEP) + 1) * PHYSICS_STEP
        points = np.array([self._output.trajectory.at_time(t)[0] for t in times])
        self._output.pass_to_input(self._input)
        return points


def wrap(angle: float) -> float:
    """The same angle in −π .. π."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def turns_left(wrist: float) -> Turns:
    """Of a gripper that points down, whose yaw falls as its last joint, at `wrist` rad, is turned."""
    return min(wrist - WRIST, 0.0), max(wrist + WRIST, 0.0)


def turn_to(heading: float, yaw: float, joints: np.ndarray) -> float:
    """The turn, rad, of a gripper at `yaw` that points down to `heading`, so that it always gets there with the same whole turns of its
    wrist, whichever way is nearer: where two ways were as good, whoever learns from this would take the mean.

    `heading` is counted on in whole turns from where joints (6,) of 0 rad would have the gripper.
    """
    turned = float(joints[0] - joints[-1] + np.pi / 2)  # up to whole turns the yaw
    nearest = wrap(heading - yaw)
    return float(nearest + 2 * np.pi * np.round((heading - turned - nearest) / (2 * np.pi)))


def clear_way(pinch: np.ndarray, position: np.ndarray, end: np.ndarray, obstacles: np.ndarray, carried: float = 0.0) -> np.ndarray:
    """`position` (3,) m, or the next one on a way there from `pinch` that passes above obstacles (n, 5) on the way to `end`.

    Straight up first, then across; down only at the end, in steps, because joints that move far leave the vertical.
    """
    to_go = end[:2] - pinch[:2]
    distance = float(np.linalg.norm(to_go))
    needed = _height(pinch[:2], end[:2], obstacles) + ABOVE + carried
    if not np.isfinite(needed):
        return position
    if distance < AT_END:
        if distance > PRECISE and pinch[2] > needed - 0.02:
            return np.array([*position[:2], max(position[2], needed + 0.01)])
        return np.array([*position[:2], max(position[2], pinch[2] - DOWN)])
    if pinch[2] < needed - LOW:
        return np.array([*pinch[:2], needed + HIGH])
    across = pinch[:2] + to_go / distance * min(distance, AHEAD)
    return np.array([*across, max(position[2], needed + HIGH)])


def _height(start: np.ndarray, end: np.ndarray, obstacles: np.ndarray) -> float:
    """Of the tallest obstacle (n, 5) that the segment passes within BESIDE, m; −∞ for none."""
    if len(obstacles) == 0:
        return -np.inf
    points = start + np.linspace(0.0, 1.0, 17)[:, None] * (end - start)
    inside = (points[:, None] > obstacles[:, :2] - BESIDE) & (points[:, None] < obstacles[:, 2:4] + BESIDE)
    passed = inside.all(2).any(0)
    return float(obstacles[passed, 4].max()) if passed.any() else -np.inf


def finger_room(position: np.ndarray, yaw: float, obstacles: np.ndarray) -> float:
    """Distance in m between the fingers of an open gripper at a pose and the nearest obstacle (n, 5) as high; 0: they overlap."""
    rooms = [np.inf]
    across = np.array([-np.sin(yaw), np.cos(yaw)])  # the fingers open along the gripper's y
    along = np.array([across[1], -across[0]])
    for bottom, faces in FINGERS:
        high = obstacles[obstacles[:, 4] > position[2] + bottom]
        ways, sides = np.meshgrid([*faces, *(-face for face in faces)], [-FINGER_HALF_WIDTH, 0.0, FINGER_HALF_WIDTH])
        points = position[:2] + ways.reshape(-1, 1) * across + sides.reshape(-1, 1) * along
        outside = np.maximum(np.maximum(high[:, None, :2] - points, points - high[:, None, 2:4]), 0.0)
        rooms.append(np.linalg.norm(outside, axis=2).min(initial=np.inf))
    return float(min(rooms))


def roomy(yaw: float, position: np.ndarray, obstacles: np.ndarray, turns: Turns = UNLIMITED) -> float:
    """The heading nearest to `yaw` (rad) at which the fingers meet no obstacle (n, 5) at a position; the roomiest if they do at all.

    Counterclockwise wherever the gripper can turn that way: of two equally short ways whoever learns from this takes the mean.
    """
    if len(obstacles) == 0:
        return yaw
    headings = [yaw, *(yaw + side * turn for side in (1.0, -1.0) for turn in TURNS if turns[0] <= side * turn <= turns[1])]
    best, most = yaw, -1.0
    for heading in headings:
        if (room := finger_room(position, heading, obstacles)) > most:
            best, most = heading, room
        if room > ROOM:
            break
    return best
