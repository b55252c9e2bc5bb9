#!/usr/bin/env bash
# Evaluate the best weights of a training run.
#
#   CUDA_VISIBLE_DEVICES=0 bash scripts/val.sh MODEL [FLAGS OF liteseg val]
#   bash scripts/val.sh MODEL --aug_eval --flip_horizontal --scales 0.75 1.0 1.25
set -euo pipefail
. scripts/_model.sh
need_model "$0" "$@"
exec liteseg val --config "$config" --model_path "$weights" --num_workers 3 "${@:2}"
