#!/usr/bin/env bash
# Creates or updates the virtual environment from the lock of this machine's platform. Says what it does.
# Usage: install.sh VENV [cpu|gpu]; without a platform, a GPU that answers decides.
set -euo pipefail
venv=$1
platform=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
torch=torch==2.13.0+cpu

say() { echo "setup: $*"; }
fail() {
  echo "setup: $*" >&2
  exit 1
}

if [ -z "$platform" ]; then
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then platform=gpu; else platform=cpu; fi
fi
lock=$here/$platform-dev.lock
[ -f "$lock" ] || fail "there is no lock for platform '$platform'; use cpu or gpu"
stamp=$venv/.installed-$platform-$(cat "$lock" "$here/install.sh" | sha256sum | cut -c1-16)
[ ! -f "$stamp" ] || exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python 3.11 or newer is needed, '$python' is $("$python" --version 2>&1); set PYTHON=/path/to/python3.11"
command -v gcc >/dev/null || fail "gcc is needed (vLLM compiles kernels at start); on Debian: apt-get install gcc"
if [ "$platform" = cpu ]; then
  "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
    fail "vLLM's CPU kernels need the library libnuma; on Debian: apt-get install libnuma1"
fi
say "platform $platform, environment $venv (the first time takes some minutes)"
"$python" -m venv "$venv" || fail "'$python -m venv' failed; on Debian: apt-get install python3-venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)

if [ "$platform" = cpu ]; then
  say "installing $torch"
  "${pip[@]}" install -qq --no-deps "$torch" 2>"$venv/torch.log" ||
    "${pip[@]}" install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch" ||
    fail "no wheel of $torch for this Python, neither where pip looks (pip config list) nor in PyTorch's CPU index.
       Put one into a folder and set PIP_FIND_LINKS to it. pip said: $(tail -n 2 "$venv/torch.log")"
fi
say "installing $(grep -c '==' "$lock") locked packages"
"${pip[@]}" install -qq --no-deps --require-hashes -r "$lock"
say "installing the command tenantry"
"${pip[@]}" install -qq --no-deps --no-build-isolation --no-index -e "$here/.."
rm -f "$venv"/.installed-*
touch "$stamp"
say "done"
