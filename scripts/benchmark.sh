#!/usr/bin/env bash
# Time the export of a released configuration. Speed does not depend on the weights: none are needed.
#
#   bash scripts/benchmark.sh MODEL [FLAGS OF liteseg benchmark]
#   bash scripts/benchmark.sh MODEL --width 2048 --height 1024 --against paddleseg
set -euo pipefail
. scripts/_model.sh
need_model "$0" "$@"
exec liteseg benchmark --config "$config" "${@:2}"
