//! The repository's files, and texts that are kept in files.

use std::{env, fs, path::Path};

use similar::TextDiff;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Holds a file of the repository to a text that was made just now. With `UPDATE_EXPECT=1` (which is what
/// `make generate` sets) the file is written instead.
#[track_caller]
pub(crate) fn expect_file(path: &str, actual: &str) {
    let file = root().join(path);
    let expected = fs::read_to_string(&file).unwrap_or_default();
    if expected == actual {
        return;
    }
    if env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        return fs::write(&file, actual).unwrap();
    }
    let diff = TextDiff::from_lines(&expected, actual);
    let diff = diff
        .unified_diff()
        .header("in the repository", "made just now")
        .to_string();
    panic!("{path} is not up to date; if the change is right, `make generate` writes it:\n{diff}");
}
