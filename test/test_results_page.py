"""The pages of results are what docs/results gives, say what was not measured, and the parts are stored as they are called."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ogbench")
pytest.importorskip("psutil")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import learning  # noqa: E402
import learning_page  # noqa: E402
import learning_plots  # noqa: E402
import report  # noqa: E402
import results  # noqa: E402
from learning_text import TASKS  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from act2goal_ros.learning import released  # noqa: E402
from act2goal_ros.learning.rowlog import CRITERION  # noqa: E402

RATE = {"model": results.shipped(), "success_rate": 0.9, "successes": 675, "interval": [0.8, 0.95], "at_rest_rate": 0.7, "episodes": 750,
        "seeds": [0, 1, 2], **CRITERION, "per_task": {f"t{i}": 0.9 for i in range(5)}}  # fmt: skip
PAIRED = {"difference": 0.012, "low": -0.01, "high": 0.03, "episodes": 250}


def test_pages_are_up_to_date() -> None:
    assert (ROOT / "docs" / "results.md").read_text() == learning_page.page(results.load("learning")), "run benchmarks/learning_page.py"
    assert (ROOT / "docs" / "benchmarks.md").read_text() == report.page(), "run benchmarks/report.py"
    text = learning_page.CARD.read_text()
    assert text == learning_page.card(text, results.load("learning")), "run benchmarks/learning_page.py"
    with pytest.raises(ValueError, match="no '<!-- made by"):
        learning_page.card("# a card without a table", {})


def test_pictures_that_are_shown_are_there() -> None:
    for name in re.findall(r"\]\(pictures/([^)]+)\)", (ROOT / "docs" / "results.md").read_text()):
        assert (ROOT / "docs" / "pictures" / name).is_file()


def test_nothing_measured_is_said_so() -> None:
    text = learning_page.page({})
    assert text.count(learning_page.NOT) > 40
    for title, *_ in TASKS.values():
        assert f"| {title} | not measured |" in text
    assert "![" not in text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks/learning.py", "tasks", "--films", "/tmp/films", "--trained=fixed=/tmp/m/fixed"])
    return tmp_path


def stored(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "learning.json").read_text())


def test_parts_keep_each_other_and_the_issue_s_keys(folder: Path) -> None:
    learning.store("tasks", {"cube_single": RATE}, "cube_single")
    learning.store("tasks", {"scene": RATE}, "scene")
    learning.store("speed", {}, every={"tick_ms": {"p50": 2.5, "p99": 3.0, "max": 4.0}})
    found = stored(folder)
    parts = {"tasks", "unseen", "msth", "plan", "replan", "replan_every_frame_loss", "world_model", "baselines"}
    assert set(found) == parts | {"imagination_ms", "tick_ms", "training_hours", "hardware", "command", "commit", "date", "origin"}
    assert set(found["tasks"]) == {"cube_single", "scene"} and found["tick_ms"]["p50"] == 2.5 and found["training_hours"] is None
    assert found["command"]["tasks.scene"] == "python benchmarks/learning.py tasks --films films --trained=fixed=fixed"
    assert found["hardware"] and found["date"]
    assert set(found["origin"]) == set(found["command"]) == {"tasks.cube_single", "tasks.scene", "speed"}
    line = next(line for line in learning_page.page(found).splitlines() if line.startswith("- tasks.scene: `python"))
    assert found["hardware"] in line and found["date"] in line, "parts may be measured on different machines"


def test_ablations_as_they_are_called(folder: Path) -> None:
    variants = dict.fromkeys(("1", "2", "4", "8", "16", "1_without_prefix", "2_without_prefix"), RATE)
    lost = {name: PAIRED for name in variants if name != "1"}
    loss = PAIRED | {"best": "4", "of": 7}
    values, every = learning.ablation_values("replan", {"variants": variants, "less_than_first": lost, "every_frame_loss": loss})
    assert every == {"replan_every_frame_loss": 0.012}
    assert values["2"]["success_rate"] == 0.9 and values["2"]["without_prefix"]["success_rate"] == 0.9
    assert "without_prefix" not in values["16"]
    free, _ = learning.ablation_values("replan", {"variants": {"8_without_prefix": RATE}, "less_than_first": {}, "every_frame_loss": loss})
    assert free["8"] == {"without_prefix": RATE}
    learning.store("replan", values, every=every)
    text = learning_page.page(stored(folder))
    assert "| 2 | 90.0 % | 80.0 – 95.0 % | 750 | 90.0 % | 80.0 – 95.0 % | 750 |" in text
    lost = "1.2 points (asked: ≤ 2): +1.2 (-1.0 to +3.0), of 250 paired episodes; best: 4"
    assert f"loses to the best of 7 ways with as many episodes: {lost}" in text
    by_horizon = {"paper": {"long": RATE}, "fixed": {"long": RATE}}
    values, _ = learning.ablation_values("msth", {"variants": {}, "less_than_first": {}, "by_horizon": by_horizon, "long_gain": None})
    assert values["long_gain"] is None and values["paper"]["long"]["episodes"] == 750


def test_figures_of_some_ways_to_replan_are_of_all_rows_of_their_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "EPISODES", tmp_path)
    row = {"task": "cube-single-1", "evaluation": 0, "at_rest": None}
    rows = [row | {"name": "1", "model": "a", "seed": seed, "success": seed > 0} for seed in range(4)]
    rows += [row | {"name": "8_without_prefix", "model": "a", "seed": seed, "success": True} for seed in range(4)]
    rows += [row | {"name": "1", "model": "former", "seed": 9, "success": False}]
    (tmp_path / "replan.jsonl").write_text("\n".join(map(json.dumps, [{}, *rows])))
    found = learning.of_all_rows("replan", ["a"])
    assert found["variants"]["1"]["success_rate"] == 0.75 and found["variants"]["8_without_prefix"]["episodes"] == 4
    loss = found["every_frame_loss"]
    assert (loss["best"], loss["difference"], loss["of"], loss["episodes"]) == ("8_without_prefix", 0.25, 2, 4)


def test_other_networks_of_the_shipped_weights_are_shipped_weights(tmp_path: Path) -> None:
    """As those exported with the noise level as an input; other weights and models without any are told by their own hash."""
    copy = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "act2goal-tiny", copy)
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"act2goal-tiny"', '"another"'))
    own = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
    assert learning.weights_of(str(copy)) == results.shipped() != own
    weights = copy / "weights.safetensors"
    tensors = load_file(weights)
    tensors["expert.live.nowhere"] += 1
    save_file(tensors, weights, {"config": json.dumps(released.load(copy)["config"])})
    assert learning.weights_of(str(copy)) == own
    weights.unlink()
    assert learning.weights_of(str(copy)) == own


def test_rates_are_shown_with_what_was_asked_and_published(folder: Path) -> None:
    learning.store("tasks", {"cube_double": RATE, "cube_single": RATE | {"success_rate": 1.0}}, "cube_double")
    learning.store("unseen", {"light": RATE}, "light")
    text = learning_page.page(stored(folder))
    assert ("| visual-cube-double | 90.0 % | 80.0 – 95.0 % | 75 / 95 % | 70.0 % |  | 750 (3) | 90 90 90 90 90 | 39 ± 2 |") in text
    assert "| light and shadow | 90.0 % | 80.0 – 95.0 % | 90.0 % | 70.0 % | 750 (3) |" in text, "of the seen score, which is 100 %"
    assert "(pictures/results-tasks.png)" in text and "results-plan" not in text


def test_a_plan_s_variants_are_shown_by_environment(folder: Path) -> None:
    rates = {"cube-triple-1": 1.0, "cube-triple-2": 0.5, "scene-1": 0.2, "scene-2": 0.0}
    about = {"environments": ["cube-triple", "scene"], "models": {}, "model": results.shipped(), "trained": []} | CRITERION
    learning.store("plan", {"right": RATE | {"per_task": rates}, "masked": RATE | {"less_than_first": PAIRED}, "about": about})
    text = learning_page.page(stored(folder))
    assert "| | success | 95 % | episodes | cube-triple | scene | less" in text.replace("|  |", "| |")
    assert "| the plan as it is: one pass from pure noise | 90.0 % | 80.0 – 95.0 % | 750 | 75 % | 10 % |  |" in text
    assert "| no imagined frame to be seen | 90.0 % | 80.0 – 95.0 % | 750 |  |  | +1.2 (-1.0 to +3.0) |" in text


def test_baselines_are_shown_with_what_they_were_given(folder: Path) -> None:
    about = {"data": "single", "episodes": 293, "minutes": 60.0, "threads": 1, "precision": "fp32", "parameters": 2_340_000}
    about |= {"steps": 9000, "batch": 64}
    one = RATE | {"environment": "cube-single", "about": about}
    own = one | {"about": {key: about[key] for key in learning.ABOUT}}
    learning.store("baselines", {"gcbc": one, "act2goal": own}, "gcbc")
    text = learning_page.page(stored(folder))
    given = "293 of cube-single; 60 min, 2.3 M parameters, fp32"
    figures = "90.0 % | 80.0 – 95.0 % | 70.0 % | 750 (3)"
    assert f"| goal-conditioned behaviour cloning, no imagination | {given}, 9000 steps of 64 | {figures} |" in text
    assert f"| act2goal, imagining the way | {given} | 90.0 %" in text
    assert learning_page.NOT not in text[text.index("## Baselines") :]


def test_figures_of_former_weights_are_told_apart(folder: Path) -> None:
    learning.store("tasks", {"cube_double": RATE | {"model": "0123456789ab"}, "cube_single": RATE}, "cube_double")
    text = learning_page.page(stored(folder))
    assert " (†) |" not in text
    assert "| visual-cube-double, former weights | 90.0 % |" in text and "| visual-cube-single | 90.0 % |" in text
    about = {"environments": ["scene"], "models": {}, "model": "0123456789ab", "trained": []}
    for part in ("plan", "replan", "msth"):
        learning.store(part, {"about": about})
    text = learning_page.page(stored(folder))
    assert all(f"## {title}, former weights (†)\n" in text for title in ("The plan", "Replanning", "MSTH"))
    learning.store("plan", {"about": about | {"model": results.shipped()} | CRITERION})
    assert "## The plan\n" in learning_page.page(stored(folder))
    old = "\n".join(report.success_table({"loop": RATE | {"model": None}}))
    assert "| plain Python loop, same resets, former weights | 90.0 %" in old
    assert "former" not in "\n".join(report.success_table({"graph": RATE}))


def test_plots_are_drawn_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_plots, "PICTURES", tmp_path)
    about, other = {"model": results.shipped()}, RATE | {"model": "0123456789ab"}
    found = {"tasks": {"cube_single": RATE, "scene": other}, "plan": None, "replan": {"1": RATE | {"without_prefix": RATE}, "about": about},
             "msth": {"fixed": {"short": RATE}, "about": about}}  # fmt: skip
    learning_plots.draw(found)
    assert {path.name for path in tmp_path.iterdir()} == {"results-tasks.png", "results-replan.png", "results-msth.png"}
    plots = learning_plots.plotted(found)
    assert list(plots["results-tasks.png"].bars) == ["one cube", "scene: cube, drawer,\nwindow, locks (former weights)"]
    assert list(plots["results-replan.png"].bars["every frame"]) == ["with prefix conditioning", "without"]
    assert list(plots["results-msth.png"].bars["short (single)"]) == ["fixed horizon of as many frames"]


def test_an_ablation_s_entries_of_former_weights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    entry = {key: value for key, value in RATE.items() if key != "model"}
    about = {"environments": [], "models": {}, "model": "0123456789ab"} | CRITERION
    learning.store("plan", {"right": entry, "masked": entry, "about": about})
    for _ in range(2):  # once marked, they stay so
        learning.store("plan", {"right": entry, "about": about | {"model": results.shipped()}})
    found = json.loads((tmp_path / "learning.json").read_text())
    assert "model" not in found["plan"]["right"] and found["plan"]["masked"]["model"] == "0123456789ab"
    text = learning_page.page(found)
    assert "| no imagined frame to be seen, former weights | 90.0 %" in text and "one pass from pure noise | 90.0 %" in text
    assert list(learning_plots.plotted(found)["results-plan.png"].bars) == ["as it is", "no frame to be seen (former weights)"]
    learning.store("replan", {"1": entry, "2": entry, "about": about})
    learning.store("replan", {"1": entry, "about": about | {"model": results.shipped()}})
    found = json.loads((tmp_path / "learning.json").read_text())
    text = learning_page.page(found)
    assert "\n| 1 | 90.0 %" in text and "\n| 2, former weights | 90.0 %" in text
    assert list(learning_plots.plotted(found)["results-replan.png"].bars) == ["every frame", "every 2 (former weights)"]


def test_speed_is_measured_without_torch():
    """`learning.py speed` times what a robot runs, and refuses to beside torch."""
    told = subprocess.run([sys.executable, "-c", "import learning, sys; print('torch' in sys.modules)"], cwd=ROOT / "benchmarks",
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert told.stdout.strip() == "False"
