"""Names of tasks, and random ones like those OGBench collects its data with. Nothing here needs OGBench."""

from typing import Any

import numpy as np

ENVIRONMENTS = ("cube-single", "cube-double", "cube-triple", "scene")  # OGBench's visual-…-v0
CUBES = {"cube-single": 1, "cube-double": 2, "cube-triple": 3, "scene": 1}
OFFICIAL = 5  # tasks of every environment
LOW, HIGH = (0.3, -0.3), (0.55, 0.3)  # m, where OGBench puts cubes and targets
MARGIN = 0.03  # m beyond, still within OGBench's workspace, where the beyond-task starts and ends
SCENE_LOW, SCENE_HIGH = (0.3, -0.07), (0.45, 0.18)  # m, and among the furniture
CUBE_HEIGHT = 0.04  # m
APART = 0.08  # m between cubes, so that an open gripper fits between them
STACK, SWAP, KEEP = 0.5, 0.25, 0.03  # how often a cube goes onto another, cubes change places, nothing is to be done
ANEW = 0.5  # how often all cubes are put down anew, in any order: only the goal then tells which one a stack begins with
TOWER, HIGHER = 0.25, 0.9  # how often cubes start or end in stacks rather, and how often one then goes onto another
OPEN_DRAWER, OPEN_WINDOW = -0.16, 0.2  # m along their joints; 0 is closed
IN_DRAWER, SHUT = 0.5, 0.7  # how often a cube goes there, and how often the drawer is then shut before, and after

Options = dict[str, Any]


def official_tasks(environment: str) -> list[str]:
    """OGBench's evaluation tasks of an environment."""
    return [f"{environment}-{i}" for i in range(1, OFFICIAL + 1)]


def free_task(environment: str) -> str:
    """The task with random starts and goals."""
    return f"{environment}-random"


def beyond_task() -> str:
    """The free task whose cube starts or ends where none is in training data: up to MARGIN outside OGBench's area."""
    return "cube-single-beyond"


def all_tasks() -> list[str]:
    """Every task of every environment."""
    tasks = [task for environment in ENVIRONMENTS for task in [*official_tasks(environment), free_task(environment)]]
    return [*tasks, beyond_task()]


def environment_of(task: str) -> str:
    """The environment a task belongs to; ValueError for an unknown task."""
    if task not in all_tasks():
        raise ValueError(f"unknown task '{task}'; there are {', '.join(all_tasks())}")
    return task.rpartition("-")[0]


def reset_options(task: str, seed: int | None) -> Options:
    """What OGBench's reset takes for a task; a free one is drawn from the seed."""
    environment = environment_of(task)
    if task in official_tasks(environment):
        return {"task_id": int(task.rpartition("-")[2])}
    generator = np.random.default_rng(seed)
    if environment == "cube-single":
        places = _beyond(generator) if task == beyond_task() else [_within(generator, 0.0) for _ in range(2)]
        start, goal = (place[None] for place in places)
        return {"task_info": {"task_name": task, "init_xyzs": start, "goal_xyzs": goal}}
    if environment == "scene":
        return {"task_info": {"task_name": task} | _furniture(generator)}
    start, goal = _cubes(generator, CUBES[environment])
    return {"task_info": {"task_name": task, "init_xyzs": start, "goal_xyzs": goal}}


def _within(generator: np.random.Generator, margin: float) -> np.ndarray:
    """(3,) m, on the table within OGBench's area and a margin around it."""
    low, high = (*np.subtract(LOW, margin), CUBE_HEIGHT / 2), (*np.add(HIGH, margin), CUBE_HEIGHT / 2)
    return generator.uniform(low, high)


def _outside(place: np.ndarray) -> bool:
    return bool((place[:2] < LOW).any() or (place[:2] > HIGH).any())


def _beyond(generator: np.random.Generator) -> list[np.ndarray]:
    """Start and goal, at least one of them outside OGBench's area, far enough apart that there is something to do."""
    while True:
        places = [_within(generator, MARGIN) for _ in range(2)]
        if any(map(_outside, places)) and np.linalg.norm(places[0] - places[1]) > APART:
            return places


