"""What the camera sees may differ: light, shadows, colours, opacity of the arm, camera pose, a thing that lies about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import mujoco
import numpy as np

SHADOW_MAP = 1024  # pixels; OGBench's has 4096, which costs five times as much and looks the same at 128 pixels
DISTRACTOR = "distractor"  # body without contacts, out of sight unless a look shows it
SHAPES = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_ELLIPSOID)
DISTRACTOR_SIZES = (0.015, 0.03)  # m, half
DISTRACTOR_AREA = ((0.28, -0.33), (0.57, 0.33))  # m
DISTRACTOR_APART = 0.12  # m from what is handled
CHANGED = (  # of a model
    *("light_diffuse", "light_dir", "light_castshadow", "mat_rgba", "geom_rgba", "cam_pos", "cam_quat"),
    *("geom_type", "geom_size"),
)
SEEN_HUES = ((-25.0, 60.0), (100.0, 150.0), (195.0, 235.0), (270.0, 300.0))  # degrees, of a lone cube and of things that lie about
UNSEEN_HUES = ((62.0, 98.0), (152.0, 193.0), (237.0, 268.0), (302.0, 333.0))  # never in training: limes, cyans, violets, magentas
GREYISH = 0.25  # saturation below which a hue does not count
CUBE_KINDS = 3  # of key points; a cube is of the kind whose colour is nearest to its own
BURIED = np.array([0.0, 0.0, -0.5])  # m, where the distractor is when it is not to be seen


@dataclass(frozen=True, kw_only=True)
class LookRange:
    """How far a random look may go from OGBench's. Shares from 0 to 1 are probabilities."""

    shadow: float = 0.4
    light: float = 0.35  # relative, of each lamp's brightness and of the floor's
    tint: float = 0.1  # relative, of each colour channel
    tilt: float = 0.35  # rad, of the lamp that casts shadows
    opaque: float = 0.3  # of the arm being another than a tenth opaque
    hue: float = 0.04  # of the cubes, as a share of the circle of colours
    recoloured: float = 0.6  # of a cube that is the only one having a hue of `hues` instead
    hues: tuple[tuple[float, float], ...] = SEEN_HUES  # degrees from and to; the distractor's too, unless it is nearly grey
    camera_position: float = 0.02  # m along each axis, at most
    camera_angle: float = np.deg2rad(3.0)  # about each axis, at most
    distractor: float = 0.5


RANGE = LookRange()
PLAIN = LookRange(shadow=0, light=0, tint=0, tilt=0, opaque=0, hue=0, recoloured=0, camera_position=0, camera_angle=0, distractor=0)
SHADOWED = replace(PLAIN, shadow=1.0)
# One thing at a time, for evaluation: farther than training goes, or what it leaves out.
UNSEEN = {
    "cube_colours": replace(PLAIN, hue=0.5, recoloured=1.0, hues=UNSEEN_HUES),
    "light": replace(PLAIN, light=0.5, tint=0.15, shadow=0.5, tilt=0.5),
    "camera": replace(PLAIN, camera_position=0.02, camera_angle=np.deg2rad(3.0)),
    "distractor": replace(PLAIN, distractor=1.0, hues=((0.0, 360.0),)),
}
# What an evaluation may look like. stock: OGBench's own renderer. unseen:region looks fast; its tasks differ (tasks.beyond_task).
LOOKS = ("fast", "stock", "randomised", *(f"unseen:{name}" for name in UNSEEN), "unseen:region")


def look_range(look: str) -> LookRange | None:
    """What the looks of `look` are drawn from; None: OGBench's own. ValueError for one that is not in LOOKS."""
    if look not in LOOKS:
        raise ValueError(f"look '{look}' is not one of {', '.join(LOOKS)}")
    return RANGE if look == "randomised" else UNSEEN.get(look.removeprefix("unseen:"))


def add_distractor(root: Any) -> None:
    """Puts the thing that may lie about into an MJCF model, buried and without contacts."""
    body = root.worldbody.add("body", name=DISTRACTOR, pos=BURIED, mocap="true")
    body.add("geom", name=DISTRACTOR, type="box", size=[0.02] * 3, mass=0, contype=0, conaffinity=0, group=1, rgba=[0.5, 0.5, 0.5, 1])


