//! What a test has shown, in figures, for the summary at the end of `make test`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock};

/// Where the figures of this test binary are found.
const FILE: &str = concat!(
    env!("CARGO_TARGET_TMPDIR"),
    "/shown-",
    env!("CARGO_CRATE_NAME"),
    ".txt"
);

/// Tells a figure: on standard output, which is shown when a test fails or with `--nocapture`, and in a file
/// of this run's.
pub(crate) fn tell(figure: &str) {
    static SHOWN: OnceLock<Mutex<File>> = OnceLock::new();
    println!("{figure}");
    let shown = SHOWN.get_or_init(|| {
        let fresh = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(FILE);
        Mutex::new(fresh.unwrap())
    });
    let first_line = figure.lines().next().unwrap_or_default();
    writeln!(shown.lock().unwrap(), "{first_line}").unwrap();
}
