"""A launch of small programs instead of nodes: python -m launcher_under_test FOLDER NAMESPACE PROGRAM…

A program is one of PROGRAMS, with -optional behind its name where the launch may go on without it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from act2goal_ros import graph, launcher

PROGRAMS = {
    "good": "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\nprint('up', flush=True)\n"
    "while True: time.sleep(0.05)",
    "other": "print('up', flush=True)\nwhile True: time.sleep(0.05)",
    "stuck": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: time.sleep(0.05)",
    "crash": "print('boom', flush=True)\ntime.sleep(0.1)\nsys.exit(7)",
    "taken": "print('name is taken', flush=True)\nsys.exit(3)",
}


def main() -> None:
    """Runs the programs as if they were the graph's nodes."""
    folder, namespace, *names = Path(sys.argv[1]), sys.argv[2], *sys.argv[3:]
    (folder / "parameters.yaml").write_text("{}")
    for name, body in PROGRAMS.items():
        program = folder / name
        program.write_text(f"#!{sys.executable}\nimport signal, sys, time\n{body}\n")
        program.chmod(0o755)
    graph.nodes = lambda settings: tuple(  # type: ignore[assignment]
        graph.NodeSpec(
            executable=name.removesuffix("-optional"),
            parameters=folder / "parameters.yaml",
            required=not name.endswith("-optional"),
        )
        for name in names
    )
    launcher.executable = lambda name: str(folder / name)  # type: ignore[assignment]
    launcher.STOP_TIMEOUT = 1.0
    launched = launcher.Launcher(graph.Settings.parse({"namespace": namespace}), launcher.Log(folder / "log", echo=False))
    sys.exit(launched.run())


if __name__ == "__main__":
    main()