def _cubes(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 3) m each: cubes put down one after the other, and what becomes of them."""
    start = np.full((count, 3), np.inf)
    stacked = (HIGHER if generator.random() < TOWER else STACK / 2, HIGHER if generator.random() < TOWER else STACK)
    for i in range(count):
        start[i] = _place(generator, start, i, stack=stacked[0])
    goal = start.copy()
    fate = generator.random()
    if fate < KEEP:
        return start, goal
    if fate < KEEP + SWAP:
        order = generator.permutation(count)
        return start, start[order] if (order != np.arange(count)).any() else start[::-1].copy()
    if fate < KEEP + SWAP + ANEW:
        goal[:] = np.inf
        for i in generator.permutation(count):
            goal[i] = _place(generator, goal, i, stack=stacked[1])
        return start, goal
    for _ in range(generator.integers(count, 3 * count)):
        top = [i for i in range(count) if not _covered(goal, i)]
        chosen = int(generator.choice(top))
        goal[chosen] = _place(generator, goal, chosen, stack=stacked[1])
    return start, goal


def _covered(cubes: np.ndarray, index: int) -> bool:
    above = cubes[:, 2] > cubes[index, 2] + 0.01
    return bool((above & (np.linalg.norm(cubes[:, :2] - cubes[index, :2], axis=1) < CUBE_HEIGHT / 2)).any())


def _place(generator: np.random.Generator, cubes: np.ndarray, index: int, stack: float) -> np.ndarray:
    """(3,) m: onto a cube with nothing on it, or to where there is room; cubes at infinity do not count."""
    others = [i for i in range(len(cubes)) if i != index and np.isfinite(cubes[i]).all()]
    tops = [i for i in others if not _covered(np.delete(cubes, index, 0), i - (i > index))]
    if tops and generator.random() < stack:
        return cubes[int(generator.choice(tops))] + np.array([0.0, 0.0, CUBE_HEIGHT])
    while True:
        place = np.append(generator.uniform(LOW, HIGH), CUBE_HEIGHT / 2)
        if all(np.linalg.norm(cubes[i, :2] - place[:2]) > APART for i in others):
            return place


def _furniture(generator: np.random.Generator) -> Options:
    """Start and goal of cube, buttons, drawer and window; often some of them stay as they are."""
    start: Options = {
        "button_states": generator.integers(0, 2, 2),
        "drawer_pos": _slide(generator, OPEN_DRAWER),
        "window_pos": _slide(generator, OPEN_WINDOW),
    }
    changes = generator.random(4) < 0.55
    goal: Options = {
        "button_states": np.where(changes[:2], 1 - start["button_states"], start["button_states"]),
        "drawer_pos": _other_end(start["drawer_pos"], OPEN_DRAWER) if changes[2] else start["drawer_pos"],
        "window_pos": _other_end(start["window_pos"], OPEN_WINDOW) if changes[3] else start["window_pos"],
    }
    fate = generator.random()
    if fate < IN_DRAWER:
        for state in (start, goal):
            state["drawer_pos"] = 0.0 if generator.random() < SHUT else state["drawer_pos"]
    start["block_xyzs"] = _on_table(generator, start)[None]
    if fate < IN_DRAWER:
        goal["block_xyzs"] = _in_drawer(generator, goal["drawer_pos"])[None]
    else:
        goal["block_xyzs"] = _on_table(generator, start, goal)[None] if fate < 0.7 else start["block_xyzs"].copy()
    return {"init": start, "goal": goal}


def _slide(generator: np.random.Generator, opened: float) -> float:
    """Mostly closed or open, as OGBench's tasks have it."""
    share = generator.choice([0.0, 1.0, generator.random()], p=[0.4, 0.4, 0.2])
    return float(share * opened)


def _other_end(position: float, opened: float) -> float:
    return opened if abs(position) < abs(opened) / 2 else 0.0


def _on_table(generator: np.random.Generator, *states: Options) -> np.ndarray:
    """(3,) m, where the gripper meets neither the open drawer's handle nor the window's."""
    while True:
        place = np.append(generator.uniform(SCENE_LOW, SCENE_HIGH), CUBE_HEIGHT / 2)
        drawer = all(place[1] > -0.24 - state["drawer_pos"] + 0.07 for state in states)
        window = all(np.hypot(place[0] - 0.286 - state["window_pos"], place[1] - 0.205) > 0.075 for state in states)
        if drawer and window:
            return place


def _in_drawer(generator: np.random.Generator, drawer: float) -> np.ndarray:
    """(3,) m, near its front, where a cube slides to when the drawer is shut, and in the middle: an open gripper just fits."""
    return np.array([0.33 + generator.uniform(-0.005, 0.005), -0.356 - generator.uniform(0.0, 0.015) - drawer, 0.066])
