# What must a machine have before the environment can be made? Sourced by install.sh, which asks for what is missing,
# and by .ci/run, which installs it. The Debian packages of README's one line; tests compare the two.

# The platform of this machine: gpu where one answers.
find_platform() {
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then echo gpu; else echo cpu; fi
}

# The interpreter to use: the first of the arguments that is a Python 3.11.
find_python() {
  local candidate
  for candidate in "$@"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Debian packages that are missing for PLATFORM and PYTHON (empty: there is none), one a line with a tab and the reason.
missing_packages() {
  local platform=$1 python=$2 prefix=python3
  [[ $python != *python3.11 ]] || prefix=python3.11  # found by that name: python3 is another version
  local headers='import os, sysconfig as s; raise SystemExit(not os.path.isfile(s.get_path("include") + "/Python.h"))'
  local numa='import ctypes; ctypes.CDLL("libnuma.so.1")'
  command -v make >/dev/null || printf 'make\truns the tasks\n'
  command -v gcc >/dev/null && command -v g++ >/dev/null ||
    printf 'g++\tcompiles kernels at start and at the first request\n'
  [ -n "$python" ] || printf 'python3\truns everything; 3.11 it must be\n'
  { [ -n "$python" ] && "$python" -c 'import venv, ensurepip' 2>/dev/null; } ||
    printf '%s-venv\tmakes the environment\n' "$prefix"
  { [ -n "$python" ] && "$python" -c "$headers" 2>/dev/null; } ||
    printf '%s-dev\tPython.h, which compiled kernels include\n' "$prefix"
  if [ "$platform" = cpu ]; then
    { [ -n "$python" ] && "$python" -c "$numa" 2>/dev/null; } || PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q libnuma.so.1 ||
      printf 'libnuma1\tvLLM for CPUs is linked against it\n'
  fi
}
