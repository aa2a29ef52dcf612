"""The package as it is installed: stand-in for control_msgs, requirements, entry points, package.xml."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
REAL_HASHES = {  # computed from control_msgs 6.8.0
    "action/FollowJointTrajectory": "RIHS01_ff29901b2693f5deb847e96084a1c2cdb26e70b7c847be21859b70a55fb29cf0",
    "msg/JointTrajectoryControllerState": "RIHS01_51d8dd89cc624cbe9daaeeb4d80d6de9b86168ffdc3be41fefc0953e3c26e480",
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SETS = ("build", "robot", "sim", "test", "train")


def installed_hashes(package: str, interface: str) -> dict[str, str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    prefix = Path(spec.origin).parents[4]
    description = json.loads((prefix / "share" / package / f"{interface}.json").read_text())
    return {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}


@pytest.mark.parametrize("interface", REAL_HASHES)
def test_stand_in_is_wire_compatible(interface: str) -> None:
    assert installed_hashes("control_msgs", interface)[f"control_msgs/{interface}"] == REAL_HASHES[interface]


@pytest.mark.parametrize("interface", ["GripperCommand", "ParallelGripperCommand"])
def test_stand_in_has_the_grippers_actions(interface: str) -> None:
    action = getattr(importlib.import_module("control_msgs.action"), interface)
    assert {"stalled", "reached_goal"} <= set(action.Result.get_fields_and_field_types())


def test_stand_in_is_not_built_beside_the_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "lib" / "control_msgs" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.syspath_prepend(str(ROOT / "compat"))
    interfaces = importlib.import_module("interfaces")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), *sys.path])
    monkeypatch.delitem(sys.modules, "control_msgs", raising=False)
    importlib.invalidate_caches()
    assert interfaces.real_control_msgs(tmp_path)
    (tmp_path / "share/control_msgs").mkdir(parents=True)
    (tmp_path / "share/control_msgs/STAND_IN").touch()
    assert not interfaces.real_control_msgs(tmp_path)


def test_entry_points_exist() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    points = dict(re.fullmatch(r"(\S+) = (\S+):main", line.strip()).groups() for line in lines)  # type: ignore[union-attr]
    nodes = {name for name in points if name != "act2goal"}
    assert nodes == {"camera", "goal", "imagination", "msth", "policy", "rollouts", "simulated_arm", "supervisor"}
    for module in points.values():
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        assert any(getattr(part, "name", "") == "main" for part in ast.parse(source).body), f"{module} has no main"


def pins(name: str, python: str) -> dict[str, str]:
    """Package → version of requirements/<name>.txt for one Python version."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
    }
    found = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        versions = [item.version for item in requirement.specifier if item.operator == "=="]
        assert len(versions) == 1, f"{name}.txt: {line} is not pinned"
        marker: Marker | None = requirement.marker
        if marker is None or marker.evaluate(environment):
            assert requirement.name not in found, f"{name}.txt: {requirement.name} stands twice for Python {python}"
            found[requirement.name] = versions[0]
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_agree(python: str) -> None:
    together: dict[str, str] = {}
    for name in (*SETS, "ros-kilted"):
        for package, version in pins(name, python).items():
            assert together.setdefault(package, version) == version, f"{package} in {name}.txt and elsewhere"
    assert pins("ros-jazzy", python).keys() >= {"ros-rclpy", "numpy"}


def test_requirements_are_locked_from_their_sources() -> None:
    for name in SETS:
        wanted = {
            re.split(r"[<>=~ ]", line.partition("#")[0].strip())[0].lower().replace("_", "-")
            for line in (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
            if line.partition("#")[0].strip() and not line.startswith("-r")
        }
        assert wanted <= {package.lower().replace("_", "-") for package in pins(name, "3.12")}, f"run requirements/lock.sh: {name}"


def test_package_files_are_valid() -> None:
    root, interfaces = (parse_package(str(ROOT / folder / "package.xml")) for folder in (".", "msg"))
    stand_in = parse_package(str(ROOT / "compat/control_msgs/package.xml"))
    assert (root.name, interfaces.name, stand_in.name) == ("act2goal_ros", "act2goal_msgs", "control_msgs")
    # rosdep does not see msg/ inside the root package, so the root's file names what it needs
    assert {d.name for d in interfaces.build_depends} <= {d.name for d in root.build_depends}
    assert "act2goal_msgs" not in {d.name for d in root.build_depends + root.exec_depends}


def test_only_nodes_and_commands_import_rclpy() -> None:
    for path in (ROOT / "act2goal_ros").rglob("*.py"):
        if path.parent.name != "nodes":
            assert not re.search(r"^\s*(import|from) rclpy", path.read_text(), re.M), f"{path} imports rclpy"


def test_nothing_that_is_read_can_run_code() -> None:
    """No pickle, no eval: what comes from files or the network is data."""
    forbidden = re.compile(r"\b(import pickle|from pickle|import marshal|import shelve|dill|joblib)\b|allow_pickle=True|weights_only=False"
                           r"|(?<![\w.])(eval|exec)\(")  # fmt: skip
    sources = [*(ROOT / "act2goal_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    found = [f"{path.name}: {line.strip()}" for path in sources for line in path.read_text().splitlines() if forbidden.search(line)]
    assert len(sources) > 100 and found == []
    assert forbidden.search("x = eval(text)") and not forbidden.search("model.eval()")
