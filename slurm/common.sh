# What the batch scripts share; sourced by them.
# shellcheck shell=bash
#
# Settings, from the environment that sbatch was called in:
#   ATTRTRAIN_HOME          the attrtrain checkout (default: where sbatch was called)
#   ATTRTRAIN_VENV          virtual environment to use (default: $ATTRTRAIN_HOME/.venv, where there is one)
#   ATTRTRAIN_MAX_RESTARTS  requeues after which a job gives up (default: 100)
#   ATTRTRAIN_LOCAL_DISK    folder on each node's own disk to copy shards to before training (default: none)

: "${ATTRTRAIN_HOME:=$SLURM_SUBMIT_DIR}"
: "${ATTRTRAIN_VENV:=$ATTRTRAIN_HOME/.venv}"
: "${ATTRTRAIN_MAX_RESTARTS:=100}"
export ATTRTRAIN_HOME
if [ -d "$ATTRTRAIN_VENV/bin" ]; then
    PATH=$ATTRTRAIN_VENV/bin:$PATH
fi

# A job that was submitted from within another one, be it an element of an array or an interactive session, gets that
# one's variables where SLURM has none to set for this job. Its own record tells which those are.
record=" $(scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null | grep "^JobId=$SLURM_JOB_ID " || true)"
recorded() { [[ $record =~ \ $1=([^\ ]+) ]]; }
if recorded JobId; then
    recorded ArrayTaskId || unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID
    if recorded Restarts; then SLURM_RESTART_COUNT=${BASH_REMATCH[1]}; fi
    if [ -n "${SLURM_NTASKS:-}" ] && recorded NumTasks; then export SLURM_NTASKS=${BASH_REMATCH[1]}; fi
    if recorded MinMemoryNode && [ "${BASH_REMATCH[1]}" != 0 ]; then unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU; fi
    if recorded MinMemoryCPU; then unset SLURM_MEM_PER_NODE SLURM_MEM_PER_GPU; fi # srun refuses two of them
fi

# What SLURM's commands are to call this job: one element of an array has the array's own number, by which they would
# take all of them.
job=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi

say() {
    echo "$(date '+%F %T') job $job: $*" >&2
}

die() {
    say "error: $*"
    exit 2
}

restarts=${SLURM_RESTART_COUNT:-0} # not set in the first run
say "${SLURM_JOB_NAME:-} on $SLURM_JOB_NODELIST, restart $restarts of at most $ATTRTRAIN_MAX_RESTARTS"

if ((${SLURM_GPUS_ON_NODE:-0} == 0)); then
    export ACCELERATE_USE_CPU=true
    unset SLURM_GPUS_PER_NODE # srun takes its own options from these, and refuses a 0
else
    asked=${SLURM_GPUS_PER_NODE:-} # may name their type: h100:4
    # --gres does not replace the script's own --gpus-per-node=1: steps would see that one GPU alone.
    if [ "${asked##*:}" != "$SLURM_GPUS_ON_NODE" ]; then export SLURM_GPUS_PER_NODE=$SLURM_GPUS_ON_NODE; fi
fi
unset SLURM_CPUS_PER_GPU # steps say how many CPUs a task has

# ---- signals and requeueing ------------------------------------------------------------------------------------------

step='' # pid of the srun that is running
told=0  # how often this script was told to stop

# SLURM's warning before the time limit (#SBATCH --signal) reaches this shell alone. USR1 to srun is passed on to every
# task; TERM to srun would end them.
pass_on() {
    told=$((told + 1))
    say "told to stop"
    if [ -n "$step" ]; then tell "$step"; fi
}
trap pass_on USR1 TERM

# Tells a step to stop, and again every ten seconds until it has ended: what reaches srun before its tasks run is lost,
# and attrtrain does not mind being told twice.
tell() {
    while kill -USR1 "$1" 2>/dev/null; do sleep 10; done &
}

# Runs a command in the background, where traps are answered at once, and returns its exit code; 138 without running it
# when this script was told to stop before.
attend() {
    local code before
    if ((told > 0)); then return 138; fi
    "$@" &
    step=$!
    if ((told > 0)); then tell "$step"; fi # since it was looked at, when there was no step yet
    while :; do
        before=$told
        code=0
        wait "$step" || code=$?
        # A trap ends `wait` early; waiting once more gives the command's own exit code.
        if ((told == before)); then break; fi
    done
    step=''
    return "$code"
}

# Runs a step. When it was stopped on the way, the job goes back into the queue; otherwise its exit code is the job's.
run_or_requeue() {
    local code=0
    attend "$@" || code=$?
    case $code in
        # 85: attrtrain has saved a checkpoint. 138, 143: USR1 or TERM came before it was listening, or was no training.
        85 | 138 | 143) requeue "$code" ;;
        0) say "finished" ;;
        *) say "error: ended with exit code $code; not requeued" ;;
    esac
    exit "$code"
}

# Asks SLURM's controller, and again for a while where that has no answer, as when it stops many jobs at once.
ask() {
    local _
    for _ in 1 2 3 4 5 6; do
        if scontrol "$@"; then return; fi
        sleep 5
    done
    return 1
}

