"""What the documents and config files say is what the code does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from act2goal_ros import paths
from act2goal_ros.cli import docs
from act2goal_ros.control.stop import StopReason
from act2goal_ros.nodes import interfaces, topics
from act2goal_ros.nodes.parameters import NodeParameters, build, read_yaml

NODES = Path(docs.__file__).resolve().parents[1] / "nodes"
OFFERS = {"create_publisher", "create_service", "ActionServer"}
USES = {"create_subscription", "create_client", "ActionClient", "Latest", "Peer"}
CLIENTS = {"goal_client", "expert", "listener", "latest", "base"}  # no nodes, or part of all of them


def test_generated_pages_are_up_to_date() -> None:
    result = CliRunner().invoke(docs.command, ["--check"])
    assert result.exit_code == 0, result.output


def test_a_page_that_is_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(paths, "share", lambda: tmp_path)
    result = CliRunner().invoke(docs.command, ["--check"])
    assert result.exit_code == 1 and "parameters.md is not up to date: run `act2goal docs`" in result.output
    assert CliRunner().invoke(docs.command).exit_code == 0
    assert CliRunner().invoke(docs.command, ["--check"]).exit_code == 0


@pytest.mark.parametrize("node", docs.NODES)
def test_config_files_fit_their_schemas(node: str) -> None:
    files = read_yaml(paths.share() / "config" / f"{node}.yaml")
    assert set(files) == {node}
    values = {name: value for name, value in files[node].items() if name not in ("autostart", "use_sim_time")}
    build(docs.schema_of(node), values)


@pytest.mark.parametrize("node", docs.NODES)
def test_every_node_has_the_parameters_of_all_nodes(node: str) -> None:
    assert issubclass(docs.schema_of(node), NodeParameters)


def test_every_parameter_says_what_it_means() -> None:
    from act2goal_ros.nodes.parameters import specs

    silent = [
        f"{node}.{name}" for node in docs.NODES for name, s in specs(docs.schema_of(node)).items() if not s.description
    ]
    assert not silent


def _calls() -> Iterator[tuple[str, str, str, str, str]]:
    """(module, kind of call, message type, constant in topics.py, QoS name) of calls that name their topic."""
    for path in sorted(NODES.glob("*.py")):
        if path.stem in CLIENTS:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            kind = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if kind not in OFFERS | USES:
                continue
            names = {
                a.value.id: a.attr for a in call.args if isinstance(a, ast.Attribute) and isinstance(a.value, ast.Name)
            }
            types = [a.id for a in call.args if isinstance(a, ast.Name) and a.id[0].isupper()]
            if "topics" in names and types:
                yield path.stem, kind, types[0], names["topics"], names.get("qos", "")


def test_the_list_of_interfaces_is_what_the_nodes_do() -> None:
    listed = {i.name: i for i in (*interfaces.TOPICS, *interfaces.SERVICES, *interfaces.ACTIONS)}
    seen = 0
    for module, kind, message, constant, qos in _calls():
        interface = listed[getattr(topics, constant)]
        where = f"{module}: {kind}({message}, topics.{constant}, qos.{qos})"
        assert interface.type.rsplit("/", 1)[-1].startswith(message.removesuffix("Msg")), where
        assert qos in (interface.qos, "") or constant == "E_STOP", where
        if module in docs.NODES:
            side = interface.offered_by if kind in OFFERS else interface.used_by
            assert module in side or "*" in side, where
        seen += 1
    assert seen >= 25


def test_every_topic_name_is_listed() -> None:
    constants = {value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)}
    listed = {i.name for i in (*interfaces.TOPICS, *interfaces.SERVICES, *interfaces.ACTIONS)}
    assert constants <= listed


def test_every_stop_reason_is_explained() -> None:
    page = (NODES.parents[1] / "docs" / "troubleshooting.md").read_text()
    missing = [reason.name for reason in StopReason if reason != StopReason.NONE and reason.name not in page]
    assert missing == []
