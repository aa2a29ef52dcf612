"""Makes docs/results.md, its plots and the table of the model's card from docs/results/learning.json: no figure is typed by hand."""

import sys
from typing import Any

from learning_plots import draw, plots
from learning_text import (
    BASELINE_NOTE,
    BASELINES,
    BEST,
    EARLIER_NOTE,
    HORIZONS,
    INTRO,
    LEVELS,
    LOOKS,
    MSTH_TITLES,
    PLAN_TITLES,
    PUBLISHED,
    SETTINGS,
    TASKS,
    WORLD_NOTE,
)  # fmt: skip
from results import ROOT, former, load, says_former

PAGE = ROOT / "docs" / "results.md"
CARD = ROOT / "models" / "act2goal-tiny" / "README.md"
TABLE = ("<!-- made by benchmarks/learning_page.py -->", "<!-- until here -->")  # around the card's table
NOT = "not measured"
FORMER = ", former weights"
EARLIER = " (†)"  # other than the criterion of today's evaluations
Entry = dict[str, Any]


def percent(value: float | None) -> str:
    return NOT if value is None else f"{100 * value:.1f} %"


def interval(values: Any) -> str:
    return "" if not values else f"{100 * values[0]:.1f} – {100 * values[1]:.1f} %"


def points(found: Entry | None) -> str:
    """A paired difference in percentage points."""
    if not found:
        return NOT
    return f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    return NOT if value is None else f"{value:.{digits}f} {unit}".strip()


def noted(title: str, entry: Entry) -> str:
    """With what is other than with figures measured now."""
    return title + FORMER * former(entry) + EARLIER * ("criterion" not in entry)


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown, the first column to the left."""
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def tasks(found: Entry) -> list[str]:
    rows = []
    for key, (title, asked, rest, best) in TASKS.items():
        entry = found.get(key)
        if not entry:
            rows.append([title, NOT, "", asked, "", rest, "", "", best])
            continue
        title = noted(title, entry)
        per_task = " ".join(f"{100 * rate:.0f}" for rate in entry["per_task"].values())
        runs = f"{entry['episodes']} ({len(entry['seeds'])})"
        rows.append([title, percent(entry["success_rate"]), interval(entry["interval"]), asked, percent(entry["at_rest_rate"]), rest,
                     runs, per_task, best])  # fmt: skip
    heads = ["", "success", "95 %", "asked for", "at rest, released", "asked for", "episodes (seeds)", "tasks 1 – 5, %", "published"]
    return ["## Official tasks", "", *table(heads, rows), PUBLISHED, ""]


def unseen(found: Entry, seen: Entry | None) -> list[str]:
    rows = []
    for key, title in SETTINGS.items():
        entry = found.get(key)
        if not entry:
            rows.append([title, NOT, "", "", "", ""])
            continue
        runs = f"{entry['episodes']} ({len(entry['seeds'])})"
        title = noted(title, entry)
        of_seen = percent(entry["success_rate"] / seen["success_rate"]) if seen and seen["success_rate"] else NOT
        rows.append([title, percent(entry["success_rate"]), interval(entry["interval"]), of_seen, percent(entry["at_rest_rate"]), runs])
    inside = (found.get("region") or {}).get("inside")
    note = "Table regions: cubes start or end in a margin where no demonstration starts or ends (in training a cube may lie there after a "
    note += "mishap); beside it, random starts and goals inside the area: " + percent(inside and inside["success_rate"]) + "."
    heads = ["cube-single, one thing changed", "success", "95 %", "of the seen score (asked: 80 / 95 %)", "at rest, released",
             "episodes (seeds)"]  # fmt: skip
    return ["## Unseen", "", *table(heads, rows), LOOKS, "", note, ""]


def variants(title: str, found: Entry, titles: dict[str, str], note: str) -> list[str]:
    rows, about = [], found.get("about") or {}
    where = about.get("environments", [])
    for key, text in titles.items():
        entry = found.get(key)
        rates = [percent(entry["success_rate"]), interval(entry["interval"]), str(entry["episodes"])] if entry else [NOT, "", ""]
        of_each = [_of_environment(entry, name) for name in where]
        text += FORMER * says_former(entry)
        rows.append([text, *rates, *of_each, points(entry["less_than_first"]) if entry and "less_than_first" in entry else ""])
    heads = ["", "success", "95 %", "episodes", *where, "less than the first, points, paired"]
    return [headed(title, about), "", *table(heads, rows), note, ""]


def _of_environment(entry: Entry | None, environment: str) -> str:
    """Success on an environment's tasks, each of which has as many episodes."""
    rates = [rate for task, rate in (entry or {}).get("per_task", {}).items() if task.rpartition("-")[0] == environment]
    return f"{100 * sum(rates) / len(rates):.0f} %" if rates else ""


