#!/usr/bin/env bash
# Export the best weights of a training run for deployment, into output/MODEL/exported.
#
#   bash scripts/export.sh MODEL [FLAGS OF liteseg export]
set -euo pipefail
. scripts/_model.sh
need_model "$0" "$@"
exec liteseg export --config "$config" --model_path "$weights" \
  --save_dir "$run/exported" "${@:2}"
