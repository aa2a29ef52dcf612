"""Evaluations that are interrupted and taken up again."""

from pathlib import Path

import pytest

from act2goal_ros.learning.rowlog import LogError, RowLog

HEADER = {"model": "m", "options": {"seeds": [1, 2]}}


def test_rows_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    with RowLog(path, HEADER) as log:
        log.add({"task": "a", "seed": 1})
    with RowLog(path, HEADER) as log:
        assert log.rows == [{"task": "a", "seed": 1}]
        jobs = [("a", 1), ("a", 2), ("b", 1)]
        assert log.missing(jobs, lambda job: job, lambda row: (row["task"], row["seed"])) == [("a", 2), ("b", 1)]
        log.add({"task": "a", "seed": 2})
    assert len(path.read_text().splitlines()) == 3


def test_half_a_line_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowLog(path, HEADER) as log:
        log.add({"seed": 1})
    with path.open("a") as file:
        file.write('{"seed": 2, "succ')
    with RowLog(path, HEADER) as log:
        assert log.rows == [{"seed": 1}]
        log.add({"seed": 2})
    with RowLog(path, HEADER) as log:
        assert log.rows == [{"seed": 1}, {"seed": 2}]


def test_a_row_is_on_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowLog(path, HEADER) as log:
        log.add({"seed": 1})
        assert path.read_text().endswith('{"seed": 1}\n')


def test_another_evaluation_s_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowLog(path, HEADER):
        pass
    with pytest.raises(LogError, match="another evaluation: model 'm' instead of 'n'"):
        RowLog(path, HEADER | {"model": "n"})


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowLog(path, HEADER) as log:
        log.add({"seed": 1})
    path.write_text(path.read_text() + "oops\n")
    with pytest.raises(LogError, match="line 3 is no JSON object"):
        RowLog(path, HEADER)
