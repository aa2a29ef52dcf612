"""Plots of docs/results.md: success with 95 % intervals."""

from typing import Any

from results import ROOT

PICTURES = ROOT / "docs" / "pictures"

Entry = dict[str, Any]


def plots(found: Entry) -> list[str]:
    """Links to the plots there is something to show in."""
    return [f"![{title}](pictures/{name})" + "\n" for name, (title, entries) in plotted(found).items() if entries]


def plotted(found: Entry) -> dict[str, tuple[str, dict[str, Entry]]]:
    """File → title and the bars' entries."""
    of = {part: {key: e for key, e in (found.get(part) or {}).items() if isinstance(e, dict) and "interval" in e}
          for part in ("tasks", "plan", "replan")}  # fmt: skip
    return {"results-tasks.png": ("Success by task", of["tasks"]), "results-plan.png": ("Success by what becomes of the plan", of["plan"]),
            "results-replan.png": ("Success by frames between chunks", of["replan"])}  # fmt: skip


def draw(found: Entry) -> None:
    """Writes the plots: success with 95 % intervals."""
    from matplotlib.figure import Figure

    for name, (title, entries) in plotted(found).items():
        if not entries:
            continue
        figure = Figure(figsize=(8, 0.9 + 0.36 * len(entries)), layout="constrained")
        axes = figure.add_subplot()
        rates = [100 * e["success_rate"] for e in entries.values()]
        errors = [[r - 100 * e["interval"][0] for r, e in zip(rates, entries.values(), strict=True)],
                  [100 * e["interval"][1] - r for r, e in zip(rates, entries.values(), strict=True)]]  # fmt: skip
        axes.barh(list(entries), rates, xerr=errors, color="#7aa6c2", ecolor="#33475b", capsize=3)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("success, %")
        axes.set_title(title, loc="left", fontsize=11)
        figure.savefig(PICTURES / name, dpi=90)
