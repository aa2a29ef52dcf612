"""Where config/, launch/ and models/ lie: in the checkout, or in share/act2goal_ros of a colcon installation."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def share() -> Path:
    """Return the folder that holds config/, launch/ and models/.

    Raises FileNotFoundError, naming every place looked at, when there is none.
    """
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    places = [CHECKOUT, *(prefix / "share/act2goal_ros" for prefix in prefixes)]
    for place in places:
        if (place / "config").is_dir() and (place / "launch").is_dir():
            return place
    raise FileNotFoundError(f"no folder with config/ and launch/ among {', '.join(map(str, places))}")


def model(path_or_name: str) -> Path:
    """Return the folder of a model given as a path or as the name of one in models/.

    Raises FileNotFoundError naming the models there are.
    """
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return path
    models = share() / "models"
    if (models / path_or_name).is_dir():
        return models / path_or_name
    known = ", ".join(sorted(folder.name for folder in models.glob("*") if folder.is_dir())) or "nothing"
    raise FileNotFoundError(f"model '{path_or_name}' is neither a folder nor in {models}, which holds {known}")
