//! The folder of one control plane, and the janitor that removes it.
//!
//! The folder must go when the control plane has ended, also when the process that started it was
//! killed and can clean up nothing. So another process has the duty, always, and this one never
//! removes anything itself: a shell that reads a pipe until its end. The *lifeline*, the pipe's
//! other end, is held open by the [`Workspace`] and by every program that runs in the folder; its
//! end means that the last of them is gone.

use std::{
    fs,
    io::{self, PipeWriter},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::Error;

/// What the janitor runs; `$1` is the folder, and `$2`, if it is there, the name of cgroups, which are removed
/// from within once the last process in them is gone.
const JANITOR: &str = r#"
cat >/dev/null
[ $# -lt 2 ] || for cgroup in "/sys/fs/cgroup/$2" /sys/fs/cgroup/*/"$2"; do
    attempts=0
    while [ -d "$cgroup" ] && [ "$attempts" -lt 100 ]; do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        attempts=$((attempts + 1))
    done
done
exec rm -rf -- "$1"
"#;

/// How long the folder may take to go once nothing uses it.
const REMOVAL: Duration = Duration::from_secs(10);

/// A temporary folder that goes when this value and all programs given its lifeline are gone.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    /// The name of the cgroups that go with the folder, if any do.
    cgroup: Option<String>,
    /// `None` only once removal has been asked for.
    lifeline: Option<PipeWriter>,
    janitor: Child,
}

impl Workspace {
    /// Makes the folder, readable by its owner only, and starts its janitor.
    pub(crate) fn create() -> Result<Self, Error> {
        Self::create_in(temporary("control-plane-")?, None)
    }

    /// As [`create`](Self::create), with cgroups of the folder's name that go with it: whoever runs in the
    /// folder may make them, in any hierarchy.
    pub(crate) fn create_with_cgroups() -> Result<Self, Error> {
        let folder = temporary("node-")?;
        let name = folder.path().file_name().map(|name| name.to_string_lossy());
        let cgroup = name.map(|name| format!("test-{name}"));
        Self::create_in(folder, cgroup)
    }

    fn create_in(folder: TempDir, cgroup: Option<String>) -> Result<Self, Error> {
        let failed = |source| Error::Spawn {
            what: "the janitor of a temporary folder".to_owned(),
            source,
        };
        let (end, lifeline) = io::pipe().map_err(failed)?;
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(folder.path())
            .args(&cgroup)
            .stdin(end)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // so that Ctrl-C in a terminal does not reach it
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            path: folder.keep(),
            cgroup,
            lifeline: Some(lifeline),
            janitor,
        })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the cgroups that go with the folder.
    pub(crate) fn cgroup(&self) -> Option<&str> {
        self.cgroup.as_deref()
    }

    /// Writes a file of that name into the folder, and gives its path.
    pub(crate) fn write(&self, name: &str, contents: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs::write(&path, contents).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Another handle on the lifeline, for a process that uses the folder.
    pub(crate) fn lifeline(&self) -> io::Result<Stdio> {
        match &self.lifeline {
            Some(lifeline) => Ok(lifeline.try_clone()?.into()),
            None => Ok(Stdio::null()),
        }
    }

    /// Lets go of the folder and waits until it is gone; programs that still run in it keep it.
    pub(crate) fn remove(mut self) -> Result<(), Error> {
        if self.release() {
            Ok(())
        } else {
            Err(Error::NotRemoved {
                path: self.path.clone(),
            })
        }
    }

    fn release(&mut self) -> bool {
        self.lifeline = None;
        let deadline = Instant::now() + REMOVAL;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.janitor.try_wait() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Nobody to tell: `remove` is the way for those who want to know.
        self.release();
    }
}

fn temporary(prefix: &str) -> Result<TempDir, Error> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .map_err(Error::file("create a folder in", std::env::temp_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_the_value() {
        let workspace = Workspace::create().unwrap();
        let file = workspace.write("file", "contents").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "contents");

        let path = workspace.path().to_owned();
        workspace.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_folder_stays_while_a_program_uses_it() {
        let workspace = Workspace::create().unwrap();
        let mut program = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(workspace.lifeline().unwrap())
            .spawn()
            .unwrap();
        let path = workspace.path().to_owned();
        let remover = thread::spawn(move || workspace.remove());

        // The program answers only to the end of its input, so up to here the janitor cannot have
        // been called.
        assert!(path.exists());
        drop(program.stdin.take());
        program.wait().unwrap();
        remover.join().unwrap().unwrap();
        assert!(!path.exists());
    }
}
