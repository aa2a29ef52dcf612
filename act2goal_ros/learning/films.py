"""Films of episodes: the live picture, the goal, and below them what is imagined at that moment; and a sheet of each."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from act2goal_ros.learning.evaluate import EpisodeResult, Seen

RATE = 25.0  # pictures a second, as the loop's camera
LARGE, SMALL, BAR = 288, 96, 22  # pixels: live picture and goal, imagined frame, caption
COLUMNS = 8  # moments of a sheet
SHEET = "contact.png"
INK, PAPER = (30, 30, 30), 245
OUTCOMES = {True: "success", False: "failure"}

Decode = Callable[[np.ndarray], np.ndarray]  # latents (F, C, h, w) → (F, H, W, 3) uint8


def wanted(folder: Path, result: EpisodeResult, most: int) -> bool:
    """Whether there are fewer than `most` films of this task with this outcome in `folder`."""
    return len(list(folder.glob(f"{result.task}-{OUTCOMES[result.success]}-*.mp4"))) < most


def film(folder: Path, result: EpisodeResult, decode: Decode) -> Path:
    """Writes <task>-<outcome>-<seed>.mp4 and a sheet of the same name; the film appears complete or not at all.

    ValueError where the episode was run without keeping pictures, OSError where no film can be written.
    """
    if result.seen is None or not result.seen.frames or not result.seen.plans:
        raise ValueError(f"no pictures of {result.task} {result.seed} were kept")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.task}-{OUTCOMES[result.success]}-{result.seed}.mp4"
    imagined = [decode(latents) for _, _, latents in result.seen.plans]
    pictures = [_scene(result, index, imagined) for index in range(len(result.seen.frames))]
    temporary = path.with_suffix(".tmp.mp4").with_stem("." + path.stem)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV has no MPEG-4 encoder here, or the folder cannot be written")
    for picture in pictures:
        writer.write(picture)
    writer.release()
    cv2.imwrite(str(path.with_suffix(".png")), _sheet(result, imagined))
    temporary.replace(path)
    return path


def contact_sheet(folder: Path) -> Path | None:
    """Stacks the films' sheets, failures first; None where there are none."""
    sheets = [path for word in ("failure", "success") for path in sorted(folder.glob(f"*-{word}-*.png"))]
    pictures = [cv2.imread(str(path)) for path in sheets]
    if not pictures:
        return None
    width = max(picture.shape[1] for picture in pictures)
    padded = [cv2.copyMakeBorder(p, 0, 6, 0, width - p.shape[1], cv2.BORDER_CONSTANT, value=(PAPER,) * 3) for p in pictures]
    cv2.imwrite(str(folder / SHEET), np.vstack(padded))
    return folder / SHEET


def _scene(result: EpisodeResult, index: int, imagined: list[np.ndarray]) -> np.ndarray:
    """(h, w, 3) BGR: one picture of the film."""
    seen = _seen(result)
    now, live = seen.frames[index]
    plan = _plan_at(seen, now)
    made, offsets, _ = seen.plans[plan]
    frames = imagined[plan]
    reached = result.success and now >= result.success_time
    title = f"{result.task}  seed {result.seed}  {now:4.1f} s{'  at the goal' if reached else ''}"
    top = np.hstack([_with_caption(live, LARGE, title), _with_caption(seen.goal, LARGE, "goal")])
    captions = [f"+{offset - (now - made):.1f} s" for offset in offsets]
    below = np.hstack([_with_caption(frame, SMALL, text) for frame, text in zip(frames, captions, strict=True)])
    width = max(top.shape[1], below.shape[1])
    return np.vstack([_widened(part, width) for part in (top, below)])


def _sheet(result: EpisodeResult, imagined: list[np.ndarray]) -> np.ndarray:
    """Moments of the episode; below each the first distal frame imagined then, and the last one; the goal at the right."""
    seen = _seen(result)
    chosen = np.linspace(0, len(seen.frames) - 1, COLUMNS).round().astype(int)
    columns = []
    for index in chosen:
        now, live = seen.frames[index]
        plan = _plan_at(seen, now)
        frames, offsets = imagined[plan], seen.plans[plan][1]
        middle = len(frames) // 2
        parts = [(live, f"{now:.1f} s"), (frames[middle], f"+{offsets[middle]:.1f} s"), (frames[-1], f"+{offsets[-1]:.1f} s")]
        columns.append(np.vstack([_with_caption(picture, SMALL, text) for picture, text in parts]))
    goal = np.full_like(columns[0], PAPER)
    part = _with_caption(seen.goal, SMALL, "goal")
    goal[: len(part)] = part
    body = np.hstack([*columns, goal])
    missed = f"not at the goal: {100 * result.distance:.1f} cm from it"
    outcome = f"at the goal after {result.success_time:.1f} s" if result.success else missed
    title = np.full((BAR, body.shape[1], 3), PAPER, np.uint8)
    _write(title, f"{result.task}  seed {result.seed}: {outcome}    live | imagined, midway | imagined, last", BAR - 7)
    return np.vstack([title, body])


def _seen(result: EpisodeResult) -> Seen:
    assert result.seen is not None
    return result.seen


def _plan_at(seen: Seen, now: float) -> int:
    return max((i for i, (made, _, _) in enumerate(seen.plans) if made <= now), default=0)


def _with_caption(picture: np.ndarray, size: int, text: str) -> np.ndarray:
    """(size + BAR, size, 3) BGR of an RGB picture."""
    scaled = cv2.resize(picture[..., ::-1], (size, size), interpolation=cv2.INTER_CUBIC)
    bar = np.full((BAR, size, 3), PAPER, np.uint8)
    _write(bar, text, BAR - 7)
    return np.vstack([scaled, bar])


def _write(picture: np.ndarray, text: str, bottom: int) -> None:
    cv2.putText(picture, text, (4, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    return cv2.copyMakeBorder(picture, 0, 0, 0, width - picture.shape[1], cv2.BORDER_CONSTANT, value=(PAPER,) * 3)