def replan(found: Entry, loss: float | None) -> list[str]:
    rows = []
    for steps in ("1", "2", "4", "8", "16"):
        entry = found.get(steps) or {}
        other = entry.get("without_prefix") or {}
        cells = [(percent(of.get("success_rate")), interval(of.get("interval")), str(of.get("episodes", ""))) for of in (entry, other)]
        rows.append([steps + FORMER * says_former(entry), *cells[0], *cells[1]])
    heads = ["a chunk every … frames of 40 ms", "with prefix conditioning", "95 %", "episodes", "without", "95 %", "episodes"]
    detail = found.get("every_frame_loss") or {}
    paired = f": {points(detail)}, of {detail['episodes']} paired episodes; best: {detail['best']}" if detail else ""
    lost = NOT if loss is None else f"{100 * loss:.1f} points"
    ways = f"{detail.get('of', 10)} ways with as many episodes"
    text = f"Every frame with prefix loses to the best of {ways}: {lost} (asked: ≤ 2){paired}. {BEST}"
    return [headed("Replanning", found.get("about")), "", *table(heads, rows), text, ""]


def headed(title: str, about: Entry | None) -> str:
    """The heading of an ablation."""
    return f"## {noted(title, about) if about else title}"


def msth(found: Entry) -> list[str]:
    trained = (found.get("about") or {}).get("trained", [])
    rows = []
    for key, title in MSTH_TITLES.items():
        entry = found.get(key) or {}
        cells = [f"{percent(entry[h]['success_rate'])} ({interval(entry[h]['interval'])})" if h in entry else NOT for h in HORIZONS]
        title += FORMER * says_former(entry)
        rows.append([title, *cells, "" if not entry else "trained so" if key in trained else "same weights, frames at other times"])
    gain = found.get("long_gain_paired")
    text = f"Long horizon, the better MSTH minus the fixed horizon: {points(gain)} points"
    text += f" ({gain['best']})." if gain else "."
    return [headed("MSTH", found.get("about")), "", *table(["", *HORIZONS.values(), ""], rows), text, ""]


def world_model(found: Entry) -> list[str]:
    lines = ["## World model" + FORMER * bool(found and former(found)), ""]
    makers = {key: value for key, value in found.items() if isinstance(value, dict) and "by_horizon" in value}
    if not makers:
        return [*lines, f"World model: {NOT}.", ""]
    for name, measured in makers.items():
        rows = []
        for horizon, m in measured["by_horizon"].items():
            psnr = [" / ".join(number(m[f"psnr{part}_{kind}"]) for kind in ("imagined", "rebuilt", "live")) for part in ("", "_moved")]
            cube = [f"{number(c.get('p50'))} / {number(c.get('p90'))}" for c in (m.get("cube_mm_imagined", {}), m.get("cube_mm_true", {}))]
            spread = f"{number(m['frechet'], 2)} / {number(m['frechet_floor'], 2)}"
            time = measured["temporal_distance"].get(horizon, {})
            rows.append([horizon, str(m["frames"]), *psnr, spread, *cube, number(time.get("absolute"), 2, "s")])
        heads = ["ahead", "frames", "PSNR, dB: imagined / autoencoder / copy of now", "… of what moved", "Fréchet: imagined / true halves",
                 "cube, mm, p50 / p90", "… localiser on true frames", "time to goal, median error"]  # fmt: skip
        lines += [f"{name.replace('_', ' ').capitalize()}, {measured['plans']} plans of {found.get('episodes')} held-out episodes:", "",
                  *table(heads, rows)]  # fmt: skip
    return [*lines, WORLD_NOTE, "", "![live, imagined frames, goal; below each, what came](pictures/world-model.png)", ""]


def speed(found: Entry) -> list[str]:
    def spread(values: Any) -> str:
        return NOT if not values else " / ".join(f"{values[key]:.1f}" for key in ("p50", "p99", "max")) + " ms"

    rows = [
        ["imagination, one pass, p50 / p99 / max", spread(found.get("imagination_ms")), "≤ 20 ms"],
        ["tick: live picture in, chunk out", spread(found.get("tick_ms")), "≤ 3 ms"],
        ["training, from nothing to the shipped weights", number(found.get("training_hours"), 1, "h"), "≤ 12 h of two cores"],
    ]
    return ["## Speed and training", "", *table(["one core, ONNX Runtime", "measured", "asked for"], rows)]


