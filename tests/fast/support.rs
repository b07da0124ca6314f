//! What these tests share: the repository's files, and texts that are kept in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) use self::files::{expect_file, root};
pub(crate) use self::go_tool::go_tool;
pub(crate) use self::program::program;

// Shared with the other test binaries.
#[path = "../support/files.rs"]
mod files;
#[path = "../support/go_tool.rs"]
mod go_tool;
#[path = "../support/program.rs"]
mod program;

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

/// Fails with all that is wrong, one a line.
#[track_caller]
pub(crate) fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
