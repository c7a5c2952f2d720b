#!/usr/bin/env bash
# A SLURM cluster of two nodes on one machine, for tests; conftest.py starts it.
#
#     unshare --mount --net --pid --fork --kill-child=KILL --mount-proc cluster.sh FOLDER
#
# This script is process 1 of a PID namespace. Daemons, job steps, network and mounts live in its namespaces: however it
# ends, the kernel ends and removes all of them. Outside, only FOLDER is written: configuration, state and logs.
#
#     this namespace, 10.77.0.1: munged, slurmctld ── br0 ──┬── n1, 10.77.0.11: slurmd
#                                                           └── n2, 10.77.0.12: slurmd
set -euo pipefail
folder=$1
nodes=(n1 n2)
mkdir -p "$folder"/{etc,state,log}

cat >"$folder/etc/slurm.conf" <<CONF
ClusterName=attrtrain
SlurmctldHost=controller(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired: two minutes by default.
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
# No cgroups; nodes claim more than their share of the machine.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
MpiDefault=none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
# Jobs start at once. The machine may be busy: be patient with messages and nodes.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MessageTimeout=60
SlurmdTimeout=300
KillWait=30
CompleteWait=0
# urgent takes nodes from batch, whose jobs get SIGTERM, half a minute, and are requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=batch Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=30 DefaultTime=10
PartitionName=urgent Nodes=n[1-2] PriorityTier=2 PreemptMode=OFF DefaultTime=10
NodeName=n1 NodeAddr=10.77.0.11 CPUs=16 RealMemory=16000 Gres=gpu:2
NodeName=n2 NodeAddr=10.77.0.12 CPUs=16 RealMemory=16000 Gres=gpu:2
CONF
echo "Name=gpu File=/run/gpu[0-1]" >"$folder/etc/gres.conf"
printf '%s\n' "127.0.0.1 localhost" "10.77.0.1 controller" "10.77.0.11 n1" "10.77.0.12 n2" >"$folder/hosts"
# Nodes reach no name server; without this each unknown address costs a time-out.
{ grep -v '^hosts:' /etc/nsswitch.conf && echo "hosts: files"; } >"$folder/nsswitch.conf"
(umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")

mkdir -p /etc/slurm
mount --bind "$folder/etc" /etc/slurm
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/nsswitch.conf" /etc/nsswitch.conf
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/munge
mknod /run/gpu0 c 1 3 && mknod /run/gpu1 c 1 3 # stand-ins for GPUs, of the kind of /dev/null

ip link set lo up
ip link add br0 type bridge
ip addr add 10.77.0.1/24 dev br0
ip link set br0 up
for i in "${!nodes[@]}"; do
    node=${nodes[i]}
    ip netns add "$node"
    ip link add eth0 netns "$node" type veth peer name "$node"
    ip link set "$node" master br0 up
    ip -n "$node" addr add "10.77.0.1$((i + 1))/24" dev eth0
    ip -n "$node" link set lo up
    ip -n "$node" link set eth0 up
done

exec </dev/null
munged --foreground --force --key-file="$folder/munge.key" --seed-file="$folder/munge.seed" >"$folder/log/munged" 2>&1 &
until [ -S /run/munge/munge.socket.2 ]; do sleep 0.05; done
unshare --uts sh -c 'hostname controller; exec slurmctld -D' >"$folder/log/slurmctld" 2>&1 &
for node in "${nodes[@]}"; do
    # shellcheck disable=SC2016
    nsenter --net="/run/netns/$node" unshare --uts sh -c 'hostname "$1"; exec slurmd -D -N "$1"' sh "$node" \
        >"$folder/log/slurmd-$node" 2>&1 &
done
wait -n # a daemon that ends takes the cluster down, so that tests fail at once
