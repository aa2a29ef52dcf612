"""Draws a rollout's story as one picture: what was seen, what was imagined and looked at, what was commanded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from act2goal_ros.data.story import ImaginedFrames, Rgb, Story

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import SubplotSpec

INK, FAINT, PAPER = "#22272e", "#8b949e", "#ffffff"
NEAR, FAR, GOAL = "#e0701a", "#2467c9", "#2a8f4d"
STATE_COLOURS = {"braking": "#f4c7c3", "holding": "#f0e3c0"}
JOINT_COLOURS = ("#1b6ca8", "#d1495b", "#3a9d5d", "#8e5ea2", "#c78a00", "#4a5568", "#0f9ba8")
OUTCOMES = {"reached": GOAL, "failed": "#c0392b", "interrupted": "#c0392b"}
WIDTH = 17.0  # inches


def draw(story: Story, path: Path, dpi: int = 100) -> Path:
    """Writes the picture (PNG by its suffix) and returns its path."""
    rows = len(story.imagined)
    figure = Figure(figsize=(WIDTH, 8.0 + 2.35 * max(rows, 0.4)), facecolor=PAPER)
    FigureCanvasAgg(figure)
    heights = [0.6, 2.35, 0.2, *([2.35] * rows or [0.6]), 0.1, 2.5, 1.35, 1.35]
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, left=0.06, right=0.95, top=0.985, bottom=0.05, hspace=0.32)
    _title(figure.add_subplot(grid[0]), story)
    _seen(figure, grid[1], story)
    _legend(figure.add_subplot(grid[2]))
    for k, imagined in enumerate(story.imagined):
        _imagined(figure, grid[3 + k], imagined, story)
    if not rows:
        _note(
            figure.add_subplot(grid[3]),
            "no plan was decoded to pictures (imagination: preview_rate 0, or the rollout is too short)",
        )
    below = 3 + max(rows, 1) + 1
    _plots([figure.add_subplot(grid[below + k]) for k in range(3)], story)
    figure.savefig(path, dpi=dpi, facecolor=PAPER)
    return path


def _blank(axes: Axes) -> Axes:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return axes


def _note(axes: Axes, text: str) -> None:
    _blank(axes).text(0.5, 0.5, text, ha="center", va="center", color=FAINT, fontsize=12)


def _title(axes: Axes, story: Story) -> None:
    """Outcome in words, then what identifies the rollout."""
    outcome = story.facts.get("outcome", "unknown")
    _blank(axes)
    end = story.goal_ended if story.goal_ended is not None else story.duration
    axes.text(0.0, 0.62, outcome.capitalize(), color=OUTCOMES.get(outcome, INK), fontsize=25, weight="bold", va="center")
    words = [f"after {end:.1f} s", f"{story.plans} plans"]
    known = story.success.values[story.success.times <= end]  # afterwards another episode may have begun
    if len(known):
        words.append("the simulator agrees" if known[-1, 0] else "the simulator says: not at the goal")
    axes.text(0.03 + 0.0155 * len(outcome), 0.6, "     ".join(words), color=INK, fontsize=15, va="center")
    details = (str(story.facts.get(key, "")).rsplit("/", 1)[-1] for key in ("task", "robot", "goal_source", "began"))
    axes.text(1.0, 0.62, "   ".join(d for d in details if d), color=FAINT, fontsize=10.5, ha="right", va="center")
    axes.text(0.0, -0.12, story.name, color=FAINT, fontsize=10.5, va="center")


def _strip(figure: Figure, spec: SubplotSpec, count: int, label: str, note: str) -> list[Axes]:
    """A row of `count` equal cells with a label on the left; the last cell stands apart."""
    grid = GridSpecFromSubplotSpec(1, count + 2, spec, width_ratios=[0.78, *[1.0] * (count - 1), 0.08, 1.0], wspace=0.06)
    left = _blank(figure.add_subplot(grid[0]))
    left.text(0.0, 0.62, label, fontsize=13, weight="bold", color=INK, va="center")
    left.text(0.0, 0.42, note, fontsize=10.5, color=FAINT, va="top", linespacing=1.4)
    return [figure.add_subplot(grid[k]) for k in (*range(1, count), count + 1)]


def _show(axes: Axes, picture: Rgb | None, text: str, colour: str = FAINT, width: float = 0.8, faded: bool = False) -> None:
    """A picture in a frame of a colour, with a caption below."""
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.set_axis_off()
        return
    axes.imshow(picture, alpha=0.4 if faded else 1.0, interpolation="lanczos", aspect="equal")
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=width)
    axes.set_xlabel(text, fontsize=10.5, color=colour if width > 2 else INK, labelpad=4)


def _seen(figure: Figure, spec: SubplotSpec, story: Story) -> None:
    count = max(len(story.frames), 1) + 1
    cells = _strip(figure, spec, count, "Seen", "live camera")
    for axes, (time, picture) in zip(cells, story.frames, strict=False):
        _show(axes, picture, f"{time:.1f} s")
    if not story.frames:
        _note(cells[0], "no camera frame")
    _show(cells[-1], story.goal, "goal shown", GOAL, 4.0)


def _imagined(figure: Figure, spec: SubplotSpec, plan: ImaginedFrames, story: Story) -> None:
    """The live frame nearest to the plan's start, then its imagined frames; the goal again at the right."""
    count = len(story.frames) + 1 if story.frames else len(plan.pictures) + 2
    count = max(count, len(plan.pictures) + 2)
    note = f"at {max(plan.time, 0.0):.1f} s\ngoal in {plan.time_to_goal:.1f} s"
    cells = _strip(figure, spec, count, "Imagined", note)
    _show(cells[0], plan.start, "seen then")
    for axes, k in zip(cells[1:], range(len(plan.pictures)), strict=False):
        near = plan.chosen.get(k)
        colour = FAINT if near is None else NEAR if near else FAR
        _show(
            axes,
            plan.pictures[k],
            f"+{plan.offsets[k]:.1f} s",
            colour,
            0.8 if near is None else 4.0,
            faded=near is None,
        )
    for axes in cells[len(plan.pictures) + 1 :]:
        axes.set_axis_off()