class Look:
    """Changes a compiled model's looks, and restores them. Physics stays as it is."""

    def __init__(self, model: mujoco.MjModel, camera: str) -> None:
        self._model, self._camera = model, model.cam(camera).id
        self._plain = {name: getattr(model, name).copy() for name in CHANGED}
        self._headlight = model.vis.headlight.diffuse.copy(), model.vis.headlight.ambient.copy()
        self.restore()

    def restore(self) -> None:
        """As OGBench has it, but without shadows."""
        for name, values in self._plain.items():
            getattr(self._model, name)[:] = values
        self._model.light_castshadow[:] = 0
        self._model.vis.headlight.diffuse[:], self._model.vis.headlight.ambient[:] = self._headlight

    def randomise(self, generator: np.random.Generator, limits: LookRange) -> None:
        """A look drawn from `limits`, of all but the cubes' colours (`recoloured`) and the distractor (`show_distractor`)."""
        self.restore()
        self._light(generator, limits)
        self._materials(generator, limits)
        self._move_camera(generator, limits)

    def _light(self, generator: np.random.Generator, limits: LookRange) -> None:
        model = self._model
        if generator.random() < limits.shadow:
            model.light_castshadow[0] = 1
        for lamp in (*model.light_diffuse, model.vis.headlight.diffuse):
            lamp *= _factor(generator, limits.light) * _tint(generator, limits.tint)
        model.vis.headlight.ambient[:] += limits.light * generator.uniform(0.0, 0.4)
        angle, turn = limits.tilt * generator.random(), generator.uniform(-np.pi, np.pi)
        model.light_dir[0] = [np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), -np.cos(angle)]

    def _materials(self, generator: np.random.Generator, limits: LookRange) -> None:
        model = self._model
        model.mat_rgba[model.mat("grid").id, :3] *= np.minimum(_factor(generator, limits.light) * _tint(generator, limits.tint), 1.6)
        if generator.random() < limits.opaque:
            arm = [i for i in range(model.nmat) if model.mat(i).name.startswith("ur5e/")]
            model.mat_rgba[arm, 3] = np.clip(model.mat_rgba[arm, 3] * generator.uniform(0.5, 10.0), 0.0, 1.0)

    def _move_camera(self, generator: np.random.Generator, limits: LookRange) -> None:
        model, camera = self._model, self._camera
        model.cam_pos[camera] += generator.uniform(-limits.camera_position, limits.camera_position, 3)
        turn, result = np.zeros(4), np.zeros(4)
        mujoco.mju_euler2Quat(turn, generator.uniform(-limits.camera_angle, limits.camera_angle, 3), "xyz")
        mujoco.mju_mulQuat(result, model.cam_quat[camera], turn)
        model.cam_quat[camera] = result


def show_distractor(
    model: mujoco.MjModel, data: mujoco.MjData, generator: np.random.Generator, objects: np.ndarray, hues: Sequence[tuple[float, float]]
) -> None:
    """Lays the distractor, of random shape, size and colour, on the table, away from `objects` (n, 3) m; `hues` in degrees."""
    geom, size = model.geom(DISTRACTOR), generator.uniform(*DISTRACTOR_SIZES, 3)
    geom.type, geom.size = generator.choice(SHAPES), size
    geom.rgba[:3] = _colour(generator, hues)
    height = size[1] if geom.type == mujoco.mjtGeom.mjGEOM_CYLINDER else size[0] if geom.type == mujoco.mjtGeom.mjGEOM_SPHERE else size[2]
    places = np.column_stack([generator.uniform(*DISTRACTOR_AREA, (100, 2)), np.full(100, height)])
    room = np.linalg.norm(places[:, None, :2] - objects[:, :2], axis=2).min(1)
    data.mocap_pos[model.body(DISTRACTOR).mocapid[0]] = places[np.argmax(room > DISTRACTOR_APART)]


def recoloured(colours: np.ndarray, generator: np.random.Generator, limits: LookRange, lone: bool) -> np.ndarray:
    """(n, 4) RGBA with each hue turned by up to `limits.hue` of the circle; `lone`: the first one may be of any of `limits.hues`."""
    hsv = _hsv(colours)
    hsv[:, 0] = (hsv[:, 0] + 360.0 * generator.uniform(-limits.hue, limits.hue, len(colours))) % 360.0
    if lone and generator.random() < limits.recoloured:
        low, high = np.array(limits.hues).T
        hsv[0, 0] = generator.uniform(*limits.hues[generator.choice(len(low), p=(high - low) / (high - low).sum())]) % 360.0
    return np.concatenate([cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], colours[:, 3:]], axis=1)


def _colour(generator: np.random.Generator, hues: Sequence[tuple[float, float]]) -> np.ndarray:
    """(3,) RGB that is nearly grey or has one of the hues."""
    while True:
        colour = generator.uniform(0.1, 1.0, 3)
        hue, saturation, _ = _hsv(colour[None])[0]
        if saturation < GREYISH or any((hue - low) % 360.0 <= high - low for low, high in hues):
            return colour


def kind_of(colour: np.ndarray, plain: np.ndarray) -> int:
    """Index of the colour of `plain` (n, 4), as training without random looks has them, whose hue is nearest to that of one (4,)."""
    away = np.abs(_hsv(plain)[:, 0] - _hsv(colour[None])[0, 0])
    return int(np.minimum(away, 360.0 - away).argmin())


def _hsv(colours: np.ndarray) -> np.ndarray:
    """(n, 3) hue in degrees, saturation and value, of (n, 4) RGBA."""
    return np.asarray(cv2.cvtColor(colours[None, :, :3].astype(np.float32), cv2.COLOR_RGB2HSV)[0])


def _factor(generator: np.random.Generator, spread: float) -> float:
    return float(np.exp(spread * generator.uniform(-1.0, 1.0)))


def _tint(generator: np.random.Generator, spread: float) -> np.ndarray:
    return np.exp(spread * generator.uniform(-1.0, 1.0, 3))
