"""Message definitions and type hashes as recordings carry them, read from the installed interface packages; no ROS imported."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from functools import cache
from pathlib import Path

INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
PRIMITIVES = frozenset(("bool", "byte", "char", "float32", "float64", "string", "wstring", *INTEGERS))
SEPARATOR = "=" * 80


class DefinitionError(LookupError):
    """A message type whose definition is not installed; the message names the type and where it was looked for."""


@cache
def message_definition(name: str) -> str:
    """Definition of `pkg/msg/Type` with those of all types in it, in the form MCAP calls ros2msg.

    Raises DefinitionError for a type that is not installed.
    """
    texts: dict[str, str] = {}
    _collect(name, texts)
    first, *others = texts
    parts = [texts[first]]
    for other in others:
        package, _, kind = other.split("/")
        parts.append(f"{SEPARATOR}\nMSG: {package}/{kind}\n{texts[other]}")
    return "\n".join(parts)


@cache
def type_hash(name: str) -> str:
    """RIHS01 hash of `pkg/msg/Type`; empty where the installation carries none (ROS 2 Humble)."""
    path = _find(name, ".json", missing_ok=True)
    if path is None:
        return ""
    hashes = json.loads(path.read_text())["type_hashes"]
    return next((str(entry["hash_string"]) for entry in hashes if entry["type_name"] == name), "")


def _collect(name: str, texts: dict[str, str]) -> None:
    """Adds the definition of a type and of everything it contains, itself first."""
    if name in texts:
        return
    path = _find(name, ".msg")
    assert path is not None
    texts[name] = path.read_text()
    package = name.split("/")[0]
    for line in texts[name].splitlines():
        field = line.split("#", 1)[0].split()
        if len(field) < 2:
            continue
        kind = re.sub(r"\[.*", "", field[0]).split("<=")[0]
        if kind not in PRIMITIVES:
            parts = kind.split("/")
            _collect(f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}", texts)


def _find(name: str, suffix: str, *, missing_ok: bool = False) -> Path | None:
    """Path of share/<package>/msg/<Type><suffix> in one of the prefixes where interface packages are installed."""
    package, _, kind = name.split("/")
    prefixes = _prefixes(package)
    for prefix in prefixes:
        path = prefix / "share" / package / "msg" / f"{kind}{suffix}"
        if path.is_file():
            return path
    if missing_ok:
        return None
    raise DefinitionError(f"no definition of {name}: share/{package}/msg/{kind}{suffix} is in none of {prefixes}")


@cache
def _prefixes(package: str) -> tuple[Path, ...]:
    """Installation prefixes: AMENT_PREFIX_PATH, this Python's, and those above the package's Python module."""
    found = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    found.append(Path(sys.prefix))
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        found.extend(Path(spec.origin).parents)
    return tuple(dict.fromkeys(found))
