#!/usr/bin/env bash
# Train, evaluate, export and run PP-LiteSeg on drawn street scenes, in minutes on a CPU. Creates an
# environment, draws the data set, and ends with a picture of the result. Requires Python 3.9 to 3.12
# with pip. Uses an NVIDIA GPU if Paddle's GPU wheel runs on it.
#
#   bash scripts/quickstart.sh [OUTPUT_FOLDER]
#
# PYTHON=python3.11 selects the interpreter, VENV=folder the environment to create or use.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-output/quickstart}
. scripts/_environment.sh

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
  device=gpu
else
  device=cpu
fi
make_environment "$device"
if [ "$device" = gpu ] && ! "$VENV/bin/python" -c 'import zlib, paddle
paddle.set_device("gpu"); (paddle.ones([2, 2]) @ paddle.ones([2, 2])).numpy()' >/dev/null 2>&1; then
  say "Paddle's GPU wheel from the index does not run on this GPU; continuing on the CPU"
  device=cpu
  "$VENV/bin/python" -m pip uninstall -qq --yes paddlepaddle-gpu paddlepaddle # they share files
  make_environment cpu
fi

config=configs/pp_liteseg/pp_liteseg_stdc1_toy_street_256x192.yml
started=$SECONDS
say "Drawing street scenes into data/toy_street"
"$VENV/bin/liteseg" data toy data/toy_street

mkdir -p "$output"
rm -rf "$output"/iter_*  # checkpoints of an earlier run
say "Training PP-LiteSeg-T from random weights on $device (a few minutes)"
train=(train --config "$config" --device "$device" --seed 1
       --save_dir "$output" --save_interval 1000 --log_iters 10)
if [ "$device" = cpu ] && [ "$(uname)" = Linux ] && [ "$(cpus)" -ge 2 ]; then
  # Two processes: one process uses a single core for most of a step.
  "$VENV/bin/liteseg" launch --nproc_per_node 2 "${train[@]}" --batch_size 4
else
  "$VENV/bin/liteseg" "${train[@]}" --batch_size 8
fi 2>"$output/stderr.log" | grep --line-buffered '\[TRAIN\]' ||
  { tail -5 "$output/stderr.log" "$output"/log/workerlog.0 2>/dev/null; exit 1; }
weights=$(printf "%s\n" "$output"/iter_*/model.pdparams | sort -V | tail -1)

say "Evaluating on held-out scenes"
"$VENV/bin/liteseg" val --config "$config" --model_path "$weights" --device "$device" --json \
  >"$output/metrics.json" 2>"$output/val.log" || { tail -3 "$output/val.log"; exit 1; }

say "Exporting, and running the exported model with Paddle Inference"
"$VENV/bin/liteseg" export --config "$config" --model_path "$weights" \
  --save_dir "$output/exported" >"$output/export.log" 2>&1 || { tail -3 "$output/export.log"; exit 1; }
"$VENV/bin/liteseg" infer --config "$output/exported" --image_path data/toy_street/val.txt \
  --save_dir "$output/predictions" --json >"$output/infer.json" 2>"$output/infer.log" ||
  { tail -3 "$output/infer.log"; exit 1; }

"$VENV/bin/python" scripts/quickstart_summary.py "$output" data/toy_street
echo "  took          $((SECONDS - started)) s after the install"
