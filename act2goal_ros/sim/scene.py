"""OGBench's manipulation scenes with light visuals and reproducible resets."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
import ogbench  # noqa: F401 - registers the environments
from dm_control import mjcf
from ogbench.manipspace import lie
from ogbench.manipspace.envs.cube_env import CubeEnv
from ogbench.manipspace.envs.manipspace_env import ManipSpaceEnv

from act2goal_ros.sim.look import CUBE_KINDS, SHADOW_MAP, Look, LookRange, add_distractor, kind_of, recoloured, show_distractor
from act2goal_ros.sim.meshes import light_mesh, mesh_mass

CAMERA = "front_pixels"  # OGBench's camera for pixel observations
CONTROL_STEP = 0.05  # s, OGBench's


def episode_steps(environment: str) -> int:
    """OGBench's limit of an evaluation episode, in steps of 0.05 s."""
    limit = gymnasium.spec(f"visual-{environment}-v0").max_episode_steps
    if limit is None:
        raise ValueError(f"OGBench gives visual-{environment}-v0 no episode limit")
    return limit


class LightScene(ManipSpaceEnv):
    """What all of OGBench's scenes get: light meshes, seeded resets, and access to what the simulated arm needs.

    `light=False` gives OGBench's own look: full meshes, multisampling, shadows.
    """

    def __init__(self, env_type: str, *, mode: str = "task", render_size: int = 256, light: bool = True):
        self._light = light
        self._look: Look | None = None
        self._plain_colours = np.zeros((0, 4))
        self._lone_kind = 0  # of key points, by its colour
        super().__init__(
            env_type=env_type,
            ob_type="pixels",
            mode=mode,
            visualize_info=False,
            terminate_at_goal=False,
            width=render_size,
            height=render_size,
        )

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        """OGBench samples two random actions before it takes the goal picture; seeded here, so a seed fixes the picture."""
        box = gymnasium.spaces.Box(low=-1.0, high=1.0, shape=(5,), dtype=np.float32)
        box.seed(int(self.np_random.integers(2**31)))
        return box

    def compute_observation(self) -> np.ndarray:
        """The state (qpos); OGBench would render here, at every step and reset, where this scene renders on demand."""
        return self._data.qpos.copy()

    def set_look(self, seed: Sequence[int] | None, limits: LookRange | None) -> None:
        """A look drawn from `limits` and the seed, or the plain one; for light scenes, after a reset. Seed None: any."""
        if not self._light:
            return
        if self._look is None:
            self._look, self._plain_colours = Look(self._model, CAMERA), self._cube_colors.copy()
        colours = self._plain_colours
        self._look.restore()
        if limits is not None:
            generator = np.random.default_rng(seed)
            self._look.randomise(generator, limits)
            colours = recoloured(colours, generator, limits, self._num_cubes == 1)
            if generator.random() < limits.distractor:
                objects = np.concatenate([self.object_positions(), self.target_positions()])
                show_distractor(self._model, self._data, generator, objects, limits.hues)
        self._lone_kind = kind_of(colours[0], self._plain_colours[:CUBE_KINDS])
        self._cube_colors: np.ndarray = colours  # OGBench colours the cubes of furnished scenes anew at every step
        for ids, colour in zip(self._cube_geom_ids_list, colours, strict=False):
            self._model.geom_rgba[ids] = colour
        mujoco.mj_forward(self._model, self._data)  # camera, lamps and distractor are moved by it

    @property
    def goal_qpos(self) -> np.ndarray:
        """qpos of the scene as OGBench set it up for its goal observation."""
        return self._cur_goal_ob

    @contextlib.contextmanager
    def goal_look(self) -> Iterator[None]:
        """While this is open, the model's colours are the goal's."""
        yield

    def after_control_step(self) -> None:
        """What OGBench does after each of its control steps of 0.05 s, beside physics."""

    memories: tuple[str, ...] = ()  # attributes beside MuJoCo's state that decide how an episode goes on

    def memory(self) -> dict[str, Any]:
        """Copies of them."""
        return {name: copy.copy(getattr(self, name)) for name in self.memories}

    def remember(self, memory: dict[str, Any]) -> None:
        """Sets them as they were."""
        for name, value in memory.items():
            setattr(self, name, copy.copy(value))

    @property
    def arm_joints(self) -> np.ndarray:
        """Indices into qpos and qvel of the six arm joints."""
        return self._arm_joint_ids

    @property
    def arm_actuators(self) -> np.ndarray:
        return self._arm_actuator_ids

    @property
    def gripper_actuators(self) -> np.ndarray:
        return self._gripper_actuator_ids

    @property
    def gripper_joint(self) -> int:
        return int(self._gripper_opening_joint_id)

    @property
    def pinch_site(self) -> int:
        return int(self._pinch_site_id)

    def random_arm_position(self, generator: np.random.Generator) -> np.ndarray:
        """(3,) m for the pinch point, in the air, where OGBench's arm starts and its goal pictures show it."""
        return np.asarray(generator.uniform(*self._arm_sampling_bounds))

    def inverse_kinematics(self, position: np.ndarray, yaw: float, near: np.ndarray) -> np.ndarray:
        """Joints (6,) rad with the pinch point at `position` (m), gripper down at `yaw` (rad), closest to `near`."""
        rotation = lie.SO3.from_z_radians(yaw) @ self._effector_down_rotation
        bounded = np.clip(position, *self._workspace_bounds)
        pose = lie.SE3.from_rotation_and_translation(rotation=rotation, translation=bounded) @ self._T_pa
        return self._ik.solve(pos=pose.translation(), quat=pose.rotation().wxyz, curr_qpos=near)

    def cube_positions(self) -> np.ndarray:
        """(cubes, 3) m."""
        return np.array([self._data.joint(f"object_joint_{i}").qpos[:3] for i in range(self._num_cubes)])

    def cube_targets(self) -> np.ndarray:
        """(cubes, 3) m."""
        return self._data.mocap_pos[self._cube_target_mocap_ids].copy()

    def object_positions(self) -> np.ndarray:
        """(objects, 3) m, of everything that has a place."""
        return self.cube_positions()

    def target_positions(self) -> np.ndarray:
        """(objects, 3) m, where they belong."""
        return self.cube_targets()

    def things(self) -> dict[str, np.ndarray]:
        """(3,) m of all that a task may be about, by name, and of the gripper. A cube that is alone is called by its colour."""
        positions = self.cube_positions()
        first = self._lone_kind if len(positions) == 1 else 0
        cubes = {f"cube {i}": position for i, position in enumerate(positions, first)}
        return cubes | {"gripper": self._data.site_xpos[self.pinch_site].copy()}

    def successes(self) -> list[bool]:
        """OGBench's criterion for each object."""
        return [bool(success) for success in self._compute_successes()]

    def obstacles(self, without: int | None = None) -> np.ndarray:
        """(n, 5) m: x and y from, x and y to, and height of what the gripper must not run into, but for one cube."""
        cubes = np.array([p for i, p in enumerate(self.cube_positions()) if i != without]).reshape(-1, 3)
        half = 0.024  # between a cube's half side and its half diagonal
        return np.concatenate([cubes[:, :2] - half, cubes[:, :2] + half, cubes[:, 2:] + 0.02], axis=1)

    def build_mjcf_model(self) -> mjcf.RootElement:
        root = super().build_mjcf_model()
        if self._light:
            root.visual.quality.offsamples = 0
            root.visual.quality.shadowsize = SHADOW_MAP
            add_distractor(root)
            _use_light_meshes(root)
        return root


