#!/usr/bin/env bash
# Train a released configuration on several GPUs, with the flags of the published models.
#
#   CUDA_VISIBLE_DEVICES=0,1,2,3 bash scripts/train.sh MODEL [FLAGS OF liteseg train]
#   bash scripts/train.sh pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k
#
# MODEL is the name of a file in configs/pp_liteseg, without .yml.
set -euo pipefail
model=${1:?which model? a name from configs/pp_liteseg, without .yml}
shift
python -m paddle.distributed.launch --log_dir "output/$model/log" "$(command -v liteseg)" train \
  --config "configs/pp_liteseg/$model.yml" \
  --save_dir "output/$model" \
  --save_interval 1000 \
  --num_workers 3 \
  --do_eval \
  --use_vdl \
  "$@"
