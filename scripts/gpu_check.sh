#!/usr/bin/env bash
# Check on a machine with an NVIDIA GPU what of the plugin works there, in at most eight minutes after
# the install. Every check is made, whatever the others give. Results: gpu_check.md and gpu_check.json.
#
#   bash scripts/gpu_check.sh [OUTPUT_FOLDER]             by default output/gpu_check
#   bash scripts/gpu_check.sh --device cpu [OUTPUT_FOLDER]   a rehearsal on the CPU
#
# VENV=folder uses that environment as it is. Otherwise one is made in .venv-gpu, from the package index.
# Its newest GPU wheel of Paddle is 2.6.2; for a newer GPU, install Paddle's own wheel and set VENV.
set -euo pipefail
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  sed -n '2,/^[^#]/{s/^#$//p;s/^# //p}' "$0"
  exit 0
fi
cd "$(dirname "$0")/.."
made=${VENV:-}
VENV=${VENV:-.venv-gpu}
. scripts/_environment.sh
if [ -z "$made" ]; then
  extras=onnx,demo
  if [ "${1:-}" = --device ] && [ "${2:-}" = cpu ]; then
    make_environment "cpu,$extras"
  else
    make_environment "gpu,$extras,tensorrt" || make_environment "gpu,$extras"
    # Both packages hold the module; the one for GPUs must be installed last.
    "$VENV/bin/python" -m pip uninstall -qq --yes onnxruntime || true
    "$VENV/bin/python" -m pip install -qq onnxruntime-gpu || say "onnxruntime-gpu: not installed"
  fi
fi
"$VENV/bin/python" scripts/gpu_check.py "$@"
