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
