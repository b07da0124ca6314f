//! The files of an image.

use std::{
    fmt,
    io::{self, Write as _},
};

use flate2::{GzBuilder, write::GzEncoder};
use oci_spec::image::{Digest, MediaType};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::Error;

/// Who owns a file, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The permissions, as in `0o755`.
    pub mode: u32,
    /// The id of the user and of the group.
    pub owner: u32,
}

/// Files that are put together. Their order stays; nothing else of theirs does that is not given here.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

/// How a layer is kept in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is: quickest for what is thrown away soon.
    None,
    /// As registries keep layers.
    Gzip,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub(crate) media_type: MediaType,
    /// As it is in the archive, compressed or not.
    pub(crate) bytes: Vec<u8>,
    /// The digest of the uncompressed tar, by which an image names its layers.
    pub(crate) uncompressed: Digest,
}

// === impl Attributes ===

impl Attributes {
    /// A file that everybody may read.
    #[must_use]
    pub const fn file() -> Self {
        Self {
            mode: 0o644,
            owner: 0,
        }
    }

    /// A program that everybody may run, or a folder that everybody may look into.
    #[must_use]
    pub const fn program() -> Self {
        Self {
            mode: 0o755,
            owner: 0,
        }
    }
}

// === impl Layer ===

impl Layer {
    /// No files yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tar: Builder::new(Vec::new()),
        }
    }

    /// Adds a folder. Paths are from the root, without the slash that stands for it.
    pub fn folder(&mut self, path: &str, attributes: Attributes) -> Result<(), Error> {
        let mut header = header(EntryType::Directory, attributes, 0);
        self.tar
            .append_data(&mut header, format!("{path}/"), io::empty())
            .map_err(cannot_add(path))
    }

    /// Adds a file with these contents.
    pub fn file(
        &mut self,
        path: &str,
        attributes: Attributes,
        contents: &[u8],
    ) -> Result<(), Error> {
        let mut header = header(EntryType::Regular, attributes, contents.len());
        self.tar
            .append_data(&mut header, path, contents)
            .map_err(cannot_add(path))
    }

    /// Adds a symbolic link to a path, which may be relative to the link's folder.
    pub fn link(&mut self, path: &str, to: &str) -> Result<(), Error> {
        let attributes = Attributes {
            mode: 0o777,
            owner: 0,
        };
        let mut header = header(EntryType::Symlink, attributes, 0);
        self.tar
            .append_link(&mut header, path, to)
            .map_err(cannot_add(path))
    }

    /// The layer as it goes into images.
    pub fn finish(self, compression: Compression) -> Result<Blob, Error> {
        let tar = self.tar.into_inner().map_err(Error::Layer)?;
        let uncompressed = digest(&tar)?;
        let (media_type, bytes) = match compression {
            Compression::None => (MediaType::ImageLayer, tar),
            Compression::Gzip => (MediaType::ImageLayerGzip, gzip(&tar).map_err(Error::Layer)?),
        };
        Ok(Blob {
            media_type,
            bytes,
            uncompressed,
        })
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").finish_non_exhaustive()
    }
}

// === impl Blob ===

impl Blob {
    /// How many bytes of the archive it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The digest by which blobs are found.
pub(crate) fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}").parse().map_err(Error::Describe)
}

/// A file's header without a time.
pub(crate) fn header(kind: EntryType, attributes: Attributes, size: usize) -> Header {
    let Attributes { mode, owner } = attributes;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_size(size as u64);
    header.set_mtime(0);
    header
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // Neither a time, nor the system that it was written on.
    let builder = GzBuilder::new().mtime(0).operating_system(255);
    let mut encoder: GzEncoder<Vec<u8>> = builder.write(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn cannot_add(path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Add { path, source }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn layer() -> Layer {
        let mut layer = Layer::new();
        layer.folder("bin", Attributes::program()).unwrap();
        layer
            .file("bin/tool", Attributes::program(), b"tool")
            .unwrap();
        layer.link("bin/alias", "tool").unwrap();
        let own = Attributes {
            mode: 0o600,
            owner: 1234,
        };
        layer.file("own", own, b"").unwrap();
        layer
    }

    #[test]
    fn a_layer_holds_what_was_put_into_it_and_no_time() {
        let blob = layer().finish(Compression::None).unwrap();
        let mut archive = tar::Archive::new(blob.bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let link = entry.link_name().unwrap();
                let link = link.map(|to| to.display().to_string());
                let mut contents = String::new();
                entry.read_to_string(&mut contents).unwrap();
                let header = entry.header();
                assert_eq!(header.mtime().unwrap(), 0, "{path}");
                let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap());
                (path, mode, owner, link, contents)
            })
            .collect();
        let entry = |path: &str, mode, owner, link: Option<&str>, contents: &str| {
            let link = link.map(str::to_owned);
            (path.to_owned(), mode, owner, link, contents.to_owned())
        };
        assert_eq!(
            entries,
            [
                entry("bin/", 0o755, 0, None, ""),
                entry("bin/tool", 0o755, 0, None, "tool"),
                entry("bin/alias", 0o777, 0, Some("tool"), ""),
                entry("own", 0o600, 1234, None, ""),
            ]
        );
    }

    #[test]
    fn a_compressed_layer_is_named_by_what_it_decompresses_to() {
        let plain = layer().finish(Compression::None).unwrap();
        let gzip = layer().finish(Compression::Gzip).unwrap();
        assert_eq!(gzip.uncompressed, plain.uncompressed);
        assert_eq!(gzip, layer().finish(Compression::Gzip).unwrap());

        let mut decompressed = Vec::new();
        flate2::read::GzDecoder::new(gzip.bytes.as_slice())
            .read_to_end(&mut decompressed)
            .unwrap();
        assert_eq!(decompressed, plain.bytes);
    }

    #[test]
    fn a_path_out_of_the_image_is_refused_by_name() {
        let error = Layer::new()
            .file("../out", Attributes::file(), b"")
            .unwrap_err();
        assert_eq!(error.to_string(), "add \"../out\" to a layer");
    }
}
