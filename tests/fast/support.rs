//! What these tests share: the repository's files, and texts that are kept in files.

#[path = "../cluster/support/program.rs"]
mod program;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use similar::TextDiff;

pub(crate) use program::program;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The text of a file of the repository.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below a folder of the repository, as paths from the root, in order; without what git and
/// cargo put there.
pub(crate) fn files_below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    let mut paths: Vec<String> = found
        .iter()
        .map(|file| {
            file.strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    paths.sort();
    paths
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let entry = entry.unwrap();
        let ignored = [".git", "target"]
            .iter()
            .any(|name| entry.file_name() == *name);
        match entry.file_type().unwrap().is_dir() {
            _ if ignored => {}
            true => collect(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
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

/// Fails with all that is wrong, one a line.
#[track_caller]
pub(crate) fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
