#!/usr/bin/env bash
# Create an environment and run the tests in it.
#
#   bash scripts/test.sh [PYTEST_ARGUMENTS]
#   bash scripts/test.sh tests/export -k name
#   bash scripts/test.sh -m smoke
#
# PADDLE=3.2.2 tests with that Paddle instead of the newest, in a separate environment.
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
