"""`act2goal goal` and `act2goal status` against a goal node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from ros_tools import Probe, new_domain, running

ROOT = Path(__file__).resolve().parents[1]


class Shell:
    """Runs the command line in the node's domain."""

    def __init__(self, domain: int, folder: Path) -> None:
        self.image = str(folder / "a.png")
        Picture.fromarray(np.zeros((64, 64, 3), np.uint8)).save(self.image)
        self._variables = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(ROOT)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts `act2goal …`."""
        command = [sys.executable, "-m", "act2goal_ros.cli.main", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self._variables)

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and all output of `act2goal …`."""
        return self.end(self.start(*words))

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Waits for a command."""
        output, errors = process.communicate(timeout=60.0)
        return process.returncode, output + errors


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A goal node without a graph."""
    folder = tmp_path_factory.mktemp("shell")
    probe = Probe(domain := new_domain())
    with running("act2goal_ros.nodes.goal", domain, folder / "log"):
        probe.wait_active("goal", 40.0)
        yield Shell(domain, folder)
    probe.close()


def test_send_waits_and_says_how_it_ended(shell: Shell) -> None:
    code, text = shell.run("goal", "send", "--image", shell.image, "--timeout", "1.5")
    assert code == 1 and "timed out after 1." in text and "not reached within 1.5 s: no progress seen yet" in text
    assert "0%" in text


def test_a_bad_file(shell: Shell) -> None:
    code, text = shell.run("goal", "send", "--image", "/nowhere/a.png")
    assert (code, text.strip()) == (2, "bad goal: no image file /nowhere/a.png")


def test_live_without_a_camera(shell: Shell) -> None:
    code, text = shell.run("goal", "live")
    assert code == 2 and "no camera frame on image_raw within the last 1 s" in text


def test_ctrl_c_cancels(shell: Shell) -> None:
    process = shell.start("goal", "send", "--image", shell.image)
    assert process.stdout is not None and "0%" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, text = shell.end(process)
    assert code == 3 and "canceled after" in text


def test_cancel_from_elsewhere_and_status(shell: Shell) -> None:
    process = shell.start("goal", "send", "--image", shell.image)
    assert process.stdout is not None and process.stdout.readline()
    code, text = shell.run("status", "--once")
    assert code == 0 and "ACTIVE" in text and "NO SUPERVISOR" in text and "goal  active" in text
    code, text = shell.run("goal", "cancel")
    assert code == 0 and "canceled" in text
    code, text = shell.end(process)
    assert code == 3 and "canceled after" in text
    assert shell.run("goal", "cancel") == (0, "no goal is pursued\n")


def test_nobody_there(shell: Shell) -> None:
    began = time.monotonic()
    code, text = shell.run("goal", "--namespace", "left", "cancel")
    assert code == 4 and "nobody answers to /left/goal/cancel within 5 s" in text
    assert time.monotonic() - began < 40.0
    assert shell.run("status", "--namespace", "left", "--once")[0] == 1
