#!/usr/bin/env bash
# Writes *.txt (every package pinned, for CPython 3.10 to 3.14 on Linux) from *.in; needs uv (pip install uv).
# Left out: NumPy, which the ROS distribution decides (ros-*.txt), and labmaze, which dm_control needs only for mazes
# and which has no wheels for Python 3.13; torch, which is chosen apart (torch.txt), and aiohttp, with which lightning-fabric reads
# from web addresses; of what diffusers asks for, hf-xet, which only downloads, and importlib-metadata, which Python has. So everything
# is installed with --no-deps.
set -euo pipefail
cd "$(dirname "$0")"
numpy=$(mktemp) left_out=$(mktemp)
trap 'rm -f "$numpy" "$left_out"' EXIT
printf '%s; sys_platform == "never"\n' torch aiohttp >"$left_out"
printf 'numpy==1.26.4; python_version < "3.13"\nnumpy>=2.1; python_version >= "3.13"\n' >"$numpy"
unneeded=()
for name in labmaze numpy hf-xet importlib-metadata lazy-importer; do unneeded+=(--no-emit-package "$name"); done
constraints=(-c "$numpy")
for name in build robot sim train paper test gpu; do
  { echo "# Written by lock.sh from $name.in."
    uv pip compile --quiet --universal --python-version 3.10 --override "$left_out" --no-annotate --no-header "${unneeded[@]}" \
      "${constraints[@]}" "$name.in" | grep -v -e win32 -e never -e "== 'pypy'" -e "== 'emscripten'"
  } >"$name.txt.new"
  mv "$name.txt.new" "$name.txt"
  constraints+=(-c "$name.txt")
done
