//! The image: the program and nothing else.

use anyhow::Context as _;
use container_image::{Architecture, Attributes, Compression, Image, Layer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Who the program runs as where the pod says nothing: nobody that anything on a node belongs to. A number, so that
/// a kubelet can tell that it is not root.
const USER: &str = "65532:65532";

/// The program's path in the image.
const PROGRAM: &str = "hardening-controller";

/// What an image says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) version: &'a str,
    /// The commit; absent: not known.
    pub(crate) revision: Option<&'a str>,
    /// In seconds since 1970.
    pub(crate) created: i64,
}

/// The image of a program.
pub(crate) fn image(
    architecture: Architecture,
    program: &[u8],
    about: &About<'_>,
) -> anyhow::Result<Image> {
    let About {
        version,
        revision,
        created,
    } = *about;
    let created = OffsetDateTime::from_unix_timestamp(created)
        .context("read when the image was made")?
        .format(&Rfc3339)
        .context("write when the image was made")?;
    let mut labels = vec![
        ("title", "hardening-controller"),
        ("description", "Pod Hardening for Kubernetes"),
        ("licenses", "Apache-2.0"),
        ("version", version),
        ("created", &created),
    ];
    labels.extend(revision.map(|revision| ("revision", revision)));

    let mut layer = Layer::new();
    layer.file(PROGRAM, Attributes::program(), program)?;
    let mut image = Image::new(architecture);
    image.user = Some(USER.to_owned());
    image.entrypoint = vec![format!("/{PROGRAM}")];
    image.labels = labels
        .into_iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
        .collect();
    image.created = Some(created);
    image.layers.push(layer.finish(Compression::Gzip)?);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_program_run_by_nobody() {
        let about = About {
            version: "1.2.3",
            revision: Some("abc"),
            created: 1_700_000_000,
        };
        let image = image(Architecture::Arm64, b"program", &about).unwrap();
        assert_eq!(image.user.as_deref(), Some("65532:65532"));
        assert_eq!(image.entrypoint, ["/hardening-controller"]);
        assert_eq!(image.created.as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(image.layers.len(), 1);
        assert_eq!(image.labels["org.opencontainers.image.revision"], "abc");
    }
}
