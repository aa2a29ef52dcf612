"""Which cube is to be moved next: pure functions of positions (n, 3) and targets (n, 3) in m."""

import numpy as np

AT_TARGET, AT_HEIGHT = 0.015, 0.012  # m
LET_GO = 0.03  # m from its target at which a cube on the table that was let go is left alone; OGBench allows 0.04
OCCUPIED, CROWDED = 0.065, 0.045  # m around a target, in which no cube may be that has to go, or that may stay
ON_TOP = 0.03  # m beside a cube, and still on it
APART = 0.1  # m, of a parked cube from everything else
TOWARDS = np.array([0.42, -0.29])  # m: cubes are parked rather on this side, so that small differences seldom decide
PREFERRED = 0.5  # share of its distance that counts beside the cube's own way
PLACES = np.stack(np.meshgrid(np.linspace(0.31, 0.54, 9), np.linspace(-0.29, 0.29, 20), [0.02]), -1).reshape(-1, 3)


def next_cube(cubes: np.ndarray, targets: np.ndarray) -> tuple[int, bool] | None:
    """A cube and whether its target is free; if not, it is to be parked. None once all are at their targets.

    The bottom of a stack comes first, cubes to be unstacked from the top. Where nothing fits, as when cubes change places, one
    that is in another's way is parked.
    """
    settled = settled_cubes(cubes, targets)
    movable = [i for i in np.argsort(targets[:, 2], kind="stable").tolist() if not settled[i] and _is_clear(cubes, i)]
    for i in movable:
        if is_ready(cubes, targets, i):
            return i, True
    in_the_way = [i for i in movable if any(_is_in_way(cubes, targets, i, j) for j in range(len(cubes)) if j != i and not settled[j])]
    remaining = [*in_the_way, *movable, *np.flatnonzero(~settled).tolist()]
    return (int(remaining[0]), False) if remaining else None


def settled_cubes(cubes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n,) bool: at its target, and so is what it stands on."""
    settled = np.zeros(len(cubes), bool)
    for i in np.argsort(targets[:, 2]):
        beside, above = np.linalg.norm((cubes[i] - targets[i])[:2]), abs(cubes[i, 2] - targets[i, 2])
        there = beside < tolerance(targets, int(i)) and above < AT_HEIGHT
        settled[i] = there and _is_supported(targets, settled, int(i))
    return settled


def tolerance(targets: np.ndarray, index: int) -> float:
    """How far beside its target, m, a cube that was let go may stay: less where it is a part of a stack."""
    beside = np.linalg.norm(targets[:, :2] - targets[index, :2], axis=1) < ON_TOP
    return AT_TARGET if beside.sum() > 1 else LET_GO


def is_ready(cubes: np.ndarray, targets: np.ndarray, index: int) -> bool:
    """Whether a cube's target has its support and nothing else in it."""
    settled = settled_cubes(cubes, targets)
    if not _is_supported(targets, settled, index):
        return False
    target = targets[index]
    beside = np.linalg.norm(cubes[:, :2] - target[:2], axis=1)
    near = beside < np.where(settled, CROWDED, OCCUPIED)
    support = settled & (cubes[:, 2] < target[2] - 0.03)
    near[index] = False
    return not (near & ~support).any()


def parking_place(cubes: np.ndarray, targets: np.ndarray, index: int) -> np.ndarray:
    """(3,) m, a place near a cube that is far from all others and from all targets; the farthest if none is far enough."""
    others = np.concatenate([np.delete(cubes, index, 0)[:, :2], targets[:, :2]])
    room = np.linalg.norm(PLACES[:, None, :2] - others, axis=2).min(1)
    way = np.linalg.norm(PLACES[:, :2] - cubes[index, :2], axis=1) + PREFERRED * np.linalg.norm(PLACES[:, :2] - TOWARDS, axis=1)
    return PLACES[np.argmin(way + 10.0 * np.maximum(APART - room, 0.0))]


def _is_supported(targets: np.ndarray, settled: np.ndarray, index: int) -> bool:
    beside = np.linalg.norm(targets[:, :2] - targets[index, :2], axis=1)
    below = (beside < ON_TOP) & (targets[:, 2] < targets[index, 2] - 0.02)
    return bool(settled[below].all())


def _is_clear(cubes: np.ndarray, index: int) -> bool:
    above = cubes[:, 2] > cubes[index, 2] + 0.02
    return not (above & (np.linalg.norm(cubes[:, :2] - cubes[index, :2], axis=1) < ON_TOP)).any()


def _is_in_way(cubes: np.ndarray, targets: np.ndarray, index: int, other: int) -> bool:
    """Whether a cube is where another one belongs, or on top of it."""
    at_target = np.linalg.norm((cubes[index] - targets[other])[:2]) < OCCUPIED
    on_top = np.linalg.norm((cubes[index] - cubes[other])[:2]) < ON_TOP and cubes[index, 2] > cubes[other, 2]
    return bool(at_target or on_top)