def baselines(found: Entry) -> list[str]:
    if not found:
        return ["## Baselines", "", f"Trained on the same data: {NOT}.", ""]
    rows = [[BASELINES.get(name, name), _budget(e), percent(e["success_rate"]), interval(e["interval"]), percent(e["at_rest_rate"]),
             f"{e['episodes']} ({len(e['seeds'])})"] for name, e in sorted(found.items())]  # fmt: skip
    heads = ["on one core", "recordings; training", "success", "95 %", "at rest, released", "episodes (seeds)"]
    return ["## Baselines", "", *table(heads, rows), BASELINE_NOTE, ""]


def _budget(entry: Entry) -> str:
    """How a baseline was trained."""
    about = entry["about"]
    time = f"{about['minutes']:.0f} min, " if about["minutes"] else ""
    steps = f", {about['steps']} steps of {about['batch']}" if "batch" in about else ""
    size = f"{about['parameters'] / 1e6:.1f} M parameters, {about['precision']}"
    return f"{about['episodes']} of {entry['environment']}; {time}{size}{steps}"


def _commands(texts: Entry, origins: Entry) -> list[str]:
    """A line each, with where and when it was run."""
    where = {name: f" ({', '.join(map(str, origin.values()))})" for name, origin in origins.items()}
    return [f"- {name}: `{text}`{where.get(name, '')}" for name, text in sorted(texts.items())]


def page(found: Entry) -> str:
    """docs/results.md."""
    names = ("tasks", "unseen", "msth", "plan", "replan", "world_model", "baselines", "command", "origin")
    part = {key: found.get(key) or {} for key in names}
    origin = f"{found.get('hardware') or 'hardware not recorded'}; commit {found.get('commit')}, {found.get('date')}"
    made = "Made by `python benchmarks/learning_page.py` from docs/results/learning.json. A figure that was not measured says so."
    lines = [
        "# Results of learning", "", made, "", f"{origin} (of the part measured last).", "", INTRO, "", EARLIER_NOTE, "",
        *tasks(part["tasks"]), *plots(found), *unseen(part["unseen"], part["tasks"].get("cube_single")), *msth(part["msth"]),
        *variants("The plan", part["plan"], PLAN_TITLES, LEVELS), *replan(part["replan"], found.get("replan_every_frame_loss")),
        *world_model(part["world_model"]), *speed(found), *baselines(part["baselines"]),
        "## Commands", "", *_commands(part["command"], part["origin"]), "",
    ]  # fmt: skip
    return "\n".join(lines)


def card(text: str, found: Entry) -> str:
    """The model's card with its own figures of the official tasks in its table; ValueError where the card has no place for it."""
    before, begin, rest = text.partition(TABLE[0])
    _, end, after = rest.partition(TABLE[1])
    if not begin or not end:
        raise ValueError(f"{CARD}: no '{TABLE[0]}' or no '{TABLE[1]}'")
    rows = []
    for key, (title, *_) in TASKS.items():
        entry = (found.get("tasks") or {}).get(key)
        if entry and not former(entry):
            of = f"{entry['successes']} of {entry['episodes']}"
            success = f"{of} ({percent(entry['success_rate'])}, interval {interval(entry['interval'])})"
            rows.append([title, success, percent(entry["at_rest_rate"]), " ".join(f"{100 * r:.0f}" for r in entry["per_task"].values()),
                         ", ".join(map(str, entry["seeds"])), entry["model"]])  # fmt: skip
        else:
            rows.append([title, NOT, "", "", "", ""])
    heads = ["", "success", "at rest and released at the end", "tasks 1 – 5, %", "evaluation seeds", "model"]
    return "\n".join([before + begin, "", *table(heads, rows), end + after])


def main() -> None:
    """Writes page, plots and the card's table; with --check only says whether they are up to date."""
    found = load("learning")
    made = {PAGE: page(found), CARD: card(CARD.read_text(), found)}
    if "--check" in sys.argv:
        stale = [str(path) for path, text in made.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"{', '.join(stale)}: not what docs/results gives" if stale else 0)
    draw(found)
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
