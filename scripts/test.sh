#!/usr/bin/env bash
# Make an environment and run the tests in it; arguments go to pytest.
#
#   bash scripts/test.sh                          all but the slow ones, which .ci/run runs too
#   bash scripts/test.sh tests/models -k uafm     a part
#   bash scripts/test.sh -m slow                  the slow ones
#   bash scripts/test.sh -n 0 --pdb tests/losses  one after the other, with a debugger
#
# PADDLE=3.2.2 tests another Paddle than the newest, in an environment of its own: a release that
# constraints/ has a file for. EXTRAS=ray installs further extras.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${PADDLE:-}" ]; then
  VENV=${VENV:-.venv-paddle-$PADDLE}
  CONSTRAINTS=constraints/paddle-$PADDLE.txt
  [ -f "$CONSTRAINTS" ] || {
    echo "error: there is no $CONSTRAINTS; choose one of $(cd constraints && echo *)" >&2
    exit 1
  }
fi
VENV=${VENV:-.venv-test}
# Otherwise each of some 300 processes would compile the package and the tests again.
unset PYTHONDONTWRITEBYTECODE
. scripts/_environment.sh
if [ -n "${PADDLE:-}" ]; then
  make_environment cpu,dev
else
  make_environment "cpu,onnx,openvino,ncnn,coco,geo,tiff,demo,serve,dev${EXTRAS:+,$EXTRAS}"
  # Without PyTorch, on which it depends.
  "$VENV/bin/python" -m pip show -qq pnnx || "$VENV/bin/python" -m pip install -qq --no-deps pnnx
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
fi
[ $# -gt 0 ] || set -- -m "not slow"
# One more than processors, as some tests wait. A worker takes about 2 GB. With worksteal, tests of
# a file share what they make, mostly.
workers=$(($(cpus) + 1))
"$VENV/bin/python" -m pytest -n $((workers < 8 ? workers : 8)) --dist worksteal "$@"
