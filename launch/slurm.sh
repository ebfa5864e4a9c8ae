#!/usr/bin/env bash
# Compresses a cohort on Slurm: a job array, each task of which takes its part of the slides.
#
#   sbatch --array=0-15 launch/slurm.sh SLIDES ENCODER WORKDIR [FLAGS...]
#   sbatch --array=0-15 launch/slurm.sh slides.csv nic_multitask4 runs/mine --config.tiling.mpp=0.5
#
# SLIDES   a table (.csv: slide_id, path[, mpp][, mask]), or a folder of slides
# ENCODER  mean_rgb, nic_bigan, nic_multitask4, a Keras file (.h5), or a workdir with an encoder
# WORKDIR  on a disk that all tasks share
# FLAGS    any of nic_jax.main's, such as --config.compress.batch=256 or --dry_run
#
# Options of sbatch before the script replace those below: --gres=none where there are no GPUs,
# --array=0-63%8 for at most 8 tasks at a time. Published encoders are fetched once: where compute
# nodes have no network, run one --dry_run on the login node first.
#
# Submit it from the project's folder, with the environment active that has nic_jax. Indices start
# at 0 and leave none out: task i of n compresses slides i, i + n, i + 2n, ... What is complete is
# skipped, so the same command goes on after a time limit, with as many tasks as you like.
#
# The exit status of a task is that of its command: 1 if a slide failed (the others were still
# compressed), named with its reason in WORKDIR/failures.csv; 2 if nothing could start.
#
# Then, in one job, train and score. It is to start whatever the tasks' status (afterany, not
# afterok), since one failed slide makes a task's status 1:
#
#   job=$(sbatch --parsable --array=0-15 launch/slurm.sh slides.csv nic_multitask4 runs/mine)
#   sbatch --dependency=afterany:"$job" --gres=gpu:1 --time=12:00:00 --wrap \
#     'python -m nic_jax.main --config=experiments/cohort.py --workdir=runs/mine
#      --stages=classify,evaluate --config.slides=slides.csv --config.encoder=nic_multitask4
#      --config.cohort.label=grade'
#
#SBATCH --job-name=nic-compress
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gres=gpu:1
#SBATCH --time=12:00:00
#SBATCH --output=nic-compress-%A_%a.log

set -euo pipefail

stop() {
  echo "slurm.sh: $1" >&2
  exit 2
}

[[ $# -ge 3 ]] || stop 'usage: sbatch --array=0-N launch/slurm.sh SLIDES ENCODER WORKDIR [FLAGS...]'
slides=$1 encoder=$2 workdir=$3
shift 3
[[ $encoder != --* && $workdir != --* ]] || stop 'SLIDES ENCODER WORKDIR come before any flags'
[[ -e $slides ]] || stop "no table or folder of slides at '$slides' (seen from $PWD)"
[[ -n $encoder ]] || stop 'ENCODER is empty; name one, such as mean_rgb'
[[ -n $workdir ]] || stop 'WORKDIR is empty; name a folder on a disk that all tasks share'
[[ -f experiments/compress.py ]] || stop "$PWD is not the project's folder"

task=${SLURM_ARRAY_TASK_ID:-} count=${SLURM_ARRAY_TASK_COUNT:-}
[[ -n $task && -n $count ]] || stop 'not a task of a job array; submit it with sbatch --array=0-N'
first=${SLURM_ARRAY_TASK_MIN:-0} last=${SLURM_ARRAY_TASK_MAX:-$task}
[[ $first -eq 0 && $last -lt $count && $task -lt $count ]] ||
  stop "task $task of $count: the indices must be 0 to $((count - 1)), --array=0-$((count - 1))"

# Threads that read slides: the cores of the task, not those of the node.
exec python -m nic_jax.main --config=experiments/compress.py --workdir="$workdir" \
  --config.slides="$slides" --config.encoder="$encoder" --config.shard="$task/$count" \
  --config.compress.workers="${SLURM_CPUS_PER_TASK:-0}" "$@"
