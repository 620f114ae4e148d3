#!/usr/bin/env bash
# Brings the environment up to date with the locks; a moment where it is already. install.py does it, once the
# machine has what that needs.
# Usage: install.sh VENV serve|demo|dev [cpu|gpu]; each set holds those before it; a GPU that answers decides.
set -euo pipefail
venv=$1 set=$2 platform=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=requirements/system.sh
. "$here/system.sh"

# torch's compiler cannot be given a path with a space: there, VENV is a link, and the environment is in the cache folder.
place=$(cd "$(dirname "$venv")" && pwd -P)
if [[ $place == *" "* ]]; then
  if [ ! -L "$venv" ]; then
    real=${XDG_CACHE_HOME:-$HOME/.cache}/tenantry/venv-$(sha256sum <<<"$place" | cut -c1-12)
    [[ $real != *" "* ]] || {
      echo "setup: torch's compiler takes no path with a space, and both $place and $real have one." >&2
      echo "       Set XDG_CACHE_HOME to a folder without, for the environment." >&2
      exit 1
    }
    rm -rf "$venv" && ln -s "$real" "$venv"
  fi
  mkdir -p "$(readlink "$venv")"
fi

platform=${platform:-$(find_platform)}
if "$venv/bin/python" "$here/install.py" --check "$venv" "$set" "$platform" 2>/dev/null; then exit 0; fi

# An environment keeps its Python; a new one takes the one that is named, or what PATH has.
named=${PYTHON:-python3}
candidates=(${PYTHON:+"$PYTHON"} "$venv/bin/python")
[ -n "${PYTHON:-}" ] || candidates+=(python3 python3.11)
python=$(find_python "${candidates[@]}") || true
missing=$(missing_packages "$platform" "$python")
if [ -z "$python" ] && { [ -n "${PYTHON:-}" ] || command -v python3 >/dev/null; }; then
  echo "setup: Tenantry runs on Python 3.11 only; $named is $("$named" -V 2>/dev/null || echo "no Python")." >&2
  echo "       Name one that is 3.11: PYTHON=/path/to/python3.11 make setup" >&2
  missing=$(grep -v ^python <<<"$missing") || true
fi
if [ -n "$missing" ]; then
  echo "setup: this machine lacks" >&2
  awk -F'\t' '{printf "         %-16s %s\n", $1, $2}' <<<"$missing" >&2
  if command -v apt-get >/dev/null; then
    sudo=$([ "$(id -u)" = 0 ] || echo "sudo ")
    echo "       Install it with this line, then run the same again:" >&2
    echo "       ${sudo}apt-get install $(cut -f1 <<<"$missing" | paste -sd' ')" >&2
  else
    echo "       Those are Debian's names; install the packages that your distribution has for it." >&2
  fi
fi
[ -n "$python" ] && [ -z "$missing" ] || exit 1
exec "$python" "$here/install.py" "$venv" "$set" "$platform"
