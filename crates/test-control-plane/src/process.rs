//! A program that cannot outlive the process that started it.
//!
//! `Drop` runs on return and on panic, not on Ctrl-C, SIGKILL or `process::exit`, and it never runs
//! for a static. So every program is started by a shell, its *supervisor*, in a process group of
//! their own. The supervisor reads orders from a pipe whose other end only this process holds.
//! However this process ends, the kernel closes the pipe, and the supervisor kills the group. There
//! is no moment at which the program runs unguarded, and as the signals come from within the group,
//! none can hit a stranger who was given an old process id.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, workspace::Workspace};

/// The supervisor; its arguments are the program and the program's own.
///
/// It comes with the orders on 0, the workspace's lifeline on 1 and the log on 2. A line of orders
/// is the name of a signal for the program; their end is the order to kill. The lifeline stays
/// open, in the program too, until the last of the group is gone. The supervisor ends as its
/// program does.
const SUPERVISOR: &str = r#"
exec 3<&0 4>&1 </dev/null >&2
"$@" 3<&- &
program=$!
(
    while read -r signal; do kill -s "$signal" "$program"; done
    kill -s KILL 0
) <&3 &
orders=$!
wait "$program"
status=$?
kill -s KILL "$orders"
exit "$status"
"#;

/// What `Drop` gives a program between SIGTERM and SIGKILL. Short: its data goes next.
const LAST_GRACE: Duration = Duration::from_millis(300);

/// How often a program that should end is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How much of a log an error shows.
const LOG_TAIL: u64 = 4096;

/// A running program with its supervisor. Dropping it ends both.
#[derive(Debug)]
pub struct Program {
    name: String,
    log: PathBuf,
    /// The supervisor. Its `stdin` is the pipe of orders; `None` there means killed.
    supervisor: Child,
}

impl Program {
    /// Starts a program in the workspace. What it writes is appended to its log.
    pub(crate) fn spawn(
        name: &(impl ToString + ?Sized),
        path: &Path,
        arguments: &[String],
        workspace: &Workspace,
    ) -> Result<Self, Error> {
        let name = name.to_string();
        let log = log_path(workspace, &name);
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::file("open", &log))?;
        let failed = |source| Error::Spawn {
            what: name.clone(),
            source,
        };
        let supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(path)
            .args(arguments)
            .current_dir(workspace.path())
            .stdin(Stdio::piped())
            .stdout(workspace.lifeline().map_err(failed)?)
            .stderr(log_file)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name,
            log,
            supervisor,
        })
    }

    /// Fails with the end of the log if the program has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                program: self.name.clone(),
                status,
                log: tail_or_empty(&self.log),
            }),
        }
    }

    /// Ends the program at once, as a crash would.
    pub fn kill(mut self) {
        self.kill_and_reap();
    }

    /// As [`kill`](Self::kill), for a value that another takes the place of.
    pub(crate) fn end(&mut self) {
        self.kill_and_reap();
    }

    /// Asks the program to end, and kills it if it has not after `grace`.
    pub async fn terminate(mut self, grace: Duration) -> Result<(), Error> {
        self.signal("TERM");
        let deadline = Instant::now() + grace;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                self.kill_and_reap();
                return Err(Error::Unwilling {
                    program: self.name.clone(),
                    waited: grace,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Where what it writes is found, on both standard output and standard error.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        // An error would mean that there is no such child: ended, but then how is unknown. It
        // cannot happen while only this value waits for it, and reading it as "still runs" leads to
        // a deadline, not to a wrong claim.
        self.supervisor.try_wait().ok().flatten()
    }

    fn signal(&mut self, name: &str) {
        if let Some(orders) = &mut self.supervisor.stdin {
            // A broken pipe means that the program has ended, which is what the caller looks at
            // next.
            let _ = writeln!(orders, "{name}");
        }
    }

    fn kill_and_reap(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + LAST_GRACE;
        while self.ended().is_none() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.kill_and_reap();
    }
}

/// Where a program of this workspace logs.
pub(crate) fn log_path(workspace: &Workspace, name: impl fmt::Display) -> PathBuf {
    workspace.path().join(format!("{name}.log"))
}

/// The last lines that a program of this workspace wrote.
pub(crate) fn log_tail(workspace: &Workspace, name: impl fmt::Display) -> String {
    tail_or_empty(&log_path(workspace, name))
}

/// Empty if it cannot be read: it only adds to the text of an error.
fn tail_or_empty(log: &Path) -> String {
    tail(log).unwrap_or_default()
}

/// The last whole lines of a file.
fn tail(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    let start = length.saturating_sub(LOG_TAIL);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = match text.split_once('\n') {
        Some((_, rest)) if start > 0 => rest,
        _ => &text,
    };
    Ok(whole.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a shell script as if it were etcd.
    fn script(workspace: &Workspace, text: &str) -> Program {
        let arguments = ["-c".to_owned(), text.to_owned()];
        Program::spawn("etcd", Path::new("/bin/sh"), &arguments, workspace).unwrap()
    }

    /// Waits until the program has written a line that shows it came so far.
    fn until_logged(program: &Program, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !tail_or_empty(&program.log)
            .lines()
            .any(|logged| logged == line)
        {
            assert!(Instant::now() < deadline, "{line:?} not logged within 30s");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_program_that_ends_by_itself_is_reported_with_its_log() {
        let workspace = Workspace::create().unwrap();
        let mut program = script(&workspace, "echo no such flag; exit 3");
        let deadline = Instant::now() + Duration::from_secs(30);
        let error = loop {
            if let Err(error) = program.check() {
                break error;
            }
            assert!(
                Instant::now() < deadline,
                "the program did not end within 30s"
            );
            thread::sleep(POLL);
        };
        assert_eq!(
            error.to_string(),
            "etcd ended with exit status: 3; the end of its log:\nno such flag"
        );
    }

    #[tokio::test]
    async fn a_program_that_heeds_sigterm_ends_gracefully() {
        let workspace = Workspace::create().unwrap();
        let program = script(
            &workspace,
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
        );
        until_logged(&program, "up");
        let log = program.log.clone();
        program.terminate(Duration::from_secs(30)).await.unwrap();
        assert_eq!(fs::read_to_string(log).unwrap(), "up\nbye\n");
    }

    #[tokio::test]
    async fn a_program_that_ignores_sigterm_is_killed_with_its_children() {
        let workspace = Workspace::create().unwrap();
        let program = script(&workspace, "trap '' TERM; sleep 1000 & echo up; wait; wait");
        until_logged(&program, "up");
        let error = program
            .terminate(Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "etcd did not end within 0s of being asked to and was killed"
        );
        // The sleep holds the lifeline, so this would time out if it still ran.
        workspace.remove().unwrap();
    }

    #[test]
    fn dropping_ends_the_program() {
        let workspace = Workspace::create().unwrap();
        let program = script(&workspace, "trap '' TERM; echo up; sleep 1000");
        until_logged(&program, "up");
        drop(program);
        workspace.remove().unwrap();
    }

    #[test]
    fn an_errors_log_is_the_last_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, format!("{}\nlast but one\nlast\n", "x".repeat(5000))).unwrap();
        assert_eq!(tail(&path).unwrap(), "last but one\nlast");
    }
}
