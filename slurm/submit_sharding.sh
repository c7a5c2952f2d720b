#!/usr/bin/env bash
# Submits sharding as a job array of PARTS elements, and the merge that follows when all of them have succeeded.
#
#     PARTS=16 slurm/submit_sharding.sh --labels ... --instances ... --images ... --out shards/coco
#
# Arguments are those of `attrtrain shard`. Options of sbatch go by its own variables: SBATCH_PARTITION, SBATCH_ACCOUNT,
# SBATCH_TIMELIMIT. Prints the merge's job id, for --dependency=afterok:ID.
set -euo pipefail
script=$(dirname "${BASH_SOURCE[0]}")/shard.sbatch

array=$(sbatch --parsable --array="0-$((${PARTS:-16} - 1))" "$script" "$@")
array=${array%%;*} # on a federation: job;cluster
# Without --kill-on-invalid-dep the merge would wait for ever for a part that has failed.
merge=$(sbatch --parsable --job-name=merge --output=%x-%j.log --dependency="afterok:$array" --kill-on-invalid-dep=yes \
    "$script" "$@" --merge) || {
    echo "the merge was not submitted: parts, job $array, are cancelled" >&2
    scancel "$array"
    exit 1
}
echo "parts: job $array; merge: job ${merge%%;*}" >&2
echo "${merge%%;*}"
