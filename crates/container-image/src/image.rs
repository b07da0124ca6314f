//! One image: for one architecture, its layers and what it runs.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, RootFs};

use crate::{Blob, Error};

/// What processor an image is for; the system is always Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

/// An image for one architecture.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it runs on.
    pub architecture: Architecture,
    /// Who it runs as: a name or an id, of a user alone or with `:` and a group. `None`: root.
    pub user: Option<String>,
    /// What it runs; empty: what [`command`](Self::command) says.
    pub entrypoint: Vec<String>,
    /// The arguments of [`entrypoint`](Self::entrypoint), which a pod's `args` take the place of.
    pub command: Vec<String>,
    /// The environment, as `NAME=value`.
    pub environment: Vec<String>,
    /// When it was made, as RFC 3339 has it. `None`: it does not say.
    pub created: Option<String>,
    /// What tools show of it, by `org.opencontainers.image.…` and the like.
    pub labels: BTreeMap<String, String>,
    /// Its files; a later layer goes over an earlier one.
    pub layers: Vec<Blob>,
}

// === impl Architecture ===

impl Architecture {
    /// This machine's, if it is one of those that images are made for.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// As images call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl From<Architecture> for Arch {
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Amd64 => Self::Amd64,
            Architecture::Arm64 => Self::ARM64,
        }
    }
}

// === impl Image ===

impl Image {
    /// An image that runs nothing and holds nothing yet.
    #[must_use]
    pub fn new(architecture: Architecture) -> Self {
        Self {
            architecture,
            user: None,
            entrypoint: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            created: None,
            labels: BTreeMap::new(),
            layers: Vec::new(),
        }
    }

    /// The configuration that the image's manifest names.
    pub(crate) fn configuration(&self) -> Result<ImageConfiguration, Error> {
        let Self {
            architecture,
            user,
            entrypoint,
            command,
            environment,
            created,
            labels,
            layers,
        } = self;
        let mut config = ConfigBuilder::default().working_dir("/");
        if let Some(user) = user {
            config = config.user(user);
        }
        if !entrypoint.is_empty() {
            config = config.entrypoint(entrypoint.clone());
        }
        if !command.is_empty() {
            config = config.cmd(command.clone());
        }
        if !environment.is_empty() {
            config = config.env(environment.clone());
        }
        if !labels.is_empty() {
            let labels = labels.clone().into_iter();
            config = config.labels(labels.collect::<HashMap<_, _>>());
        }
        let mut root = RootFs::default();
        root.set_diff_ids(
            layers
                .iter()
                .map(|layer| layer.uncompressed.to_string())
                .collect(),
        );
        let mut configuration = ImageConfigurationBuilder::default()
            .architecture(*architecture)
            .os("linux")
            .config(config.build().map_err(Error::Describe)?)
            .rootfs(root);
        if let Some(created) = created {
            configuration = configuration.created(created);
        }
        configuration.build().map_err(Error::Describe)
    }
}
