//! Where the reader of a guide sits: a folder, kubectl with the plugin, and a cluster; and the guide's
//! commands, as they are written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use test_control_plane::ControlPlane;

use super::program::program;

/// The repository.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) struct Desk {
    pub(crate) folder: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    path: String,
}

impl Desk {
    pub(crate) fn set_up(control_plane: &ControlPlane) -> Self {
        let plugin = program("kubectl-harden");
        let programs = plugin.parent().unwrap();
        let folder = control_plane.directory().join("desk");
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(control_plane.kubectl().unwrap(), bin.join("kubectl")).unwrap();
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, control_plane.kubeconfig()).unwrap();
        let path = std::env::var("PATH").unwrap();
        Self {
            path: format!("{}:{}:{path}", bin.display(), programs.display()),
            folder,
            kubeconfig,
        }
    }

    /// A folder of the repository on the desk: kubectl follows no link to one.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::create_dir_all(self.folder.join(to)).unwrap();
        for entry in fs::read_dir(Path::new(ROOT).join(from)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                let copy = self.folder.join(to).join(entry.file_name());
                fs::copy(entry.path(), copy).unwrap();
            }
        }
    }

    pub(crate) fn run(&self, script: &str) -> Output {
        Command::new("bash")
            .args(["-e", "-u", "-o", "pipefail", "-c", script])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .unwrap()
    }

    /// What a script prints on both streams; it must succeed.
    pub(crate) fn succeed(&self, script: &str) -> String {
        let output = self.run(script);
        let [said, printed] =
            [output.stderr, output.stdout].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{script}\n{said}\n{printed}");
        said + &printed
    }
}

/// A guide's commands, each with the heading that it stands under.
pub(crate) fn commands(guide: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join(guide)).unwrap();
    let mut scripts = Vec::new();
    for section in text.split("\n## ") {
        let heading = section.lines().next().unwrap();
        for block in section.split("```sh\n").skip(1) {
            let script = block.split("```").next().unwrap();
            scripts.push((heading.to_owned(), script.to_owned()));
        }
    }
    scripts
}
