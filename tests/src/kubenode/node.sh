#!/usr/bin/env bash
# The first processes of a node, from the network namespace in to the kubelet. Run by kubenode/mod.rs:
#
#   join DIRECTORY KUBELET ARGUMENT...    enter the node's control groups and make its namespaces
#   boot DIRECTORY KUBELET ARGUMENT...    inside, as process 1: mounts, containerd, images, kubelet
#
# Everything here ends with process 1, and nothing of it is seen outside: mounts, /run, /var/lib and /var/log, processes,
# and what the kubelet sets for the whole machine.
set -euo pipefail
stage=$1 directory=$2 kubelet=$3
shift 3

# Version 2 forbids processes in a group that has controllers for its children, so ours stand in a leaf.
join() {
    local group
    while read -r group; do echo $$ >"$group/cgroup.procs"; done <"$directory/cgroups"
    exec unshare --cgroup bash "$0" fork "$directory" "$kubelet" "$@"
}

fork() {
    local group
    while read -r group; do
        if [ -d "$group/init" ]; then echo $$ >"$group/init/cgroup.procs"; fi
    done <"$directory/cgroups"
    exec unshare --pid --fork --kill-child --mount --uts --propagation private \
        bash "$0" boot "$directory" "$kubelet" "$@"
}

mount_cgroups() {
    local top=/sys/fs/cgroup controllers name kind alias
    if ! grep -qv '^0::' /proc/self/cgroup; then
        mount -t cgroup2 cgroup2 "$top"
        return
    fi
    mount -t tmpfs -o mode=755 cgroup "$top"
    while IFS=: read -r _ controllers _; do
        [ -n "$controllers" ] || continue
        name=${controllers#name=} kind=$controllers
        [ "$name" = "$controllers" ] || kind="none,$controllers"
        mkdir "$top/$name"
        mount -t cgroup -o "$kind" cgroup "$top/$name"
        for alias in ${name//,/ }; do [ -e "$top/$alias" ] || ln -s "$name" "$top/$alias"; done
    done </proc/self/cgroup
}

# The kubelet sets these for the machine. It shall set files of the node's own.
shield_sysctls() {
    local name
    mkdir -p "$directory/sysctl"
    for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
        kernel/keys/root_maxbytes; do
        cat "/proc/sys/$name" >"$directory/sysctl/${name//\//.}"
        mount --bind "$directory/sysctl/${name//\//.}" "/proc/sys/$name"
    done
}

boot() {
    mount --make-rshared /
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount_cgroups
    shield_sysctls
    mount -t tmpfs -o mode=755 run /run
    mount --bind "$directory/lib" /var/lib
    mount --bind "$directory/log" /var/log
    hostname "$(basename "$directory")"

    containerd --config "$directory/containerd.toml" >>"$directory/containerd.log" 2>&1 &
    local containerd=$! image
    until ctr version >/dev/null 2>&1; do
        kill -0 "$containerd" || exit 1
        sleep 0.1
    done
    while read -r image; do ctr --namespace k8s.io images import "$image"; done <"$directory/images"
    "$kubelet" "$@" >>"$directory/kubelet.log" 2>&1 &
    # Neither should end. When one does, this process does, and with it the node.
    local status=0
    wait -n || status=$?
    echo "containerd or the kubelet ended with $status"
    exit 1
}

"$stage" "$@"
