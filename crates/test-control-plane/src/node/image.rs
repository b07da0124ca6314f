//! Container images made here, of the machine's static busybox: no registry, and nothing that builds images.

use std::{
    fs::{self, File},
    path::Path,
};

use container_image::{Architecture, Archive, Attributes, Blob, Compression, Layer};

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
        let busybox = fs::read(busybox).map_err(Error::file("read", busybox))?;
        let image = self.archive(&busybox).map_err(Error::Image)?;
        let file = File::create(archive).map_err(Error::file("create", archive))?;
        image.write(file).map_err(Error::Image)
    }

    fn archive(&self, busybox: &[u8]) -> Result<Archive, container_image::Error> {
        let mut image = container_image::Image::new(architecture());
        image.user = self.user.map(str::to_owned);
        image.environment = vec!["PATH=/bin".to_owned()];
        image.command = ["/bin/sh", "-c", self.script].map(str::to_owned).to_vec();
        image.layers.push(layer(busybox)?);
        Archive::new(self.name, &[image])
    }
}

/// The one layer that all images have.
fn layer(busybox: &[u8]) -> Result<Blob, container_image::Error> {
    let mut layer = Layer::new();
    let owner = NAMED_USER.1;
    for (path, mode, owner) in [
        ("bin", 0o755, 0),
        ("data", 0o755, 0),
        ("etc", 0o755, 0),
        ("home", 0o755, 0),
        ("home/app", 0o700, owner),
        ("tmp", 0o1777, 0),
    ] {
        layer.folder(path, Attributes { mode, owner })?;
    }
    layer.file("bin/busybox", Attributes::program(), busybox)?;
    for applet in APPLETS {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.file("etc/passwd", Attributes::file(), PASSWD.as_bytes())?;
    layer.file("etc/group", Attributes::file(), GROUP.as_bytes())?;
    layer.file("data/index.html", Attributes::file(), b"served\n")?;
    let own = Attributes { mode: 0o600, owner };
    layer.file("home/app/own", own, b"the user's own\n")?;
    layer.finish(Compression::None)
}

/// This machine's architecture. Where it is none that images are made for here, busybox is of it all the same,
/// and a runtime says that it cannot be run.
fn architecture() -> Architecture {
    Architecture::of_this_machine().unwrap_or(Architecture::Amd64)
}
