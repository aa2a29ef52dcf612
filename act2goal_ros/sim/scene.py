"""OGBench's cube scenes with light visuals and reproducible resets."""

from typing import Any

import gymnasium
import numpy as np
from dm_control import mjcf
from ogbench.manipspace import lie
from ogbench.manipspace.envs.cube_env import CubeEnv

from act2goal_ros.sim.meshes import light_mesh, mesh_mass

CAMERA = "front_pixels"  # OGBench's camera for pixel observations


class CubeScene(CubeEnv):
    """OGBench's `visual-cube-*` environment, rendered fast.

    `light=False` gives OGBench's own look: full meshes, multisampling, shadows.
    """

    def __init__(self, env_type: str = "single", *, mode: str = "task", render_size: int = 256, light: bool = True):
        self._light = light
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

    @property
    def goal_qpos(self) -> np.ndarray:
        """qpos of the scene as OGBench set it up for its goal observation."""
        return self._cur_goal_ob

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

    def inverse_kinematics(self, position: np.ndarray, yaw: float, near: np.ndarray) -> np.ndarray:
        """Joints (6,) rad with the pinch point at `position` (m), gripper down at `yaw` (rad), closest to `near`."""
        rotation = lie.SO3.from_z_radians(yaw) @ self._effector_down_rotation
        bounded = np.clip(position, *self._workspace_bounds)
        pose = lie.SE3.from_rotation_and_translation(rotation=rotation, translation=bounded) @ self._T_pa
        return self._ik.solve(pos=pose.translation(), quat=pose.rotation().wxyz, curr_qpos=near)

    def object_positions(self) -> np.ndarray:
        """(cubes, 3) m."""
        return np.array([self._data.joint(f"object_joint_{i}").qpos[:3] for i in range(self._num_cubes)])

    def target_positions(self) -> np.ndarray:
        """(cubes, 3) m."""
        return self._data.mocap_pos[self._cube_target_mocap_ids].copy()

    def build_mjcf_model(self) -> mjcf.RootElement:
        root = super().build_mjcf_model()
        if self._light:
            root.visual.quality.offsamples = 0
            root.visual.quality.shadowsize = 0
            _use_light_meshes(root)
        return root


def _use_light_meshes(root: mjcf.RootElement) -> None:
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