requeue() {
    # A job that is being cancelled, or that SLURM itself is requeueing, is not running any more: leave it alone.
    if [[ " $(ask show job --oneliner "$job")" != *" JobState=RUNNING "* ]]; then
        say "stopped with exit code $1; SLURM decides whether it comes back"
        exit "$1"
    fi
    if ((restarts >= ATTRTRAIN_MAX_RESTARTS)); then
        say "error: stopped after $restarts restarts (ATTRTRAIN_MAX_RESTARTS); not requeued"
        exit "$1"
    fi
    say "stopped with exit code $1; back into the queue"
    trap - USR1 TERM
    # SLURM ends this script as part of it; a script that has gone before may count as a job that has ended.
    if ask requeue "$job"; then
        sleep 300 &
        wait $!
    fi
    exit "$1"
}

# ---- training --------------------------------------------------------------------------------------------------------

# Whether a YAML file says where the run goes: the first argument, or one behind --config.
names_folder() {
    local word is_file=1
    for word in "$@"; do
        case $word in
            --config) is_file=1 && continue ;;
            --config=*) word=${word#*=} ;;
            *) [ -n "$is_file" ] || continue ;;
        esac
        is_file=''
        if says_folder "$word"; then return; fi
    done
    return 1
}

says_folder() {
    [ -f "$1" ] && awk '/^[^ #]/ { inside = /^run:/ } inside && /[ {,]dir:/ { found = 1 } END { exit !found }' "$1"
}

# Trains with one task a GPU, or, in a job without GPUs, with one process for each of its tasks on the CPU.
train() {
    local nodes=$SLURM_JOB_NUM_NODES per_node first
    per_node=${SLURM_GPUS_ON_NODE:-0}
    if ((per_node == 0)); then
        per_node=$((${SLURM_NTASKS:-$nodes} / nodes))
        say "no GPU in this job: training on CPUs"
    fi
    local cpus=$((SLURM_CPUS_ON_NODE / per_node))
    ((cpus > 0)) || die "$per_node processes but $SLURM_CPUS_ON_NODE CPUs on a node; ask for more: --cpus-per-gpu=8"

    # The same folder after a requeue, which keeps the job's id, and another one for every job.
    if [[ " $*" != *" --run.dir"[\ =]* ]] && ! names_folder "$@"; then
        set -- "$@" --run.dir "runs/${SLURM_JOB_NAME:-train}-$SLURM_JOB_ID"
    fi
    if [ -n "${ATTRTRAIN_LOCAL_DISK:-}" ]; then
        stage "$@"
        set -- "$@" ${staged[@]+"${staged[@]}"}
    fi

    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus}
    local world=$((nodes * per_node))
    local launch=(srun --ntasks="$world" --ntasks-per-node="$per_node" --cpus-per-task="$cpus")
    # Every process sees all the job's CPUs of its node, and takes its part, as it does with GPUs, by LOCAL_RANK. GPUs
    # are unbound by default; saying --gpu-bind=none leaves several tasks with none at all in SLURM 22.05.
    launch+=(--cpu-bind=none)
    # Ranks leave a few moments apart, and the last one after the report is written. One that died takes the others
    # along through attrtrain's own time-out; srun ends what is left after that, whatever the cluster's defaults.
    launch+=(--kill-on-bad-exit=0 --wait=900)
    if ((world > 1)); then
        first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
        export MASTER_ADDR=${MASTER_ADDR:-$first}
        # Jobs that share a node must not share a port; below the range that outgoing connections use.
        export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
        export WORLD_SIZE=$world LOCAL_WORLD_SIZE=$per_node
        # shellcheck disable=SC2016 # these expand in each task
        launch+=(bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$@"' rank)
    fi
    run_or_requeue "${launch[@]}" python -m attrtrain.train "$@"
}

# Copies the shard folders among train's arguments to each node's own disk, once a node, and sets `staged` to the flag
# that names the copies. Without room there the job reads the shared folders: slower, and the same run.
stage() {
    staged=()
    local folders=() word named='' taking='' folder
    for word in "$@"; do
        case $word in # a later --data.shards takes the place of an earlier one; --data.shards+ adds to it
            --data.shards) folders=() named=1 taking=1 ;;
            --data.shards=*) folders=("${word#*=}") named=1 taking='' ;;
            --data.shards+) taking=1 ;;
            --data.shards+=*) folders+=("${word#*=}") taking='' ;;
            --*) taking='' ;;
            *) if [ -n "$taking" ]; then folders+=("$word"); fi ;;
        esac
    done
    if [ -z "$named" ] || ((${#folders[@]} == 0)); then
        say "not copied to $ATTRTRAIN_LOCAL_DISK: no --data.shards among the arguments"
        return
    fi
    for folder in "${folders[@]}"; do
        if [ ! -f "$folder/manifest.json" ]; then
            say "not copied to $ATTRTRAIN_LOCAL_DISK: $folder is no folder of finished shards"
            return
        fi
    done
    if attend srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 \
        bash "$ATTRTRAIN_HOME/slurm/stage.sh" "$ATTRTRAIN_LOCAL_DISK" "${folders[@]}"; then
        staged=(--data.shards)
        for folder in "${folders[@]}"; do
            staged+=("$ATTRTRAIN_LOCAL_DISK/attrtrain-$UID/$(sha256sum <"$folder/manifest.json" | cut -c 1-16)")
        done
    else
        say "warning: shards were not copied to every node's $ATTRTRAIN_LOCAL_DISK; reading the shared folder"
    fi
}
