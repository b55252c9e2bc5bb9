#!/usr/bin/env bash
# Train and evaluate the released configurations, all eight or those that are named, and print the
# tables of PaddleSeg's page with the results. What is finished is not done again: start the script
# once more after an interruption.
#
#   bash scripts/reproduce.sh [FLAGS OF liteseg launch] [MODEL...]
#
# It needs data/cityscapes and data/camvid (docs/data.md), and days of GPU time for all models.
set -euo pipefail
. scripts/_model.sh
launch=()
models=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) need_model "$0" --help ;;
    --dry-run)
      echo "error: reproduce.sh has no --dry-run; train.sh has: bash scripts/train.sh --dry-run MODEL" >&2
      exit 2
      ;;
    --*=*) launch+=("$1") && shift ;;
    --*) launch+=("$1" "${2:?the value of $1}") && shift 2 ;;
    *) models+=("$1") && shift ;;
  esac
done
if [ ${#models[@]} = 0 ]; then
  for path in configs/pp_liteseg/*_{160k,10k}.yml; do
    models+=("$(basename "$path" .yml)")
  done
fi

# evaluate NAME FLAGS: writes output/MODEL/NAME.json, unless it is there.
evaluate() {
  local result=$run/$1.json
  if [ ! -f "$result" ]; then
    bash scripts/val.sh "$model" --config "$evaluated" --json "${@:2}" >"$result.part"
    mv "$result.part" "$result"
  fi
}

for name in "${models[@]}"; do
  need_model "$0" "$name"
  mkdir -p "$run"
  evaluated=$config
  [[ $model != *camvid* ]] || evaluated=configs/pp_liteseg/${model}_for_test.yml
  scale=1.0
  [[ ! $model =~ _scale([0-9.]+)_ ]] || scale=${BASH_REMATCH[1]}
  if [ ! -f "$run/trained" ]; then
    bash scripts/train.sh "${launch[@]}" "$model" --resume_model auto
    touch "$run/trained"
  fi
  evaluate val
  evaluate val_flip --aug_eval --scales "$scale" --flip_horizontal
  if [ "$scale" = 1.0 ]; then # the released tables have no others
    evaluate val_ms_flip --aug_eval --scales 0.75 1.0 1.25 --flip_horizontal
  fi
done
python scripts/reproduction_table.py output
