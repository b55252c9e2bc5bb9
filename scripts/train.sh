#!/usr/bin/env bash
# Train a released configuration, with the flags of the published models, on all visible GPUs. The
# images of a step are those of the release, however many GPUs there are.
#
#   bash scripts/train.sh [FLAGS OF liteseg launch] MODEL [FLAGS OF liteseg train]
#   CUDA_VISIBLE_DEVICES=0,1 bash scripts/train.sh pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k
#   bash scripts/train.sh --max_restarts 3 MODEL --resume_model auto
#
# MODEL is the name of a file in configs/pp_liteseg, without .yml. Results are in output/MODEL.
set -euo pipefail
. scripts/_model.sh
launch=()
while [[ ${1:-} == --* && $1 != --help ]]; do
  launch+=("$1")
  if [[ $1 != --dry-run && $1 != *=* ]]; then
    launch+=("${2:?the value of $1}")
    shift
  fi
  shift
done
need_model "$0" "$@"
exec liteseg launch "${launch[@]}" train --config "$config" --save_dir "$run" --save_interval 1000 \
  --num_workers 3 --do_eval --use_vdl "${@:2}"
