"""The one description of the graph: which nodes, in what order, with which parameters, remappings and environment.

launch/bringup.launch.py and launcher.py both read it; there is no second list of nodes. Nothing here imports rclpy.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from act2goal_ros import paths
from act2goal_ros.control import presence
from act2goal_ros.control.robot import RobotConfig, RobotError
from act2goal_ros.nodes import topics
from act2goal_ros.serving import BACKENDS

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
FASTDDS_PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # Fast DDS 3, Fast DDS 2
BOOLEAN = ("true", "false")


class GraphError(ValueError):
    """An argument or a parameter file that does not fit; the message names it and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One launch argument, given as name:=value."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()

    @property
    def explained(self) -> str:
        """The description and the choices, if there are any."""
        return self.description + (f" ({' | '.join(self.choices)})" if self.choices else "")

    def check(self, value: str) -> str:
        """Return the value in its normal form; raise GraphError where it is none of the choices."""
        if self.choices == BOOLEAN and value.lower() in TRUE + FALSE:
            return BOOLEAN[value.lower() in FALSE]
        if self.choices and value not in self.choices:
            raise GraphError(f"argument {self.name}:={value} is none of {', '.join(self.choices)}")
        return value


ARGUMENTS = (
    Argument(
        name="robot",
        default="",
        description="file in config/robots/ (without .yaml) or path of one; empty: ur5e_sim with sim:=true, else ur5e",
    ),
    Argument(
        name="sim", default="true", choices=BOOLEAN, description="start the simulated arm; false: a real driver is running"
    ),
    Argument(
        name="camera",
        default="",
        description="source the camera node reads: device (/dev/video0), video file, picture, stream address, or topic:<name> of a "
        "driver; it publishes the middle square as small as the model needs it; empty: no camera node, the simulated arm or a driver "
        "publishes image_raw as it must be",
    ),
    Argument(name="model", default="act2goal-tiny", description="folder in models/ or path of a model's folder"),
    Argument(
        name="backend",
        default="auto",
        choices=BACKENDS,
        description="what runs the networks; auto: the first of the others that works and computes what torch does",
    ),
    Argument(
        name="command_interface",
        default="topic",
        choices=("topic", "action"),
        description="how the policy commands the controller: its topic joint_trajectory, or its action FollowJointTrajectory, "
        "whose results and tolerances then count",
    ),
    Argument(
        name="goal_image",
        default="",
        description="picture of the goal to start with; empty: with sim:=true that of the task, else wait; none: wait for one",
    ),
    Argument(
        name="use_sim_time",
        default="false",
        choices=BOOLEAN,
        description="take time from /clock; with sim:=true the simulated arm is stepped and publishes it",
    ),
    Argument(name="namespace", default="", description="namespace of all nodes and relative topics; empty: none"),
    Argument(name="record", default="true", choices=BOOLEAN, description="record every rollout as a rosbag2 MCAP"),
    Argument(
        name="discovery",
        default="localhost",
        choices=("localhost", "subnet"),
        description="who may find the nodes: this machine only, or the local network",
    ),
    Argument(name="task", default="cube-single-1", description="task of the simulated arm's first episode"),
    Argument(name="params", default="", description="YAML file of ROS parameters that override all others"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked launch arguments."""

    robot: str
    sim: bool
    camera: str
    model: str
    backend: str
    command_interface: str
    goal_image: str
    use_sim_time: bool
    namespace: str
    record: bool
    discovery: str
    task: str
    params: str

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Settings:
        """Return settings from name → value, defaults for the rest.

        Raises GraphError for an unknown name, a value that is none of the choices, or a file that does not exist.
        """
        known = {argument.name: argument for argument in ARGUMENTS}
        for name in given:
            if name not in known:
                raise GraphError(f"unknown argument {name}; known are {', '.join(known)}")
        values: dict[str, Any] = {name: known[name].check(given.get(name, known[name].default)) for name in known}
        for name, argument in known.items():
            if argument.choices == BOOLEAN:
                values[name] = values[name] == "true"
        values["robot"] = values["robot"] or ("ur5e_sim" if values["sim"] else "ur5e")
        values["namespace"] = values["namespace"].strip("/")
        values["goal_image"] = _goal_image(values["goal_image"], values["sim"], values["task"])
        for name in ("goal_image", "params"):
            if values[name] and not Path(values[name]).expanduser().is_file():
                raise GraphError(f"argument {name}:={values[name]}: there is no such file")
            values[name] = values[name] and str(Path(values[name]).expanduser().resolve())
        return cls(**values)


def _goal_image(given: str, sim: bool, task: str) -> str:
    """Return the file of the goal to start with, or nothing: the simulated arm's tasks have pictures in config/goals."""
    if given == "none":
        return ""
    picture = paths.share() / "config" / "goals" / f"{task}.png"
    return given or (str(picture) if sim and picture.is_file() else "")


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One node of the graph; its name is its executable's.

    overrides are the parameters the launch arguments set. A node that ends is started again (respawn) until it fails
    too often; then the launch ends too if the node is required.
    """

    executable: str
    parameters: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    required: bool = True
    respawn: bool = True


def nodes(settings: Settings) -> tuple[NodeSpec, ...]:
    """Return the nodes to start, in the order of starting; they are stopped in the reverse order."""
    networks = {"model": settings.model, "backend": settings.backend}
    robot = {"robot": settings.robot}
    overrides: dict[str, dict[str, Any]] = {}
    if settings.sim:
        overrides["simulated_arm"] = robot | {"task": settings.task, "stepped": settings.use_sim_time}
    if settings.camera:
        overrides["camera"] = {"source": settings.camera} | _output_size(settings.model)
    overrides["goal"] = robot | {"goal_image": settings.goal_image, "crop": bool(settings.camera)}
    overrides["imagination"] = networks
    overrides["msth"] = {"model": settings.model}
    overrides["policy"] = networks | robot | {"command_interface": settings.command_interface}
    overrides["rollouts"] = robot | {"enabled": settings.record}
    overrides["supervisor"] = robot | {"nodes": list(overrides)}
    config, seen = paths.share() / "config", _camera_topic(settings.robot)
    return tuple(
        NodeSpec(
            executable=name,
            parameters=config / f"{name}.yaml",
            overrides=values | ({"use_sim_time": True} if settings.use_sim_time else {}),
            remappings=((topics.IMAGE, seen),) if seen != topics.IMAGE else (),
            required=name not in ("camera", "rollouts"),
        )
        for name, values in overrides.items()
    )


def _output_size(model: str) -> dict[str, int]:
    """The camera node's parameter that makes its pictures as small as the model needs them; none for a model that is not there."""
    try:
        manifest = json.loads((paths.model(model) / "manifest.json").read_text())
        return {"output_size": int(manifest["config"]["camera_size"])}
    except (OSError, KeyError, TypeError, ValueError):
        return {}  # the nodes that load the model say what is wrong with it


def _camera_topic(robot: str) -> str:
    try:
        return RobotConfig.load(robot).camera.topic
    except RobotError as error:
        raise GraphError(f"argument robot:={robot}: {error}") from error


def parameters(node: NodeSpec, settings: Settings) -> dict[str, Any]:
    """Return a node's parameters: its file in config/, over it the launch arguments, over them the file `params`.

    Raises GraphError for a file that cannot be read or is no ROS parameter file, or that names a node of no graph.
    """
    merged = _of_node(_read(node.parameters), node.executable) | dict(node.overrides)
    if settings.params:
        content = _read(Path(settings.params))
        known = {spec.executable for spec in nodes(settings)} | {"**", "*", "camera", "simulated_arm"}
        for key in content:
            if key.rsplit("/", 1)[-1] not in known:
                raise GraphError(f"{settings.params}: no node fits '{key}'; known are {', '.join(sorted(known - {'*'}))}")
        merged |= _of_node(content, node.executable)
    return merged


def write_parameters(node: NodeSpec, settings: Settings, folder: Path) -> Path:
    """Write a node's merged parameters as one ROS parameter file into folder and return its path."""
    path = folder / f"{node.executable}.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters(node, settings)}}, sort_keys=False))
    return path


def environment(settings: Settings, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables the nodes need beside those given.

    Fast DDS gets a shared-memory segment large enough for images; with discovery localhost it also opens no socket
    on any other interface. A profile of the user's own stays in force, and so does another middleware.
    """
    variables = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": settings.discovery.upper(),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_LOGGING_BUFFERED_STREAM": "0",
    }
    fastdds = given.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps")
    if fastdds and not any(given.get(name) for name in FASTDDS_PROFILES):
        prefixes = [sys.prefix, *given.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
        version_3 = any((Path(prefix) / "share/fastdds").is_dir() for prefix in prefixes if prefix)
        variables[FASTDDS_PROFILES[not version_3]] = str(paths.share() / "config" / f"fastdds_{settings.discovery}.xml")
        # The profile says who may find the nodes; the range LOCALHOST would add a socket on all interfaces to it.
        variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
    return variables


def take_launch(settings: Settings) -> IO[str]:
    """Reserve namespace and ROS domain for one launch until the file returned is closed or this process ends.

    Raises presence.NameTaken, naming both and the process that holds them.
    """
    namespace = f"/{settings.namespace}" if settings.namespace else ""
    return presence.take_name(f"{namespace}/launch", os.environ.get("ROS_DOMAIN_ID", "0"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise GraphError(f"parameter file {path}: {error}") from error
    if not isinstance(content, dict):
        raise GraphError(f"parameter file {path}: holds a {type(content).__name__}, expected nodes with ros__parameters")
    for key, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("ros__parameters"), dict):
            raise GraphError(f"parameter file {path}: '{key}' holds no ros__parameters")
    return content


def _of_node(content: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in sorted(content, key=lambda key: key.rsplit("/", 1)[-1] == name):  # wildcards first, the node's own last
        if key.rsplit("/", 1)[-1] in ("*", "**", name):
            found |= content[key]["ros__parameters"]
    return found