class CubeScene(LightScene, CubeEnv):
    """OGBench's `visual-cube-*` environments, rendered fast."""

    def __init__(self, env_type: str = "single", *, mode: str = "task", render_size: int = 256, light: bool = True):
        super().__init__(env_type, mode=mode, render_size=render_size, light=light)


def _use_light_meshes(root: mjcf.RootElement) -> None:
    """The furniture's meshes are light already; OGBench's arm is not."""
    light: dict[str, Any] = {}
    for geom in root.find_all("geom"):
        if geom.mesh is None or not _is_visual(geom):
            continue
        if geom.parent.inertial is None:  # then the body's mass comes from its meshes, and must not change
            geom.mass = mesh_mass(geom.mesh.file.contents, geom.mesh.file.extension, _scale(geom.mesh))
        name = geom.mesh.full_identifier
        if name not in light:
            light[name] = _add_light_mesh(geom.mesh)
        geom.mesh = light[name]


def _is_visual(geom: Any) -> bool:
    return geom.dclass is not None and geom.dclass.dclass == "visual"


def _scale(mesh: Any) -> float:
    scale = mesh.scale if mesh.scale is not None else mesh.dclass.mesh.scale if mesh.dclass is not None else None
    return 1.0 if scale is None else float(scale[0])


def _add_light_mesh(mesh: Any) -> Any:
    scale = _scale(mesh)
    name = f"{mesh.name or mesh.file.prefix}_light"
    contents = light_mesh(mesh.file.contents, mesh.file.extension, scale)
    asset = mjcf.Asset(contents, ".obj", prefix=name)  # OGBench drops the hash from file names: the prefix must be unique
    return mesh.root.asset.add("mesh", name=name, file=asset, scale=[scale] * 3)
