# shellcheck shell=bash
# The arguments of the scripts for released models, which source this file.

# need_model SCRIPT [MODEL]: prints the comment at the top of SCRIPT if asked for help; checks MODEL,
# and sets $model, $config, $run, the folder of its files, and $weights, the best ones.
need_model() {
  if [ "${2:-}" = --help ] || [ "${2:-}" = -h ]; then
    sed -n '2,/^[^#]/{s/^#$//p;s/^# //p}' "$1"
    exit 0
  fi
  model=${2:-}
  config=configs/pp_liteseg/$model.yml
  run=output/$model
  weights=$run/best_model/model.pdparams
  [ ! -f "${weights%.pdparams}.safetensors" ] || weights=${weights%.pdparams}.safetensors
  if [ -z "$model" ] || [ ! -f "$config" ]; then
    echo "error: ${model:-no model}: give the name of a file in configs/pp_liteseg, without .yml, and" \
      "start the script in the root of the checkout" >&2
    exit 2
  fi
  export model config run weights
}
