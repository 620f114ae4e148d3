#!/usr/bin/env bash
# Resolves the four locks anew: what a Bento needs, and what `make` needs besides, for CPU and GPU machines.
# The CPU locks leave torch out: its CPU wheel is in no general index, so install.sh fetches it on its own.
# TORCH_WHEELS: a folder or page with that wheel; PyTorch's own by default.
set -euo pipefail
cd "$(dirname "$0")"
uv=${UV:-../.venv/bin/uv}

compile() { # NAME [uv options]
  local name=$1
  shift
  echo "locking $name"
  "$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_35 --generate-hashes \
    --no-header --no-annotate "$@" "$name.in" -o "$name.lock"
}

cpu=(--overrides cpu-overrides.txt --no-emit-package torch
  --find-links "${TORCH_WHEELS:-https://download.pytorch.org/whl/cpu/torch/}")
compile cpu "${cpu[@]}"
compile cpu-dev "${cpu[@]}"
compile gpu
compile gpu-dev
sed -i '/^# The following packages were excluded/,$d' cpu.lock cpu-dev.lock
