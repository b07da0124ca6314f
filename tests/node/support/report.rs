//! What a process sees: a script that writes it down where the kubelet reads it, into the pod's status.

use std::collections::BTreeMap;

/// What a process found, by name.
pub(crate) type Report = BTreeMap<String, String>;

/// Writes a report of what its process is and may. `$LOOK_AT` names more files and folders to look at.
///
/// Whether something can be written is tried, and what the kernel says is kept: without rights a folder is as
/// closed as on a file system that is read-only, and the two must not be taken for one another.
pub(crate) const SCRIPT: &str = r#"
exec >/dev/termination-log
echo "uid=$(id -u)"
echo "gid=$(id -g)"
echo "groups=$(id -G)"
read -r pid rest </proc/self/stat
echo "pid=$pid"
while read -r name value rest; do
    case $name in CapEff: | CapBnd: | NoNewPrivs: | Seccomp:) echo "${name%:}=$value" ;; esac
done </proc/self/status
read -r inside outside count </proc/self/uid_map
[ "$inside $outside" = "0 0" ] && echo "users=the machine's" || echo "users=its own"
read -r app_armor </proc/self/attr/current || app_armor=none
echo "AppArmor=${app_armor:-none}"
[ -e /var/run/secrets ] && echo "secrets=yes" || echo "secrets=no"
[ -s /var/run/secrets/kubernetes.io/serviceaccount/token ] && echo "token=yes" || echo "token=no"
grep -q " /proc/sys proc ro" /proc/mounts && echo "/proc/sys=read-only" || echo "/proc/sys=as root likes"
for name in net.ipv4.ip_unprivileged_port_start kernel.shm_rmid_forced; do
    echo "$name=$(cat "/proc/sys/$(echo "$name" | sed 's,\.,/,g')")"
done
for path in / /tmp $LOOK_AT; do
    said=$(touch "${path%/}/probe" 2>&1) && said=yes
    echo "write $path=${said##*: }"
    echo "owner $path=$(ls -ldn "$path" | awk '{ print $1, $3, $4 }')"
    echo "kind $path=$(awk -v path="$path" '$2 == path { kind = $3 } END { print kind }' /proc/mounts)"
done
said=$(chmod 700 /tmp/probe 2>&1) && said=yes
echo "chmod=${said##*: }"
"#;

/// Goes on until it is asked to end.
pub(crate) const WAIT: &str = "trap 'exit 0' TERM INT; while :; do sleep 1 & wait $!; done";

/// Reads a report.
pub(crate) fn read(message: &str) -> Report {
    let pairs = message.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
