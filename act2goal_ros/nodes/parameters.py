"""Typed parameter schemas: a frozen dataclass a node, with unit, range and meaning of every parameter.

A schema is the only description of a node's parameters: declarations, checks, config/*.yaml and docs/parameters.md
follow from it.

    @dataclass(frozen=True, kw_only=True)
    class PolicyParameters(NodeParameters):
        command_rate: float = param(50.0, "Hz", "commands a second", low=10.0, high=250.0)

Supported types: bool, int, float, str, tuple[int, ...], tuple[float, ...], tuple[str, ...]. A schema may check several fields together
in __post_init__ by raising ValueError.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

P = TypeVar("P")

TYPES: dict[Any, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    tuple[int, ...]: "list of int",
    tuple[float, ...]: "list of float",
    tuple[str, ...]: "list of str",
}


class ParameterError(ValueError):
    """A parameter that is unknown, of the wrong type or out of range; the message names parameter, value and bound."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is known of one parameter; low and high hold for every element of a list and are inclusive."""

    name: str
    type: Any
    default: Any
    unit: str
    description: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    runtime: bool

    @property
    def type_name(self) -> str:
        return TYPES[self.type]

    @property
    def bounds(self) -> str:
        """The allowed values in words, e.g. '10 … 250', 'at least 0', 'cpu | gpu', or '' where anything goes."""
        if self.choices:
            return " | ".join(choice or '""' for choice in self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low:g} … {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.high is not None else ""

    def check(self, value: Any) -> Any:
        """The value in this parameter's type.

        Raises ParameterError when type or range do not fit.
        """
        if typing.get_origin(self.type) is tuple:
            if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
                raise self._wrong_type(value)
            element = typing.get_args(self.type)[0]
            return tuple(self._scalar(item, element) for item in value)
        return self._scalar(value, self.type)

    def _scalar(self, value: Any, wanted: type) -> Any:
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise self._wrong_type(value)
        if wanted is float and not math.isfinite(value):
            raise ParameterError(f"parameter {self.name} = {value} must be a finite number")
        if self.low is not None and value < self.low:
            raise ParameterError(
                f"parameter {self.name} = {value}{self._unit} is below the lowest allowed {self.low:g}{self._unit}"
            )
        if self.high is not None and value > self.high:
            raise ParameterError(
                f"parameter {self.name} = {value}{self._unit} is above the highest allowed {self.high:g}{self._unit}"
            )
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter {self.name} = '{value}' is none of {self.bounds}")
        return value

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def _wrong_type(self, value: Any) -> ParameterError:
        return ParameterError(
            f"parameter {self.name} = {value!r} is a {type(value).__name__}, expected {self.type_name}"
        )


def param(
    default: Any,
    unit: str = "",
    description: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    runtime: bool = False,
) -> Any:
    """A field of a schema; bounds are inclusive, runtime says whether it may change while the node is configured."""
    metadata = {
        "unit": unit,
        "description": description,
        "low": low,
        "high": high,
        "choices": choices,
        "runtime": runtime,
    }
    return dataclasses.field(default=default, metadata=metadata)


def niceness(default: int) -> Any:
    """The field `nice` of a schema, for a node that gives way to others."""
    text = "added to the niceness the process begins with; less than 0, with its session, where the system permits it"
    return param(default, "", text, low=-20, high=19)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeParameters:
    """What every node has: the schemas of all nodes derive from it."""

    nice: int = niceness(0)
    realtime_priority: int = param(
        0, "", "while active, SCHED_FIFO for the thread of the callbacks, where the system permits it; 0: off", low=0, high=99
    )
    cpus: tuple[int, ...] = param((), "", "the process stays on these; none: all it was given", low=0, high=1023)
    gc: bool = param(True, "", "collect reference cycles while active; false: only when activated")


def specs(schema: type[Any]) -> dict[str, Spec]:
    """The parameters of a schema by name, in the order they are written.

    Raises TypeError when a field's type is not supported, ParameterError when a default breaks its own bounds.
    """
    hints = typing.get_type_hints(schema)
    found: dict[str, Spec] = {}
    for field in dataclasses.fields(schema):
        if hints[field.name] not in TYPES:
            raise TypeError(
                f"{schema.__name__}.{field.name}: type {hints[field.name]} is none of {', '.join(TYPES.values())}"
            )
        spec = Spec(name=field.name, type=hints[field.name], default=field.default, **field.metadata)
        spec.check(spec.default)
        found[field.name] = spec
    return found


def build(schema: type[P], values: Mapping[str, Any]) -> P:
    """An instance of the schema from the values given, defaults for the rest.

    Raises ParameterError for an unknown name, a wrong type, a value out of range, or values that do not go together.
    """
    known = specs(schema)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ParameterError(f"unknown parameter {unknown[0]}; {schema.__name__} knows {', '.join(known)}")
    checked = {name: known[name].check(value) for name, value in values.items()}
    try:
        return schema(**checked)
    except ParameterError:
        raise
    except ValueError as error:
        raise ParameterError(str(error)) from error


def read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    """Parameters by node name of a ROS parameter file; keys such as '/**/policy' and 'policy' both mean policy.

    Raises ParameterError when the file is not of that form.
    """
    content = yaml.safe_load(path.read_text()) or {}
    nodes: dict[str, dict[str, Any]] = {}
    for key, entry in content.items():
        if not isinstance(entry, dict) or set(entry) != {"ros__parameters"}:
            raise ParameterError(f"{path}: '{key}' must hold exactly one key ros__parameters")
        nodes[key.rsplit("/", 1)[-1]] = dict(entry["ros__parameters"] or {})
    return nodes
