# The node's first process. What it starts lives in namespaces of its own, so that the kernel ends all of it
# with this process: daemons, containers, mounts, and with them the pods' network namespaces.
#
#   node.sh join NAME ...     on the machine: puts itself into cgroups NAME, and goes on as
#   node.sh inside FOLDER     in namespaces of its own: containerd, the images, and the kubelet
#
# Folder and programs come as variables, which node.rs sets.
set -eu

fail() {
    echo "node: $*"
    exit 1
}

# Cgroups are the one thing that the kernel does not take away by itself. So all of the node's are below one,
# in each hierarchy, which whoever removes the folder removes too.
join() {
    name=$1
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        mkdir "/sys/fs/cgroup/$name" "/sys/fs/cgroup/$name/node"
        echo $$ >"/sys/fs/cgroup/$name/node/cgroup.procs"
        for controller in $(cat "/sys/fs/cgroup/$name/cgroup.controllers"); do
            echo "+$controller" >"/sys/fs/cgroup/$name/cgroup.subtree_control" || true
        done
    else
        for hierarchy in /sys/fs/cgroup/*/; do
            [ -f "$hierarchy/cgroup.procs" ] || continue
            mkdir "$hierarchy/$name"
            if [ -f "$hierarchy/$name/cpuset.cpus" ]; then
                cat "$hierarchy/cpuset.cpus" >"$hierarchy/$name/cpuset.cpus"
                cat "$hierarchy/cpuset.mems" >"$hierarchy/$name/cpuset.mems"
            fi
            echo $$ >"$hierarchy/$name/cgroup.procs"
        done
    fi
    exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc --cgroup \
        /bin/sh "$0" inside "$name"
}

# Shows only the node's own cgroups, as if they were the machine's.
own_cgroups() {
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        mount -t cgroup2 cgroup2 "$NODE_FOLDER/cgroup"
        mount --move "$NODE_FOLDER/cgroup" /sys/fs/cgroup
        return
    fi
    hierarchies=$(awk -F: '$2 != "" { print $2 }' /proc/self/cgroup)
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for hierarchy in $hierarchies; do
        folder="/sys/fs/cgroup/${hierarchy#name=}"
        mkdir "$folder"
        case $hierarchy in
        name=*) mount -t cgroup -o "none,$hierarchy" cgroup "$folder" ;;
        *) mount -t cgroup -o "$hierarchy" cgroup "$folder" ;;
        esac
    done
}

inside() {
    # What containerd, the CNI plugins and the kubelet keep in fixed places is the node's own.
    for folder in /run /var/lib /var/log; do
        mount -t tmpfs -o mode=755 node "$folder"
    done
    own_cgroups
    mkdir -p /run/containerd /var/lib/cni /var/log/containers

    "$NODE_CONTAINERD" --config "$NODE_FOLDER/containerd.toml" >"$NODE_FOLDER/containerd.log" 2>&1 &
    containerd=$!
    socket="$NODE_FOLDER/containerd.sock"
    ctr() { "$NODE_CTR" --address "$socket" --namespace k8s.io "$@"; }
    attempts=0
    until ctr version >/dev/null 2>&1; do
        kill -0 "$containerd" || fail "containerd ended: $(tail -n 5 "$NODE_FOLDER/containerd.log")"
        attempts=$((attempts + 1))
        [ "$attempts" -lt 300 ] || fail "containerd does not answer"
        sleep 0.1
    done
    for image in "$NODE_FOLDER"/images/*.tar; do
        ctr images import "$image" || fail "cannot import $image"
    done

    mkfifo "$NODE_FOLDER/orders"
    obey <>"$NODE_FOLDER/orders" &
    while :; do
        "$NODE_KUBELET" --config="$NODE_FOLDER/kubelet.yaml" --kubeconfig="$NODE_FOLDER/kubelet.kubeconfig" \
            --hostname-override="$NODE_NAME" --root-dir="$NODE_FOLDER/kubelet" \
            --cert-dir="$NODE_FOLDER/certificates" &
        echo $! >"$NODE_FOLDER/kubelet.pid"
        # The first process of a PID namespace buries all orphans, and a shell that waits does.
        wait $! || true
        [ -e "$NODE_FOLDER/restarting" ] || fail "the kubelet ended"
        rm "$NODE_FOLDER/restarting"
    done
}

# Does what is written to the pipe, a line each.
obey() {
    while read -r order; do
        case $order in
        restart-kubelet)
            : >"$NODE_FOLDER/restarting"
            kill -s KILL "$(cat "$NODE_FOLDER/kubelet.pid")"
            ;;
        *) echo "node: unknown order $order" ;;
        esac
    done
}

"$@"
