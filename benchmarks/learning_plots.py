"""Plots of docs/results.md: success with 95 % intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from learning_text import HORIZONS, MSTH_TITLES
from results import ROOT, former, says_former

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = ROOT / "docs" / "pictures"
COLOURS = ("#4c86a8", "#c9a15b", "#8a8fa3", "#7fa77a", "#b98aa8")
TASKS = {
    "cube_single": "one cube",
    "cube_single_stock_look": "… in OGBench's renderer",
    "cube_double": "two cubes",
    "cube_triple": "three cubes",
    "scene": "scene: cube, drawer,\nwindow, locks",
}
UNSEEN = {
    "cube_colours": "cube's colour",
    "region": "table region",
    "light": "light and shadow",
    "camera": "camera moved",
    "distractor": "a thing lying there",
}
PLAN = {
    "right": "as it is",
    "other_episode": "to another goal",
    "shuffled": "frames shuffled",
    "shuffled_way": "… all but the last",
    "permuted_times": "times permuted",
    "goal_frame": "last frame alone",
    "imagined_places": "places from imagination alone",
    "features_alone": "features alone",
    "places_alone": "places alone",
    "masked": "no frame to be seen",
    "none": "no plan",
    "true_future": "the true future",
    "denoised_2": "2 denoising passes",
    "denoised_4": "4 passes",
    "denoised_8": "8 passes",
}
FORMER = " (former weights)"
WITH, WITHOUT = "with prefix conditioning", "without"

Entry = dict[str, Any]
Bars = dict[str, dict[str, Entry]]  # label of a group → series → its entry


class Plot(NamedTuple):
    """Groups of bars under a title; series are told apart in a legend where there are several."""

    title: str
    bars: Bars


def plots(found: Entry) -> list[str]:
    """Links to the plots there is something to show in."""
    return [f"![{plot.title}](pictures/{name})" + "\n" for name, plot in plotted(found).items()]


def plotted(found: Entry) -> dict[str, Plot]:
    """File → plot, of what was measured."""
    part = {name: found.get(name) or {} for name in ("tasks", "unseen", "plan", "replan", "msth")}
    replanned = {(f"every {n}" if n != "1" else "every frame") + FORMER * says_former(e): {WITH: e, WITHOUT: e.get("without_prefix")}
                 for n, e in part["replan"].items() if n.isdigit()}  # fmt: skip
    hashed = {title + FORMER * says_former(part["msth"].get(key)): part["msth"].get(key) or {} for key, title in MSTH_TITLES.items()}
    spaced = {where: {title: entry.get(horizon) for title, entry in hashed.items()} for horizon, where in HORIZONS.items()}
    made = {
        "results-tasks.png": Plot("Success on the official tasks", _single(part["tasks"], TASKS)),
        "results-unseen.png": Plot("Success with one cube, one thing unseen", _single(part["unseen"], UNSEEN)),
        "results-msth.png": Plot(_titled("Success by the spacing of imagined frames", part["msth"]), spaced),
        "results-plan.png": Plot(_titled("Success by what becomes of the plan", part["plan"]), _single(part["plan"], PLAN)),
        "results-replan.png": Plot(_titled("Success by frames between chunks", part["replan"]), replanned),
    }
    there = {name: Plot(plot.title, _measured(plot.bars)) for name, plot in made.items()}
    return {name: plot for name, plot in there.items() if plot.bars}


def draw(found: Entry) -> None:
    """Writes the plots."""
    from matplotlib.figure import Figure

    for name, (title, groups) in plotted(found).items():
        series = list(dict.fromkeys(key for bars in groups.values() for key in bars))
        rows, named = sum(map(len, groups.values())), len(series) if len(series) > 1 else 0  # bars; lines of the legend
        figure = Figure(figsize=(8, 1.0 + 0.3 * rows + 0.12 * len(groups) + 0.22 * named), layout="constrained")
        axes = figure.add_subplot()
        _bars(axes, groups, series)
        axes.set_xlim(0, 114)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("success, %, with 95 % intervals")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, loc="left", fontsize=11)
        if named:
            figure.legend(loc="outside lower center", ncols=1 if len(series) > 2 else 2, frameon=False, fontsize=9)
        figure.savefig(PICTURES / name, dpi=90)


def _bars(axes: Axes, groups: Bars, series: list[str]) -> None:
    """Bars of each group below one another, at their ends successes of episodes."""
    height = 0.8 / len(series)
    for number, name in enumerate(series):
        own = {place: bars[name] for place, bars in enumerate(groups.values()) if name in bars}
        places = [place + height * (number - (len(series) - 1) / 2) for place in own]
        rates = [100 * entry["success_rate"] for entry in own.values()]
        errors = [[abs(rate - 100 * entry["interval"][end]) for rate, entry in zip(rates, own.values(), strict=True)] for end in (0, 1)]
        axes.barh(places, rates, 0.9 * height, xerr=errors, color=COLOURS[number % len(COLOURS)], ecolor="#33475b",
                  capsize=2, error_kw={"elinewidth": 0.8}, label=name)  # fmt: skip
        for place, entry in zip(places, own.values(), strict=True):
            axes.text(102.5, place, f"{entry['successes']} of {entry['episodes']}", va="center", fontsize=7)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()


def _single(entries: Entry, labels: dict[str, str]) -> Bars:
    """A bar each; of former weights are entries that say so, an ablation's others are of those of its title."""
    return {label + FORMER * says_former(entries.get(key)): {"": entries.get(key) or {}} for key, label in labels.items()}


def _titled(title: str, part: Entry) -> str:
    """An ablation says in `about` of which weights it is."""
    return title + FORMER * bool(part.get("about") and former(part["about"]))


def _measured(bars: Bars) -> Bars:
    kept = {label: {name: e for name, e in group.items() if e and "interval" in e} for label, group in bars.items()}
    return {label: group for label, group in kept.items() if group}
