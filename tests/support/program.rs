//! The product's programs, for tests that run them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// One of the product's programs, as it is now.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let status = Command::new(root.join("hack/build-programs"))
            .status()
            .unwrap();
        assert!(status.success(), "the programs do not build");
    });
    // This test is target/debug/deps/fast-….
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join(name)
}
