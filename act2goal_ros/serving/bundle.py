"""A model on disk: ONNX networks and a manifest that vouches for them."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from act2goal_ros.model.config import ConfigError, ModelConfig
from act2goal_ros.serving import PRECISION
from act2goal_ros.serving.backends import serve
from act2goal_ros.serving.imagination import Imagination, TimeToGoal
from act2goal_ros.serving.policy import GoalPolicy
from act2goal_ros.serving.reference import FILE as REFERENCE

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"  # what trainings start from (learning/released.py)
FORMAT = 2  # 2: the tick is one network
NETWORKS = ("encode", "decode", "distance", "imagine", "plan_keys", "tick")


class ModelError(ValueError):
    """A model that must not be used; the message names the file, the value and the bound."""


class ModelBundle:
    """Checked on loading: format, every file's SHA-256, robot and joints."""

    def __init__(self, folder: Path, manifest: dict[str, Any], digest: str) -> None:
        self.folder, self.manifest, self.hash = folder, manifest, digest
        try:
            self.config = ModelConfig.from_dict(manifest["config"])
        except (KeyError, TypeError, ConfigError) as error:
            raise ModelError(f"{folder / MANIFEST}: configuration cannot be used: {error}") from error

    @classmethod
    def load(cls, folder: str | Path, robot: str | None = None) -> "ModelBundle":
        """Reads and checks the model in `folder`; `robot` is the robot's model name it must have been made for."""
        folder = Path(folder)
        try:
            contents = (folder / MANIFEST).read_bytes()
            manifest = json.loads(contents)
        except OSError as error:
            hint = f"; `act2goal export {folder} FOLDER` makes one of its weights" if (folder / WEIGHTS).is_file() else ""
            raise ModelError(f"no model in {folder}: {error}{hint}") from error
        except ValueError as error:
            raise ModelError(f"{folder / MANIFEST} is not JSON: {error}") from error
        if manifest.get("format") != FORMAT:
            raise ModelError(f"{folder / MANIFEST}: format {manifest.get('format')!r}, this version reads {FORMAT}")
        _check_files(folder, manifest.get("files", {}))
        if robot is not None and robot not in manifest["robots"]:
            raise ModelError(f"model {manifest['name']} is for {', '.join(manifest['robots'])}, not for robot '{robot}'")
        return cls(folder, manifest, hashlib.sha256(contents).hexdigest())

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the camera pictures the policy was trained on."""
        return self.config.camera_size, self.config.camera_size

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self.config.joint_names

    @property
    def step(self) -> float:
        """Seconds between actions."""
        return self.config.step

    @property
    def chunk_steps(self) -> int:
        return self.config.chunk_steps

    @property
    def dense_offsets(self) -> tuple[int, ...]:
        """Steps from the plan's start of its dense frames."""
        return tuple(self.config.vision_stride * (k + 1) for k in range(self.config.dense_frames))

    @property
    def distal_frames(self) -> int:
        return self.config.distal_frames

    def imagination(self, backend: str = "auto", threads: int = 1, precision: str = PRECISION) -> Imagination:
        """Served by `backend`, or by the best that works here; BackendError says why none does."""
        return Imagination(self.config, serve(self.folder, ("encode", "decode", "distance", "imagine"), backend, threads, precision))

    def policy(self, backend: str = "auto", threads: int = 1, precision: str = PRECISION) -> GoalPolicy:
        """Likewise."""
        return GoalPolicy(self.config, serve(self.folder, ("encode", "plan_keys", "tick"), backend, threads, precision))

    @cached_property
    def time_to_goal(self) -> TimeToGoal:
        """Seconds from a live latent to the goal's, (C, h, w) each, on the CPU; BackendError when it does not compute what torch did."""
        return TimeToGoal(self.config, serve(self.folder, ("distance",), "onnxruntime").runners["distance"])


def file_hash(path: Path) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_files(folder: Path, files: dict[str, str]) -> None:
    missing = [name for name in (*(f"{network}.onnx" for network in NETWORKS), REFERENCE) if name not in files]
    if missing:
        raise ModelError(f"{folder / MANIFEST} does not list {', '.join(missing)}")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path} is missing, the manifest lists it")
        found = file_hash(path)
        if found != expected:
            raise ModelError(f"{path}: SHA-256 is {found}, the manifest says {expected}")
