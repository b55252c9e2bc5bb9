# shellcheck shell=bash
# The virtual environment of the scripts in this folder, which source this file.
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
CONSTRAINTS=${CONSTRAINTS:-constraints/paddle-3.3.1.txt}

say() { printf '\n== %s\n' "$*"; }

cpus() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1; }

# make_environment EXTRAS: creates $VENV with these extras and this checkout, unless it is up to date.
# It installs the releases of $CONSTRAINTS.
make_environment() {
  local wanted
  wanted=$(cat setup.cfg "$CONSTRAINTS" && echo "$1")
  if [ -x "$VENV/bin/liteseg" ] && [ "$(cat "$VENV/.liteseg" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  "$PYTHON" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' || {
    echo "error: $PYTHON is $("$PYTHON" -V), but Python 3.9 to 3.12 is required; set PYTHON=python3.11" >&2
    exit 1
  }
  say "Installing into $VENV ($1); this takes a minute or two"
  "$PYTHON" -m venv "$VENV" || {
    echo "error: $PYTHON cannot create a virtual environment; on Debian, install python3-venv" >&2
    exit 1
  }
  # Where a caller tests the status of this function, `set -e` has no effect in it.
  "$VENV/bin/python" -m pip install -qq --upgrade pip || return
  # Python compiles what it imports anyway; compiling all of it here would double the time.
  "$VENV/bin/python" -m pip install -qq --no-compile -c "$CONSTRAINTS" -e ".[$1]" || return
  echo "$wanted" >"$VENV/.liteseg"
}
