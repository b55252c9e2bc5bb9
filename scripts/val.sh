#!/usr/bin/env bash
# Evaluate the best weights of a training run.
#
#   CUDA_VISIBLE_DEVICES=0 bash scripts/val.sh MODEL [FLAGS OF liteseg val]
#   bash scripts/val.sh MODEL --aug_eval --flip_horizontal --scales 0.75 1.0 1.25
set -euo pipefail
model=${1:?which model? a name from configs/pp_liteseg, without .yml}
shift
liteseg val \
  --config "configs/pp_liteseg/$model.yml" \
  --model_path "output/$model/best_model/model.pdparams" \
  --num_workers 3 \
  "$@"
