#!/usr/bin/env bash
# Make an environment and run the tests in it; arguments go to pytest.
#
#   bash scripts/test.sh [PYTEST_ARGUMENTS]
#
# PADDLE=3.2.2 tests another Paddle than the newest, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${PADDLE:-}" ]; then
  VENV=${VENV:-.venv-paddle-$PADDLE}
  PIP_CONSTRAINT=$(mktemp)
  trap 'rm -f "$PIP_CONSTRAINT"' EXIT
  export PIP_CONSTRAINT
  echo "paddlepaddle==$PADDLE" >"$PIP_CONSTRAINT"
fi
VENV=${VENV:-.venv-test}
. scripts/_environment.sh
if [ -n "${PADDLE:-}" ]; then
  make_environment cpu,dev
else
  make_environment cpu,onnx,openvino,demo,dev
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
fi
"$VENV/bin/python" -m pytest "$@"
