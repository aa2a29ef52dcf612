"""Giving way to other processes."""

import os
import subprocess
import sys

from act2goal_ros.control import niceness


def run(*code: str) -> list[int]:
    text = "\n".join(("import os", "from act2goal_ros.control.niceness import give_way", *code))
    return [int(line) for line in subprocess.check_output([sys.executable, "-c", text], text=True).split()]


def test_it_is_added_to_what_the_process_began_with_and_not_twice():
    began = os.getpriority(os.PRIO_PROCESS, 0)
    first, second, threads = run(
        "print(give_way(3)); print(give_way(3))",
        "import threading; t = threading.Thread(target=lambda: print(os.getpriority(os.PRIO_PROCESS, 0))); t.start(); t.join()",
    )
    assert first == second == threads == min(niceness.HIGHEST, began + 3)


def test_it_ends_at_the_highest():
    assert run("print(give_way(100))") == [niceness.HIGHEST]
