"""Declares a schema's parameters on a node and keeps the validated values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from act2goal_ros.nodes.parameters import ParameterError, Spec, build, specs

P = TypeVar("P")


class Declared(Generic[P]):
    """A node's parameters.

    What the command line or a parameter file gives wrongly does not end the process: build() raises, naming value and
    bound, until the parameter is set rightly. frozen() says whether parameters without runtime=True may change now;
    changed(names) is called after a change.
    """

    def __init__(
        self, node: Node, schema: type[P], frozen: Callable[[], bool], changed: Callable[[set[str]], None]
    ) -> None:
        self._node, self._schema, self._frozen, self._changed = node, schema, frozen, changed
        self._specs = specs(schema)
        self._faults: dict[str, str] = {}
        for spec in self._specs.values():
            node.declare_parameter(spec.name, _plain(spec.default), _descriptor(spec), ignore_override=True)
        node.add_pre_set_parameters_callback(self._coerce)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)
        for name, parameter in node._parameter_overrides.items():  # noqa: SLF001 - overrides of undeclared names have no public access
            self._override(name, parameter.value)

    def build(self) -> P:
        """The values as they are now.

        Raises ParameterError for what was given wrongly and not corrected since, or for values that do not go together.
        """
        if self._faults:
            raise ParameterError("; ".join(self._faults.values()))
        return build(self._schema, self._values())

    def _override(self, name: str, value: Any) -> None:
        if name not in self._specs:
            if not self._node.has_parameter(name) and not name.startswith("qos_overrides."):
                self._faults[name] = f"unknown parameter {name}; {self._node.get_name()} knows {', '.join(self._specs)}"
            return
        try:
            checked = self._specs[name].check(value)
        except ParameterError as error:
            self._faults[name] = str(error)
        else:
            self._node.set_parameters([Parameter(name, value=_plain(checked))])

    def _values(self) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in self._specs}

    def _coerce(self, parameters: list[Parameter[Any]]) -> list[Parameter[Any]]:
        """Lets an int stand for a float, as in `command_rate: 50`."""
        floats = {name for name, spec in self._specs.items() if spec.type is float}
        return [
            Parameter(p.name, value=float(p.value)) if p.name in floats and type(p.value) is int else p
            for p in parameters
        ]

    def _check(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        new = {p.name: p.value for p in parameters if p.name in self._specs}
        try:
            for name, value in new.items():
                self._specs[name].check(value)
                if self._frozen() and not self._specs[name].runtime:
                    raise ParameterError(
                        f"parameter {name} can only change while {self._node.get_name()} is unconfigured"
                    )
            if self._frozen():
                build(self._schema, {**self._values(), **new})
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[Parameter[Any]]) -> None:
        names = {p.name for p in parameters if p.name in self._specs}
        for name in names:
            self._faults.pop(name, None)
        if names and self._frozen():
            self._changed(names)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description + (f" [{spec.unit}]" if spec.unit else ""))
    descriptor.additional_constraints = spec.bounds
    descriptor.dynamic_typing = spec.type_name.startswith("list")  # an empty list has no element type yet
    bounded = spec.low is not None or spec.high is not None
    if bounded and spec.type is float:
        low, high = (
            (-1e308 if spec.low is None else float(spec.low)),
            (1e308 if spec.high is None else float(spec.high)),
        )
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    if bounded and spec.type is int:
        low, high = (
            (-(2**63) if spec.low is None else int(spec.low)),
            (2**63 - 1 if spec.high is None else int(spec.high)),
        )
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor
