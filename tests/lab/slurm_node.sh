#!/usr/bin/env bash
# A Slurm cluster of one node, on this machine, to test with: tests/slurm_node.sh start FOLDER | stop FOLDER
# Needs root and Debian's packages slurm-wlm and munge. Its configuration, spool and logs lie in FOLDER.
set -eu
action=${1:?start or stop} folder=${2:?a folder}
conf=$folder/slurm.conf

stop() {
  for _ in $(seq 50); do  # until its last jobs are gone
    [ -n "$(SLURM_CONF=$conf squeue -h 2>/dev/null)" ] || break
    sleep 0.2
  done
  for name in slurmctld slurmd munged; do
    if [ -f "$folder/$name.pid" ]; then
      kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    fi
  done
}

start() {
  mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
  folder=$(cd "$folder" && pwd)
  chmod 700 "$folder/munge"
  head -c 1024 /dev/urandom >"$folder/munge/key"
  chmod 400 "$folder/munge/key"
  # As root, munged accepts a folder of root's; its socket must be reached through open ones.
  munged --force --key-file="$folder/munge/key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge/seed"
  cat >"$conf" <<END
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
  SLURM_CONF=$conf slurmctld -f "$conf"
  SLURM_CONF=$conf slurmd -f "$conf" -N "$(hostname)"
  for _ in $(seq 60); do
    if [ "$(SLURM_CONF=$conf sinfo -h -o %T 2>/dev/null)" = idle ]; then
      exit 0
    fi
    sleep 0.5
  done
  echo "the node did not come up: see the logs in $folder" >&2
  stop
  exit 1
}

"$action"
