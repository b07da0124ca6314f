//! Container images, written without an engine that builds them: a [`Layer`] of files, an [`Image`] of layers
//! and what it runs, and an [`Archive`] of one image, or of one for each architecture under one name.
//!
//! An archive is an OCI image layout in a tar: what containerd (`ctr images import`), Docker from 25 on
//! (`docker load`), Podman and skopeo read. It is the same bytes whenever and wherever it is written: files
//! have no times, everything that has no order of its own is sorted, and nothing names the machine.
//!
//! ```
//! use container_image::{Architecture, Archive, Attributes, Compression, Image, Layer};
//!
//! # fn main() -> Result<(), container_image::Error> {
//! let mut layer = Layer::new();
//! layer.file("hello", Attributes::program(), b"#!/bin/sh\necho hello\n")?;
//! let mut image = Image::new(Architecture::Amd64);
//! image.entrypoint = vec!["/hello".to_owned()];
//! image.layers.push(layer.finish(Compression::Gzip)?);
//!
//! let archive = Archive::new("registry.example/hello:1", &[image])?;
//! assert!(archive.digest().starts_with("sha256:"));
//! archive.write(Vec::new())?;
//! # Ok(())
//! # }
//! ```

mod archive;
mod image;
mod layer;

pub use self::{
    archive::Archive,
    image::{Architecture, Image},
    layer::{Attributes, Blob, Compression, Layer},
};

/// Why no archive could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be put into a layer: a path that no tar can hold.
    #[error("add {path:?} to a layer")]
    Add {
        /// The path, as it was given.
        path: String,
        /// What tar says.
        source: std::io::Error,
    },
    /// A layer could not be finished.
    #[error("finish a layer")]
    Layer(#[source] std::io::Error),
    /// What describes an image could not be written.
    #[error("describe an image")]
    Describe(#[source] oci_spec::OciSpecError),
    /// What describes an image could not be written as JSON.
    #[error("write what describes an image as JSON")]
    Json(#[source] serde_json::Error),
    /// The archive could not be written.
    #[error("write the archive")]
    Write(#[source] std::io::Error),
    /// An archive was to be made of no image.
    #[error("an archive needs an image")]
    Empty,
}
