#!/usr/bin/env bash
# Export the best weights of a training run for deployment.
#
#   bash scripts/export.sh MODEL [FLAGS OF liteseg export]
set -euo pipefail
model=${1:?which model? a name from configs/pp_liteseg, without .yml}
shift
liteseg export \
  --config "configs/pp_liteseg/$model.yml" \
  --model_path "output/$model/best_model/model.pdparams" \
  --save_dir "output/$model/exported" \
  "$@"