def _legend(axes: Axes) -> None:
    handles = [
        Patch(facecolor=PAPER, edgecolor=NEAR, linewidth=3, label="near frame the policy looked at (dense)"),
        Patch(facecolor=PAPER, edgecolor=FAR, linewidth=3, label="far frame it looked at (distal)"),
        Patch(facecolor="#eceff2", edgecolor=FAINT, linewidth=0.8, label="imagined, not looked at"),
    ]
    _blank(axes).legend(handles=handles, loc="center", ncols=3, frameon=False, fontsize=11.5, handlelength=1.3)


def _plots(axes: list[Axes], story: Story) -> None:
    _joints(axes[0], story)
    _looks(axes[1], story)
    _progress(axes[2], story)
    for k, each in enumerate(axes):
        each.set_xlim(0.0, max(story.duration, 0.1))
        each.grid(axis="y", color="#e6e9ed", linewidth=0.8)
        each.set_axisbelow(True)
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
        each.tick_params(labelbottom=k == len(axes) - 1, colors=INK, labelsize=10)
        for time, _ in story.frames:
            each.axvline(time, color="#dfe3e8", linewidth=0.8, zorder=0)
        if story.goal_ended is not None:
            each.axvline(story.goal_ended, color=OUTCOMES.get(story.facts.get("outcome", ""), FAINT), linewidth=1.6)
    axes[-1].set_xlabel("s since the goal was shown", fontsize=11)


def _joints(axes: Axes, story: Story) -> None:
    """Commanded joints, measured ones dotted; where the policy did not run, and why."""
    names = story.joint_names or [f"joint {k + 1}" for k in range(story.measured.values.shape[1])]
    handles: list[Any] = []
    for k, name in enumerate(names):
        colour = JOINT_COLOURS[k % len(JOINT_COLOURS)]
        if story.commanded.values.size:
            axes.plot(story.commanded.times, story.commanded.values[:, k], color=colour, linewidth=1.7)
        if story.measured.values.size and k < story.measured.values.shape[1]:
            axes.plot(story.measured.times, story.measured.values[:, k], color=colour, linewidth=1.0, linestyle=(0, (1, 1.5)))
        handles.append(Line2D([], [], color=colour, linewidth=2.2, label=name.removesuffix("_joint").replace("_", " ")))
    if story.gripper.values.size:
        grip = axes.twinx()
        grip.fill_between(story.gripper.times, 0, story.gripper.values[:, 0], color="#9aa5b1", alpha=0.28, linewidth=0)
        grip.set_ylim(0, 1.02)
        grip.set_yticks([0, 1], ["open", "closed"], fontsize=9, color=FAINT)
        grip.spines[["top", "right", "left", "bottom"]].set_visible(False)
        grip.tick_params(length=0)
        handles.append(Patch(color="#9aa5b1", alpha=0.28, label="gripper"))
    axes.set_ylabel("commanded joints, rad\n(dotted: measured)", fontsize=10.5)
    axes.legend(
        handles=handles,
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=10,
        bbox_to_anchor=(0.5, 0.98),
        borderaxespad=0.0,
    )
    _spans(axes, story)


def _spans(axes: Axes, story: Story) -> None:
    """Shades where the policy braked or held, with the reason where there is room for it."""
    for begin, end, state, why in story.states:
        if state in STATE_COLOURS and end > begin:
            axes.axvspan(begin, end, color=STATE_COLOURS[state], alpha=0.6, linewidth=0, zorder=0)
            if end - begin > 0.04 * story.duration:
                room = int(165 * (end - begin) / max(story.duration, 0.1))
                text = f"{state}: {why}" if why and len(state) + len(why) + 2 <= room else state
                axes.annotate(
                    text,
                    (begin, 0.02),
                    xycoords=("data", "axes fraction"),
                    fontsize=8.5,
                    color=INK,
                    xytext=(3, 0),
                    textcoords="offset points",
                )


def _looks(axes: Axes, story: Story) -> None:
    """How far ahead the frames lie that the policy looks at: re-hashing over time."""
    if len(story.ahead):
        near = story.ahead[:, 2] > 0.5
        for mask, colour in ((~near, FAR), (near, NEAR)):
            axes.scatter(story.ahead[mask, 0], story.ahead[mask, 1], s=9, color=colour, linewidth=0)
        axes.set_ylim(0, max(1.0, 1.08 * float(np.percentile(story.ahead[:, 1], 99.5))))
    axes.set_ylabel("looks ahead\ns", fontsize=10.5)


def _progress(axes: Axes, story: Story) -> None:
    if story.progress.values.size:
        axes.fill_between(story.progress.times, 0, story.progress.values[:, 0], color=GOAL, alpha=0.18, linewidth=0)
        axes.plot(story.progress.times, story.progress.values[:, 0], color=GOAL, linewidth=1.7)
        other = axes.twinx()
        other.plot(story.progress.times, story.progress.values[:, 1], color=INK, linewidth=1.3)
        other.set_ylim(0, None)
        other.set_ylabel("time to goal, s", fontsize=10.5)
        other.spines[["top", "left"]].set_visible(False)
        other.tick_params(colors=INK, labelsize=10)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("progress", fontsize=10.5, color=GOAL)
