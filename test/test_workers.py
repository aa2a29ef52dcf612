"""Jobs in worker processes: results as they come, errors as they are, and a worker that dies ends the wait."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from act2goal_ros.learning.workers import WorkerDiedError, results_of


def work(job: int) -> int:
    if job == 2:
        raise ValueError("job 2 is not wanted")
    if job == 3:
        os._exit(1)
    return 10 * job


def hold(path: str) -> None:
    """Holds a lock, as long as this process lives."""
    with Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("held")
        file.flush()
        time.sleep(600)


def free(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def wait_for(what, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    path = tmp_path / "lock"
    code = f"from test_workers import hold, results_of\nif __name__ == '__main__': list(results_of(hold, [{str(path)!r}], 1))"
    script = tmp_path / "command.py"
    script.write_text(code)
    found = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": found})
    try:
        assert wait_for(lambda: path.exists() and path.read_text() == "held", 60) and not free(path)
    finally:
        command.kill()
        command.wait()
    assert wait_for(lambda: free(path), 20)


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
