"""Build the interface packages into the running environment: act2goal_msgs, and control_msgs where it is missing.

Run by the environment's own interpreter: `.venv/bin/python compat/interfaces.py`. Only the standard library is used.
Works with the ROS wheels of PyPI; on a ROS installation colcon builds act2goal_msgs and apt brings control_msgs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD_MACHINE = re.compile(r"/opt/python/cp[0-9]+-cp[0-9]+/(include/python[0-9.]+|lib/python[0-9.]+/site-packages/numpy/_core/include)")


def relocate_cmake_exports(prefix: Path) -> int:
    """Replace the wheel builder's include folders in the CMake exports under prefix; return how many files changed."""
    import numpy

    folders = {"include": sysconfig.get_path("include"), "lib": numpy.get_include()}
    changed = 0
    for path in (prefix / "share").rglob("*.cmake"):
        text = path.read_text()
        mended = BUILD_MACHINE.sub(lambda match: folders[match[1].split("/")[0]], text)
        if mended != text:
            path.write_text(mended)
            changed += 1
    return changed


def source_hash(package: Path) -> str:
    """SHA-256 over names and contents of everything in a package's folder, and over what it is built for."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(path for path in package.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def real_control_msgs(prefix: Path) -> bool:
    """Whether a control_msgs other than our stand-in is importable."""
    found = importlib.util.find_spec("control_msgs")  # without a file of its own it is only a folder of that name
    return found is not None and found.origin is not None and not (prefix / "share/control_msgs/STAND_IN").exists()


def build(package: Path, name: str, prefix: Path, jobs: int) -> bool:
    """Build and install one interface package into prefix unless this source is there; return whether it was built.

    Raises subprocess.CalledProcessError, after printing the build's output, when CMake or the compiler fails.
    """
    stamp = prefix / "share" / name / "source.sha256"
    wanted = source_hash(package)
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    environment = os.environ | {"AMENT_PREFIX_PATH": str(prefix), "PATH": f"{prefix}/bin:{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        configure = ["cmake", "-G", "Ninja", "-S", package, "-B", folder, f"-DCMAKE_INSTALL_PREFIX={prefix}",
                     "-DBUILD_TESTING=OFF", "-DPYTHON_ONLY=ON", "-DCMAKE_C_FLAGS=-O1", "-DCMAKE_CXX_FLAGS=-O1",
                     f"-DPython3_EXECUTABLE={sys.executable}"]
        for command in (configure, ["cmake", "--build", folder, "-j", str(jobs)], ["cmake", "--install", folder]):
            done = subprocess.run([str(part) for part in command], env=environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode:
                print(done.stdout, file=sys.stderr)
                done.check_returncode()
    stamp.write_text(wanted)
    return True


def main() -> None:
    """Build what is missing or out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", type=Path, default=Path(sys.prefix), help="where to install (default: this environment)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time")
    arguments = parser.parse_args()
    relocate_cmake_exports(arguments.prefix)
    packages = {"act2goal_msgs": ROOT / "msg"}
    if not real_control_msgs(arguments.prefix):
        packages["control_msgs"] = ROOT / "compat/control_msgs"
    for name, folder in packages.items():
        built = build(folder, name, arguments.prefix, arguments.jobs)
        print(f"{name}: {'built' if built else 'up to date'}")


if __name__ == "__main__":
    main()
