# shellcheck shell=bash
# The arguments of the scripts for released models, which source this file.

# need_model SCRIPT [MODEL]: prints the comment at the top of SCRIPT if asked for help; checks MODEL,
# and sets $model, $config and $run, the folder of its files.
need_model() {
  if [ "${2:-}" = --help ] || [ "${2:-}" = -h ]; then
    sed -n '2,/^[^#]/{s/^#$//p;s/^# //p}' "$1"
    exit 0
  fi
  model=${2:-}
  config=configs/pp_liteseg/$model.yml
  run=output/$model
  if [ -z "$model" ] || [ ! -f "$config" ]; then
    echo "error: ${model:-no model}: give the name of a file in configs/pp_liteseg, without .yml, and" \
      "start the script in the root of the checkout" >&2
    exit 2
  fi
  export model config run
}
