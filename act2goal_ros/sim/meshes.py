"""Light visual meshes for software rendering.

OGBench's UR5e has 185,000 visual faces, which render at a few frames a second without a GPU. Vertices are clustered on a
grid first (quadric decimation alone gets stuck on the many loose parts), then decimated. Collision meshes stay untouched.
"""

import hashlib
import os
from pathlib import Path

import fast_simplification
import mujoco
import numpy as np
import trimesh

GRID = 0.002  # m
FACES = 500  # per mesh, at most


def cache_folder() -> Path:
    """Where derived files live: `$ACT2GOAL_CACHE`, else the XDG cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "act2goal_ros"
    return Path(os.environ.get("ACT2GOAL_CACHE", default))


def light_mesh(contents: bytes, extension: str, scale: float = 1.0) -> bytes:
    """OBJ text of the decimated mesh, from the cache where it was made before.

    `scale` is the factor from file units to metres; the result stays in file units.
    """
    key = hashlib.sha256(contents + f"{GRID}:{FACES}:{scale}".encode()).hexdigest()[:32]
    path = cache_folder() / "meshes" / f"{key}.obj"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(_decimate(contents, extension, GRID / scale))
        temporary.replace(path)
    return path.read_bytes()


def mesh_mass(contents: bytes, extension: str, scale: float = 1.0) -> float:
    """Mass in kg that MuJoCo gives a geom of this mesh at its default density."""
    xml = f"""<mujoco><asset><mesh name="m" file="m{extension}" scale="{scale} {scale} {scale}"/></asset>
    <worldbody><body><freejoint/><geom type="mesh" mesh="m"/></body></worldbody></mujoco>"""
    return float(mujoco.MjModel.from_xml_string(xml, {f"m{extension}": contents}).body_mass[1])


def _decimate(contents: bytes, extension: str, grid: float) -> bytes:
    mesh = trimesh.load_mesh(trimesh.util.wrap_as_stream(contents), file_type=extension.lstrip("."))
    if not isinstance(mesh, trimesh.Trimesh):
        raise TypeError(f"a mesh file holds a {type(mesh).__name__}, a single mesh is expected")
    vertices, faces = _cluster(np.asarray(mesh.vertices), np.asarray(mesh.faces), grid)
    if len(faces) > FACES:
        vertices, faces = fast_simplification.simplify(
            vertices.astype(np.float32), faces.astype(np.int32), target_reduction=1.0 - FACES / len(faces), agg=7
        )
    lines = [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in np.asarray(faces) + 1]
    return "\n".join(lines).encode()


def _cluster(vertices: np.ndarray, faces: np.ndarray, grid: float) -> tuple[np.ndarray, np.ndarray]:
    """Merges the vertices of one grid cell into their mean and drops the faces that collapse."""
    _, index, counts = np.unique(np.round(vertices / grid), axis=0, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    merged = np.zeros((len(counts), 3))
    np.add.at(merged, index, vertices)
    faces = index[faces]
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return merged / counts[:, None], np.unique(faces[distinct], axis=0)
