//! Container images made here, of the machine's static busybox: no registry, and nothing that builds images.
//!
//! An image is what `docker save` writes, which containerd imports: one layer, a configuration, and a manifest
//! that names the two.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    path::Path,
};

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::Error;

/// A user that [`Image::NAMED_USER`] runs as, and its id.
pub const NAMED_USER: (&str, u32) = ("app", 1234);

/// What an image's container runs where the pod says nothing: it goes on until it is asked to end.
const WAIT: &str = "trap 'exit 0' TERM INT; while :; do sleep 1 & wait $!; done";

/// The tools of busybox that the images have under their own names.
const APPLETS: [&str; 27] = [
    "awk", "cat", "chmod", "chown", "cut", "date", "echo", "env", "false", "grep", "head", "httpd",
    "id", "ls", "mkdir", "mount", "nc", "ping", "ps", "rm", "sed", "sh", "sleep", "su", "touch",
    "true", "wget",
];

const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\napp:x:1234:1234:app:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1234:\nextra:x:4321:app\n";

/// An image of busybox: its name, the user that it says it runs as, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// What pods call it; there is nowhere to pull it from, so `imagePullPolicy: Never`.
    pub name: &'static str,
    /// The `USER`; absent: root.
    pub user: Option<&'static str>,
    /// A script, which `/bin/sh` runs.
    pub script: &'static str,
}

impl Image {
    /// Runs as root and waits.
    pub const ROOT: Self = Self {
        name: "test.example/root:1",
        user: None,
        script: WAIT,
    };
    /// Runs as a user given by its id, which is not root's, and waits.
    pub const NUMERIC_USER: Self = Self {
        name: "test.example/numeric-user:1",
        user: Some("1234:1234"),
        script: WAIT,
    };
    /// Runs as a user given by its name, which only the image's own `/etc/passwd` resolves, and waits.
    pub const NAMED_USER: Self = Self {
        name: "test.example/named-user:1",
        user: Some(NAMED_USER.0),
        script: WAIT,
    };
    /// Runs as root, writes to its root filesystem and to `/tmp`, and then waits; ends where it cannot.
    pub const WRITER: Self = Self {
        name: "test.example/writer:1",
        user: None,
        script: "set -e; echo cached >/data/cache; echo scratch >/tmp/scratch; \
                 trap 'exit 0' TERM INT; while :; do sleep 1 & wait $!; done",
    };
    /// Runs as root and serves HTTP on port 80; ends where it cannot.
    pub const PORT_80: Self = Self {
        name: "test.example/port-80:1",
        user: None,
        script: "exec httpd -f -p 80 -h /data",
    };
    /// What holds a pod together.
    pub(crate) const PAUSE: Self = Self {
        name: "test.example/pause:1",
        user: None,
        script: WAIT,
    };

    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::ROOT,
        Self::NUMERIC_USER,
        Self::NAMED_USER,
        Self::WRITER,
        Self::PORT_80,
    ];

    /// Writes the image as an archive that containerd imports.
    pub(crate) fn write(&self, busybox: &Path, archive: &Path) -> Result<(), Error> {
        self.archive(busybox, archive)
            .map_err(Error::file("write the image", archive))
    }

    fn archive(&self, busybox: &Path, archive: &Path) -> io::Result<()> {
        let layer = layer(busybox)?;
        let configuration = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user.unwrap_or_default(),
                "Env": ["PATH=/bin"],
                "Cmd": ["/bin/sh", "-c", self.script],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        })
        .to_string();
        let configuration_name = format!("{}.json", digest(configuration.as_bytes()));
        let manifest = serde_json::json!([{
            "Config": configuration_name, "RepoTags": [self.name], "Layers": ["layer.tar"],
        }])
        .to_string();
        let mut archive = Builder::new(File::create(archive)?);
        let files = [
            (configuration_name.as_str(), configuration.as_bytes()),
            ("layer.tar", &layer),
            ("manifest.json", manifest.as_bytes()),
        ];
        for (name, contents) in files {
            file(&mut archive, name, 0o644, 0, contents)?;
        }
        archive.into_inner()?.sync_data()
    }
}

/// The one layer that all images have.
fn layer(busybox: &Path) -> io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    let owner = NAMED_USER.1;
    for (name, mode, owner) in [
        ("bin", 0o755, 0),
        ("data", 0o755, 0),
        ("etc", 0o755, 0),
        ("home", 0o755, 0),
        ("home/app", 0o700, owner),
        ("tmp", 0o1777, 0),
    ] {
        let mut header = header(EntryType::Directory, mode, owner);
        layer.append_data(&mut header, format!("{name}/"), io::empty())?;
    }
    file(&mut layer, "bin/busybox", 0o755, 0, &fs::read(busybox)?)?;
    for applet in APPLETS {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    file(&mut layer, "etc/passwd", 0o644, 0, PASSWD.as_bytes())?;
    file(&mut layer, "etc/group", 0o644, 0, GROUP.as_bytes())?;
    file(&mut layer, "data/index.html", 0o644, 0, b"served\n")?;
    file(
        &mut layer,
        "home/app/own",
        0o600,
        owner,
        b"the user's own\n",
    )?;
    layer.into_inner()
}

fn file<W: io::Write>(
    archive: &mut Builder<W>,
    name: &str,
    mode: u32,
    owner: u32,
    contents: &[u8],
) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode, owner);
    header.set_size(contents.len() as u64);
    archive.append_data(&mut header, name, contents)
}

/// Without a time, so that the same image has the same bytes.
fn header(kind: EntryType, mode: u32, owner: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_size(0);
    header.set_mtime(0);
    header
}

/// This machine's architecture, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_has_the_same_bytes_and_names_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let busybox = folder.path().join("busybox");
        fs::write(&busybox, "not really").unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            Image::NAMED_USER.write(&busybox, &path).unwrap();
            fs::read(path).unwrap()
        };
        let archive = write("one");
        assert_eq!(archive, write("other"));

        let mut names = Vec::new();
        let mut manifest = String::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "manifest.json" {
                io::Read::read_to_string(&mut entry, &mut manifest).unwrap();
            }
            names.push(name);
        }
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let parts = [&manifest[0]["Config"], &manifest[0]["Layers"][0]];
        for part in parts {
            assert!(names.iter().any(|name| part == name), "{part} {names:?}");
        }
        assert_eq!(manifest[0]["RepoTags"][0], Image::NAMED_USER.name);
    }
}
