//! Processes of the node's containers, as the kernel sees them: which they are, and how much memory they have.

use std::{fs, path::Path};

/// The most memory, in bytes, that one of the replicas on the node of this folder has at this moment; 0: there is
/// none.
pub(crate) fn largest_replica(node: &Path) -> u64 {
    let folder = node.file_name().unwrap().to_string_lossy();
    let cgroup = format!("test-{folder}");
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| {
            let process = process.ok()?.path();
            let read = |name: &str| fs::read_to_string(process.join(name)).ok();
            let is_replica = read("cmdline")?.starts_with("/hardening-controller\0run\0");
            if !is_replica || !read("cgroup")?.contains(&cgroup) {
                return None;
            }
            resident(&read("status")?)
        })
        .max()
        .unwrap_or(0)
}

/// A process of a container, by the container's id.
pub(crate) fn of_container(container: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .find(|process: &u32| {
            let cgroup = fs::read_to_string(format!("/proc/{process}/cgroup"));
            cgroup.is_ok_and(|cgroup| cgroup.contains(container))
        })
}

/// The resident memory in a process's `status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}
