"""The shipped model, its card, and what docs/results say of it, are of one set of weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from act2goal_ros import paths
from act2goal_ros.serving.bundle import ModelBundle

ROOT = Path(__file__).resolve().parents[1]
MODEL = paths.model("act2goal-tiny")


def test_the_card_has_figures_of_the_shipped_weights_alone() -> None:
    digest = ModelBundle.load(MODEL).hash[:12]
    tasks = json.loads((ROOT / "docs" / "results" / "learning.json").read_text())["tasks"]
    table = [line for line in (MODEL / "README.md").read_text().splitlines() if line.startswith(("| visual-", "| … in the stock"))]
    measured = [line for line in table if line.endswith(f"| {digest} |")]
    assert len(table) == 5 and len(measured) == sum(row["model"] == digest for row in tasks.values()) > 0
    assert all("not measured" in line for line in table if line not in measured)


def test_the_shipped_weights_can_be_trained_on() -> None:
    pytest.importorskip("torch")
    from act2goal_ros.learning import released
    from act2goal_ros.learning.checkpoint import load_weights
    from act2goal_ros.learning.presets import build_system
    from act2goal_ros.model.config import ModelConfig

    state = released.load(MODEL)
    system = build_system(ModelConfig.from_dict(state["config"]))
    assert load_weights(system, state["average"], state["config"], MODEL) == []
