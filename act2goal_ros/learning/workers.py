"""Jobs in processes of their own, any of which may die: killed for its memory, or by a crash in a library."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A worker process died; the message says what to do."""


def results_of(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Results of all jobs as they come. Raises what a job raises, and WorkerDiedError where multiprocessing.Pool would wait for ever."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        text = f"one of {workers} worker processes died: killed, perhaps for its memory, or crashed"
        raise WorkerDiedError(f"{text}. What is finished is kept; the same command goes on from there") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, killed too: the same command may be started again at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # only workers run this

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
