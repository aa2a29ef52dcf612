"""Parameter schemas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from act2goal_ros.nodes.parameters import ParameterError, build, param, read_yaml, specs


@dataclass(frozen=True, kw_only=True)
class Schema:
    """One parameter of every kind."""

    rate: float = param(50.0, "Hz", "commands a second", low=10, high=250)
    count: int = param(3, "", "how many", low=1)
    share: float = param(0.5, "", "at most", high=1.0, runtime=True)
    mode: str = param("a", "", "which", choices=("a", "b", ""))
    on: bool = param(True, "", "whether")
    names: tuple[str, ...] = param(("x",), "", "names")
    gains: tuple[float, ...] = param((), "1/s", "gains", low=0.0)

    def __post_init__(self) -> None:
        if self.rate * self.share > 100:
            raise ValueError(f"rate {self.rate} Hz × share {self.share} is above 100 Hz")


def test_defaults_and_values() -> None:
    assert build(Schema, {}) == Schema()
    built = build(Schema, {"rate": 20, "names": ["p", "q"], "gains": [1, 2.5], "mode": ""})
    assert built == Schema(rate=20.0, names=("p", "q"), gains=(1.0, 2.5), mode="")
    assert type(built.rate) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 900.0}, "parameter rate = 900.0 Hz is above the highest allowed 250 Hz"),
        ({"rate": 1}, "parameter rate = 1.0 Hz is below the lowest allowed 10 Hz"),
        ({"rate": float("nan")}, "parameter rate = nan must be a finite number"),
        ({"rate": "fast"}, "parameter rate = 'fast' is a str, expected float"),
        ({"rate": True}, "parameter rate = True is a bool, expected float"),
        ({"count": 2.0}, "parameter count = 2.0 is a float, expected int"),
        ({"count": 0}, "parameter count = 0 is below the lowest allowed 1"),
        ({"mode": "c"}, "parameter mode = 'c' is none of a | b | \"\""),
        ({"on": 1}, "parameter on = 1 is a int, expected bool"),
        ({"names": "x"}, "parameter names = 'x' is a str, expected list of str"),
        ({"gains": [1.0, -2.0]}, "parameter gains = -2.0 1/s is below the lowest allowed 0 1/s"),
        ({"rat": 1.0}, "unknown parameter rat; Schema knows rate, count, share, mode, on, names, gains"),
        ({"rate": 250.0}, "rate 250.0 Hz × share 0.5 is above 100 Hz"),
    ],
)
def test_every_error_names_parameter_value_and_bound(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        build(Schema, values)
    assert str(error.value) == message


def test_bounds_in_words() -> None:
    words = {name: spec.bounds for name, spec in specs(Schema).items()}
    assert words["rate"] == "10 … 250" and words["count"] == "at least 1" and words["share"] == "at most 1"
    assert words["mode"] == 'a | b | ""' and words["names"] == ""


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Its default breaks its own bound."""

    rate: float = param(5.0, low=10)


def test_a_default_outside_its_bounds_is_an_error() -> None:
    with pytest.raises(ParameterError, match="parameter rate = 5.0 is below the lowest allowed 10"):
        specs(Wrong)


def test_parameter_files(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("/**/policy: {ros__parameters: {rate: 1.0}}\ngoal: {ros__parameters: {}}\n")
    assert read_yaml(path) == {"policy": {"rate": 1.0}, "goal": {}}
    path.write_text("policy: {rate: 1.0}\n")
    with pytest.raises(ParameterError, match="'policy' must hold exactly one key ros__parameters"):
        read_yaml(path)
