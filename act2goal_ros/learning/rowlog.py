"""Rows of an evaluation as they come, in a file that an interrupted evaluation takes up again."""

import json
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
CRITERION = {"criterion": "success after any control step of 0.05 s"}  # in headers of logs: other rows, of other programs, are not taken up


class LogError(ValueError):
    """A log of something else, or a damaged one; the message names the file and what differs."""


class RowLog:
    """JSON lines: a header that says what was measured, then a row an episode, each on disk before the next.

    Opened again with the same header, it has the rows there are; a last line that was cut off is dropped. LogError where the
    header is another one's, or a line in between is no JSON. Use it as a context manager.
    """

    def __init__(self, path: Path, header: Row) -> None:
        self.path, self.rows = path, list[Row]()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _complete_lines(path)
        if lines:
            header = _plain(header)
            found = _parse(path, 1, lines[0])
            differs = [key for key in {*found, *header} if found.get(key) != header.get(key)]
            if differs:
                told = ", ".join(f"{key} {found.get(key)!r} instead of {header.get(key)!r}" for key in sorted(differs))
                raise LogError(f"{path} is of another evaluation: {told}; give another file or delete it")
            self.rows = [_parse(path, number, line) for number, line in enumerate(lines[1:], 2)]
        self._file = path.open("a")
        if not lines:
            self._write(header)

    def __enter__(self) -> "RowLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Appends a row."""
        self.rows.append(_plain(row))
        self._write(row)

    def missing(self, jobs: list[Any], key: Callable[[Any], Hashable], row_key: Callable[[Row], Hashable]) -> list[Any]:
        """The jobs that have no row yet, in order."""
        done = {row_key(row) for row in self.rows}
        return [job for job in jobs if key(job) not in done]

    def _write(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def _complete_lines(path: Path) -> list[str]:
    """Those that end; half of one, of a writer that was killed, is cut off the file."""
    if not path.exists():
        return []
    *complete, rest = path.read_bytes().split(b"\n")
    if rest:
        os.truncate(path, path.stat().st_size - len(rest))
    return [line.decode() for line in complete]


def _parse(path: Path, number: int, line: str) -> Row:
    try:
        return dict(json.loads(line))
    except ValueError as error:
        raise LogError(f"{path}, line {number} is no JSON object: {error}") from error


def _plain(row: Row) -> Row:
    """As it reads once written: tuples are lists."""
    return dict(json.loads(json.dumps(row)))
