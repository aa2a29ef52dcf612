"""Jobs in worker processes: results as they come, errors as they are, and a worker that dies ends the wait."""

import os

import pytest

from act2goal_ros.learning.workers import WorkerDiedError, results_of


def work(job: int) -> int:
    if job == 2:
        raise ValueError("job 2 is not wanted")
    if job == 3:
        os._exit(1)
    return 10 * job


def test_all_results_come():
    assert sorted(results_of(work, [0, 1, 4], 2)) == [0, 10, 40]


def test_a_job_s_error_is_raised():
    with pytest.raises(ValueError, match="job 2 is not wanted"):
        list(results_of(work, [0, 2], 1))


def test_a_worker_that_dies_is_said_and_what_came_before_is_kept():
    kept = []
    with pytest.raises(WorkerDiedError, match="one of 1 worker processes died: .* the same command goes on"):
        for result in results_of(work, [0, 1, 3, 4], 1):
            kept.append(result)
    assert kept == [0, 10]
