"""The description of the graph: arguments, nodes, parameters and their precedence, environment."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest
import yaml

from act2goal_ros import graph, paths
from act2goal_ros.nodes import parameters

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = ["goal", "imagination", "msth", "policy", "rollouts", "supervisor"]


def names(**given: str) -> list[str]:
    return [node.executable for node in graph.nodes(graph.Settings.parse(given))]


def merged(name: str, **given: str) -> dict[str, object]:
    settings = graph.Settings.parse(given)
    (node,) = [node for node in graph.nodes(settings) if node.executable == name]
    return graph.parameters(node, settings)


def test_simulated_and_real_arm_differ_by_one_node() -> None:
    assert names() == ["simulated_arm", *PIPELINE]
    assert names(sim="false") == PIPELINE
    assert names(sim="false", camera="/dev/video0") == ["camera", *PIPELINE]


def test_robot_follows_sim_unless_given() -> None:
    assert merged("policy")["robot"] == "ur5e_sim"
    assert merged("policy", sim="false")["robot"] == "ur5e"
    assert merged("policy", sim="false", robot="ur5e_sim")["robot"] == "ur5e_sim"


def test_the_policy_is_told_how_to_command() -> None:
    assert merged("policy")["command_interface"] == "topic"
    assert merged("policy", command_interface="action")["command_interface"] == "action"
    with pytest.raises(graph.GraphError, match="command_interface:=service is none of topic, action"):
        graph.Settings.parse({"command_interface": "service"})


def test_supervisor_manages_exactly_the_other_nodes() -> None:
    for given in ({}, {"sim": "false"}, {"camera": "/dev/video0"}):
        *others, supervisor = names(**given)
        assert supervisor == "supervisor"
        assert merged("supervisor", **given)["nodes"] == others


@pytest.mark.parametrize("given", [{}, {"camera": "x.png"}, {"use_sim_time": "true"}, {"sim": "false", "record": "false"}])
def test_every_parameter_is_known_to_its_node_and_in_range(given: dict[str, str]) -> None:
    settings = graph.Settings.parse(given)
    for node in graph.nodes(settings):
        module = importlib.import_module(f"act2goal_ros.nodes.{node.executable}")
        schemas = [value for name, value in vars(module).items()
                   if name.endswith("Parameters") and dataclasses.is_dataclass(value) and value.__module__ == module.__name__]
        assert len(schemas) == 1
        values = graph.parameters(node, settings)
        assert values.pop("use_sim_time", False) == settings.use_sim_time
        parameters.build(schemas[0], values)


@pytest.mark.parametrize("word", ["true", "True", "1", "yes"])
def test_booleans_are_taken_as_ros_users_write_them(word: str) -> None:
    assert graph.Settings.parse({"sim": word}).sim
    assert graph.Settings.parse({"record": word}).record


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sim": "maybe"}, "sim:=maybe is none of true, false"),
        ({"discovery": "world"}, "discovery:=world is none of localhost, subnet"),
        ({"robott": "ur5e"}, "unknown argument robott; known are robot, "),
        ({"goal_image": "/nowhere/cup.png"}, "goal_image:=/nowhere/cup.png: there is no such file"),
        ({"params": "/nowhere/p.yaml"}, "params:=/nowhere/p.yaml: there is no such file"),
    ],
)
def test_bad_arguments_name_value_and_bound(given: dict[str, str], message: str) -> None:
    with pytest.raises(graph.GraphError) as caught:
        graph.Settings.parse(given)
    assert message in str(caught.value)


def test_parameters_file_overrides_arguments_and_the_nodes_own_key_the_wildcard(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({
        "/**/policy": {"ros__parameters": {"command_rate": 80.0}},
        "/**": {"ros__parameters": {"command_rate": 70.0, "model": "mine"}},
    }))
    assert merged("policy", params=str(path), model="other")["command_rate"] == 80.0
    assert merged("policy", params=str(path), model="other")["model"] == "mine"
    assert merged("policy", model="other")["model"] == "other"
    assert merged("policy")["model"] == "act2goal-tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/**/polizy: {ros__parameters: {command_rate: 80.0}}", "no node fits '/**/polizy'"),
        ("policy: {command_rate: 80.0}", "'policy' holds no ros__parameters"),
        ("[1, 2]", "holds a list"),
        ("a: [", "mine.yaml"),
    ],
)
def test_bad_parameter_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(graph.GraphError) as caught:
        merged("policy", params=str(path))
    assert message in str(caught.value)


def test_written_parameters_are_a_ros_parameter_file(tmp_path: Path) -> None:
    settings = graph.Settings.parse({})
    for node in graph.nodes(settings):
        content = yaml.safe_load(graph.write_parameters(node, settings, tmp_path).read_text())
        assert content == {"/**": {"ros__parameters": graph.parameters(node, settings)}}


@pytest.mark.parametrize("given", [{"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}, {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}])
def test_profile_and_middleware_of_the_users_own_stay_in_force(given: dict[str, str]) -> None:
    settings = graph.Settings.parse({})
    variables = graph.environment(settings, given)
    assert not set(graph.FASTDDS_PROFILES) & set(variables)
    assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert set(graph.FASTDDS_PROFILES) & set(graph.environment(settings, {}))


@pytest.mark.parametrize("discovery", ["localhost", "subnet"])
def test_profiles_have_room_for_images_and_only_localhost_is_confined(discovery: str) -> None:
    tree = ElementTree.parse(ROOT / "config" / f"fastdds_{discovery}.xml")
    space = "{http://www.eprosima.com}"
    assert [int(size.text or 0) for size in tree.iter(f"{space}segment_size")] == [16 * 1024**2]
    addresses = [address.text for address in tree.iter(f"{space}address")]
    assert addresses == (["127.0.0.1"] if discovery == "localhost" else [])


@pytest.mark.parametrize(("discovery", "confined"), [("localhost", True), ("subnet", False)])
def test_discovery_localhost_opens_no_socket_on_other_interfaces(
    domain: int, monkeypatch: pytest.MonkeyPatch, discovery: str, confined: bool
) -> None:
    for name in graph.FASTDDS_PROFILES:
        monkeypatch.delenv(name, raising=False)
    for item in graph.environment(graph.Settings.parse({"discovery": discovery})).items():
        monkeypatch.setenv(*item)
    program = "import rclpy, time; rclpy.init(); node = rclpy.create_node('lonely'); print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        time.sleep(0.5)
        addresses = {connection.laddr.ip for connection in psutil.Process(process.pid).net_connections("inet")}
        process.kill()
    assert addresses
    assert (addresses <= {"127.0.0.1", "239.255.0.1"}) == confined


def test_all_nodes_see_the_robots_camera(tmp_path: Path) -> None:
    text = (ROOT / "config/robots/ur5e.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("topic: image_raw", "topic: wrist/color/image"))
    given = {"sim": "false", "robot": str(tmp_path / "mine.yaml"), "camera": "0"}
    assert {node.remappings for node in graph.nodes(graph.Settings.parse(given))} == {(("image_raw", "wrist/color/image"),)}
    assert {node.remappings for node in graph.nodes(graph.Settings.parse({}))} == {()}


def test_an_unknown_robot_is_named_with_those_there_are() -> None:
    with pytest.raises(graph.GraphError, match="robot:=ur99.*ur5e"):
        graph.nodes(graph.Settings.parse({"robot": "ur99"}))


def test_a_camera_s_pictures_are_made_as_small_as_the_model_needs_them_and_goals_alike() -> None:
    size = json.loads((paths.model("act2goal-tiny") / "manifest.json").read_text())["config"]["camera_size"]
    edge = merged("camera", sim="false", camera="topic:/driver/image_raw")
    assert (edge["source"], edge["output_size"]) == ("topic:/driver/image_raw", size)
    assert "output_size" not in merged("camera", sim="false", camera="/dev/video0", model="not there")
    assert merged("goal", sim="false", camera="/dev/video0")["crop"] is True
    assert merged("goal", sim="false")["crop"] is False
