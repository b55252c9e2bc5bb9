#!/usr/bin/env bash
# Segment images, a video or a camera with the best weights of a training run.
#
#   bash scripts/predict.sh MODEL IMAGES [FLAGS OF liteseg predict]
#
# IMAGES is an image, a folder, a list, a video or camera:0. Results are in output/MODEL/predicted.
set -euo pipefail
. scripts/_model.sh
need_model "$0" "$@"
exec liteseg predict --config "$config" --model_path "$weights" \
  --image_path "${2:?which images?}" --save_dir "$run/predicted" "${@:3}"
