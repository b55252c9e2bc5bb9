#!/usr/bin/env bash
# Write constraints/paddle-VERSION.txt: one release of each package, for Python 3.9 to 3.12.
#
#   pip install uv && bash scripts/constraints.sh             keeps what still fits
#   pip install uv && bash scripts/constraints.sh --upgrade   takes the newest releases
#
# scripts/_environment.sh, and so CI, installs from these files.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_PYTHON_DOWNLOADS=never
# Without the first and the last, the resolver takes older releases of them for newer ones of others.
# setuptools 82 and newer have no pkg_resources, which older packages import.
kept=$'paddleseg==2.8.0\nsetuptools==80.9.0'

# constrain PADDLE EXTRA...
constrain() {
  local paddle=$1 extras=() extra
  for extra in "${@:2}"; do extras+=(--extra "$extra"); done
  printf '%s\n' "paddlepaddle==$paddle" "$kept" |
    uv pip compile setup.py --universal --python-version 3.9 "${extras[@]}" \
      --constraints - --no-header --no-annotate "${options[@]}" \
      --output-file "constraints/paddle-$paddle.txt" >/dev/null
}

options=("$@")
mkdir -p constraints
# Not the extra ncnn, which has no constraints yet.
kept+=$'\npaddle2onnx==2.1.0' constrain 3.3.1 \
  cpu onnx openvino coco geo tiff demo serve safetensors ray dev
for paddle in 3.2.2 3.0.0 2.6.2; do constrain "$paddle" cpu dev; done
