"""OGBench's `visual-scene`: a cube, a drawer, a window, and two buttons that lock and unlock them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ogbench.manipspace.envs.scene_env import SceneEnv

from act2goal_ros.sim.scene import LightScene

SLIDES = ("drawer", "window")  # button i locks slide i while its state is 0
WAYS = {"drawer": np.array([0.0, -1.0, 0.0]), "window": np.array([1.0, 0.0, 0.0])}  # of the handle when the joint grows
BUTTON_BASE, BUTTON_TOP, HANDLE_TOP = 0.085, 0.126, 0.256  # m; the window's handle


class FurnitureScene(LightScene, SceneEnv):
    """A button's state lives in the model: its colour, its slide's damping and the colour of its slide's handle."""

    def __init__(self, env_type: str = "scene", *, mode: str = "task", render_size: int = 256, light: bool = True):
        super().__init__(env_type, mode=mode, render_size=render_size, light=light)

    @contextlib.contextmanager
    def goal_look(self) -> Iterator[None]:
        """While this is open, buttons and handles have the goal's colours."""
        present = self._cur_button_states
        self._set_buttons(self._target_button_states)
        try:
            yield
        finally:
            self._set_buttons(present)

    def _set_buttons(self, states: np.ndarray) -> None:
        self._cur_button_states = states.copy()
        self._apply_button_states()

    memories = ("_cur_button_states", "_prev_button_states", "_prev_ob_info", "_prev_qpos", "_prev_qvel")

    def remember(self, memory: dict[str, Any]) -> None:
        """With the colours and locks that go with the buttons."""
        super().remember(memory)
        self._apply_button_states()

    def after_control_step(self) -> None:
        """Buttons that were pressed change their state."""
        self.post_step()
        self.pre_step()

    def successes(self) -> list[bool]:
        """OGBench's criterion for cube, buttons, drawer and window."""
        cubes, buttons, drawer, window = self._compute_successes()
        return [bool(success) for success in (*cubes, *buttons, drawer, window)]

    @property
    def button_states(self) -> np.ndarray:
        """(2,) 0 or 1; a slide is locked while its button's is 0."""
        return self._cur_button_states.copy()

    @property
    def button_targets(self) -> np.ndarray:
        """(2,) 0 or 1."""
        return self._target_button_states.copy()

    def button_top(self, index: int) -> np.ndarray:
        """(3,) m, where an unpressed button's top is."""
        return self._data.site_xpos[self._button_site_ids[index]].copy()

    def slide(self, name: str) -> float:
        """Position of the drawer's or window's joint, m."""
        return float(self._data.joint(f"{name}_slide").qpos[0])

    def slide_target(self, name: str) -> float:
        """m."""
        return float(self._target_drawer_pos if name == "drawer" else self._target_window_pos)

    def handle(self, name: str) -> np.ndarray:
        """(3,) m."""
        return self._data.site_xpos[self._drawer_site_id if name == "drawer" else self._window_site_id].copy()

    def handle_at(self, name: str, position: float) -> np.ndarray:
        """(3,) m, where the handle is when the joint is at `position`."""
        return self.handle(name) + WAYS[name] * (position - self.slide(name))

    def object_positions(self) -> np.ndarray:
        """(3, 3) m: cube, drawer handle, window handle."""
        return np.concatenate([self.cube_positions(), [self.handle(name) for name in SLIDES]])

    def target_positions(self) -> np.ndarray:
        """(3, 3) m."""
        handles = [self.handle_at(name, self.slide_target(name)) for name in SLIDES]
        return np.concatenate([self.cube_targets(), handles])

    def things(self) -> dict[str, np.ndarray]:
        """As of all scenes, with buttons, by their state, and handles."""
        buttons = {f"button {i} {'on' if state else 'off'}": self.button_top(i) for i, state in enumerate(self._cur_button_states)}
        return super().things() | buttons | {name: self.handle(name) for name in SLIDES}

    def random_arm_position(self, generator: np.random.Generator) -> np.ndarray:
        """As of all scenes, but not where the window's handle is or is to be."""
        handles = np.array([self.handle("window"), self.handle_at("window", self.slide_target("window"))])
        while True:
            position = super().random_arm_position(generator)
            if position[2] > HANDLE_TOP + 0.04 or np.linalg.norm(handles[:, :2] - position[:2], axis=1).min() > 0.12:
                return position

    def is_in_drawer(self, position: np.ndarray, slide: float) -> bool:
        """Whether (3,) m lies in the drawer when that is at `slide`."""
        front = self.handle_at("drawer", slide)[1] - 0.096
        return bool(abs(position[0] - 0.33) < 0.084 and front - 0.148 < position[1] < front and position[2] > 0.045)

    def obstacles(self, without: int | None = None) -> np.ndarray:
        """As of all scenes, with drawer, buttons and window handle."""
        y, x = self.handle("drawer")[1], self.handle("window")[0]
        boxes = [
            (0.212, -0.52, 0.448, -0.32, 0.168),  # the drawer's case
            (0.23, y - 0.096, 0.43, y - 0.08, 0.15),  # its front
            (0.23, y - 0.244, 0.246, y - 0.08, 0.15),  # its sides
            (0.414, y - 0.244, 0.43, y - 0.08, 0.15),
            (0.27, y - 0.08, 0.39, y - 0.011, 0.1),  # its handle
            (0.532, -0.1, 0.628, 0.1, BUTTON_BASE),
            *((0.56, side - 0.02, 0.6, side + 0.02, BUTTON_TOP) for side in (-0.05, 0.05)),
            (x - 0.015, 0.19, x + 0.015, 0.29, HANDLE_TOP),  # the window's handle
        ]
        return np.concatenate([super().obstacles(without), boxes])
