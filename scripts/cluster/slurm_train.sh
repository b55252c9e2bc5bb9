#!/usr/bin/env bash
# Train a released configuration on the nodes of a SLURM job, one launcher per node. Change the #SBATCH
# lines to your cluster, and start it in the root of the checkout, in the environment of liteseg:
#
#   sbatch scripts/cluster/slurm_train.sh [FLAGS OF liteseg launch] MODEL [FLAGS OF liteseg train]
#
# Five minutes before the time limit, training writes a checkpoint, and the job is queued again. So it is
# after preemption and after the loss of a node. Each start resumes from the newest checkpoint in
# output/MODEL, which all nodes must see.
#SBATCH --job-name=liteseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=liteseg-%j.log
set -euo pipefail
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  sed -n '2,/^[^#]/{/^#SBATCH/d;s/^#$//p;s/^# //p}' "$0"
  exit 0
fi
: "${SLURM_JOB_ID:?start it with sbatch}"
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
master=${hosts%%$'\n'*}:$((20000 + SLURM_JOB_ID % 20000)) # two jobs of a node have two ports

# SLURM_NODEID is each task's own. A task that fails ends the others: they would wait for it.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=1 bash -c '
  exec bash scripts/train.sh --nnodes "$SLURM_JOB_NUM_NODES" --master "$0" --rank "$SLURM_NODEID" "$@"' \
  "$master" "$@" --resume_model auto &
step=$!

requeue() {
  echo "The time is nearly over: writing a checkpoint, then queueing job $SLURM_JOB_ID again"
  kill -TERM "$step"
  wait "$step" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue USR1
wait "$step"
