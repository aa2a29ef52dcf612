"""Checkpoints: written whole or not at all, the last two kept, damage found when they are read, nothing in them executed."""

import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from tqdm import tqdm

from act2goal_ros.model.config import ModelConfig

MARGIN = 1 << 16  # bytes of a checkpoint beside its tensors


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


class CannotWriteError(OSError):
    """A file that could not be written; the message names it and the bytes needed and free. What was there before still is."""


def write(path: Path, size: int, fill: Callable[[BinaryIO], object], keep: Path | None = None) -> None:
    """Writes about `size` bytes by `fill`, so that `path` is the old file or the whole new one, also after a loss of power.

    The old file is kept at `keep`, if given. Raises CannotWriteError, and nothing has changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        if (free := shutil.disk_usage(path.parent).free) < size:
            raise OSError(f"{free} bytes are free")
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's writer wraps some errors in RuntimeError
        with suppress(OSError):
            temporary.unlink()
        free = shutil.disk_usage(path.parent).free
        raise CannotWriteError(
            f"{path} could not be written: {error}; it needs about {size} bytes, {free} are free in {path.parent}"
        ) from error
    if keep is not None and path.exists():
        _name_too(path, keep)
    temporary.replace(path)
    _sync_names(path.parent)


def _sync_names(folder: Path) -> None:
    """A file's new name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_too(path: Path, keep: Path) -> None:
    """Gives a file a second name, so that it is there under the first at every moment; renames it where file systems have no such thing."""
    keep.unlink(missing_ok=True)
    try:
        os.link(path, keep)
    except OSError:
        path.replace(keep)


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(path: Path, state: Mapping[str, object]) -> None:
    """Writes a checkpoint; the one before is kept beside it. Raises CannotWriteError, and both older ones stay."""
    write(path, _bytes(state) + MARGIN, lambda file: torch.save(dict(state), file), previous(path))


def load(path: Path, *needed: str) -> dict[str, Any]:
    """A checkpoint's tensors and plain values, on the CPU. Raises CheckpointError if it is missing, damaged, or lacks what is needed."""
    if not path.is_file():
        kept = f"; the one before it is {previous(path)}" if previous(path).is_file() else ""
        raise CheckpointError(f"no checkpoint {path}{kept}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare checksums
            bad = archive.testzip()
        if bad is not None:
            raise CheckpointError(f"checkpoint {path} is damaged: the checksum of {bad} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever it meets in a damaged file
        raise CheckpointError(f"checkpoint {path} is damaged ({path.stat().st_size} bytes): {error}") from error
    if not isinstance(state, dict) or not state.keys() >= set(needed):
        lacking = sorted(set(needed) - state.keys()) if isinstance(state, dict) else needed
        raise CheckpointError(f"checkpoint {path} lacks {', '.join(lacking)}")
    return state


def load_newest(path: Path, *needed: str) -> dict[str, Any] | None:
    """The checkpoint at `path`; if it is missing or cannot be used, the one before it; None if there is neither.

    Such a file is put aside under the name *.damaged.pt. Raises CheckpointError if all that there are, are such.
    """
    errors = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            state = load(candidate, *needed)
        except CheckpointError as error:
            errors.append(str(error))
            continue
        if errors:
            with suppress(OSError):  # another process of the same training may have done it
                path.replace(path.with_name(f"{path.stem}.damaged{path.suffix}"))
            tqdm.write(f"{errors[0]}; goes on from {candidate}", file=sys.stderr)
        return state
    if errors:
        raise CheckpointError("; ".join(errors) + "; delete them to start anew")
    return None


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], there: Mapping[str, Any] | None, source: Path) -> list[str]:
    """Copies weights into a module and returns the names of those it has and they lack.

    there: the configuration they were trained with. Raises CheckpointError, with the fields that differ, if any does not fit.
    """
    own = module.state_dict()
    unknown = [name for name in weights if name not in own]
    other = [f"{n} {[*w.shape]} there, {[*own[n].shape]} here" for n, w in weights.items() if n in own and w.shape != own[n].shape]
    if unknown or other:
        differ = differences(there, getattr(module, "config", None))
        reasons = differ or [*other[:3], *(f"{name} there, not here" for name in unknown[:3])]
        raise CheckpointError(f"checkpoint {source} is of another configuration: {'; '.join(reasons)}")
    return list(module.load_state_dict(weights, strict=False).missing_keys)


def mean(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the weights of several trainings of one model (Wortsman et al. 2022, arXiv 2203.05482); what are no floating-point
    numbers is the first's. KeyError where they do not have the same names."""
    first = weights[0]
    return {name: torch.stack([each[name] for each in weights]).mean(0) if value.is_floating_point() else value
            for name, value in first.items()}  # fmt: skip


def differences(there: Mapping[str, Any] | None, here: ModelConfig | None) -> list[str]:
    """What differs between a checkpoint's configuration and ours, a text for each field; absent fields had today's defaults."""
    if there is None or here is None:
        return []
    ours, theirs = here.to_dict(), {**type(here)().to_dict(), **there}
    return [f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name)]  # fmt: skip


def _bytes(value: object) -> int:
    """Of all tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
