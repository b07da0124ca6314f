//! An archive of an image, or of the same image for several architectures.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use oci_spec::image::{
    Descriptor, DescriptorBuilder, Digest, ImageIndex, ImageIndexBuilder, ImageManifestBuilder,
    MediaType, OciLayoutBuilder, PlatformBuilder, SCHEMA_VERSION,
};
use serde::Serialize;
use tar::{Builder, EntryType};

use crate::{
    Attributes, Error, Image,
    layer::{digest, header},
};

/// Under this annotation containerd looks for an image's whole name, as what the specification has is only a tag.
const NAME: &str = "io.containerd.image.name";
/// Under this one everybody else looks.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// An archive, ready to be written.
#[derive(Debug)]
pub struct Archive {
    /// What the archive's own index names: the image, or the index of several.
    root: Digest,
    index: Vec<u8>,
    layout: Vec<u8>,
    /// By the name of the file that holds it, so that the order is always the same.
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Archive {
    /// Puts one image under a name such as `registry.example/name:tag`, or several, each for another
    /// architecture, of which whoever runs it takes the one that fits.
    pub fn new(name: &str, images: &[Image]) -> Result<Self, Error> {
        let mut blobs = BTreeMap::new();
        let mut manifests = Vec::new();
        for image in images {
            manifests.push(add_image(&mut blobs, image)?);
        }
        let mut root = match manifests.as_slice() {
            [] => return Err(Error::Empty),
            [only] => only.clone(),
            _ => {
                let index = json(&index_of(manifests)?)?;
                add(&mut blobs, MediaType::ImageIndex, index)?
            }
        };
        let digest = root.digest().clone();
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        root.set_annotations(Some(HashMap::from([
            (NAME.to_owned(), name.to_owned()),
            (REFERENCE.to_owned(), tag.to_owned()),
        ])));
        let layout = OciLayoutBuilder::default()
            .image_layout_version("1.0.0")
            .build()
            .map_err(Error::Describe)?;
        Ok(Self {
            root: digest,
            index: json(&index_of(vec![root])?)?,
            layout: json(&layout)?,
            blobs,
        })
    }

    /// The digest by which a registry would know it: of the image, or of the index of several.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.root.as_ref()
    }

    /// Writes it as a tar.
    pub fn write(&self, to: impl Write) -> Result<(), Error> {
        let mut tar = Builder::new(to);
        let blobs = self
            .blobs
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes));
        // The marker first: readers tell by it what the archive is.
        let files = [("oci-layout", &self.layout), ("index.json", &self.index)];
        for (path, bytes) in files.into_iter().chain(blobs) {
            let mut header = header(EntryType::Regular, Attributes::file(), bytes.len());
            tar.append_data(&mut header, path, bytes.as_slice())
                .map_err(Error::Write)?;
        }
        tar.into_inner()
            .and_then(|mut to| to.flush())
            .map_err(Error::Write)
    }
}

/// Adds an image's layers, configuration and manifest, and describes the last of them.
fn add_image(blobs: &mut BTreeMap<String, Vec<u8>>, image: &Image) -> Result<Descriptor, Error> {
    let layers = image
        .layers
        .iter()
        .map(|layer| add(blobs, layer.media_type.clone(), layer.bytes.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let configuration = json(&image.configuration()?)?;
    let configuration = add(blobs, MediaType::ImageConfig, configuration)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(configuration)
        .layers(layers)
        .build()
        .map_err(Error::Describe)?;
    let mut descriptor = add(blobs, MediaType::ImageManifest, json(&manifest)?)?;
    let platform = PlatformBuilder::default()
        .architecture(image.architecture)
        .os("linux")
        .build()
        .map_err(Error::Describe)?;
    descriptor.set_platform(Some(platform));
    Ok(descriptor)
}

/// Adds bytes under their digest.
fn add(
    blobs: &mut BTreeMap<String, Vec<u8>>,
    media_type: MediaType,
    bytes: Vec<u8>,
) -> Result<Descriptor, Error> {
    let digest = digest(&bytes)?;
    let descriptor = DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest.clone())
        .size(bytes.len() as u64)
        .build()
        .map_err(Error::Describe)?;
    blobs.insert(format!("blobs/sha256/{}", digest.digest()), bytes);
    Ok(descriptor)
}

fn index_of(manifests: Vec<Descriptor>) -> Result<ImageIndex, Error> {
    ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .map_err(Error::Describe)
}

/// By way of a value, whose members are sorted: the types have maps without an order.
fn json(object: &impl Serialize) -> Result<Vec<u8>, Error> {
    let value = serde_json::to_value(object).map_err(Error::Json)?;
    serde_json::to_vec(&value).map_err(Error::Json)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use oci_spec::image::{Arch, ImageConfiguration, ImageManifest};

    use super::*;
    use crate::{Architecture, Compression, Layer};

    const NAME: &str = "registry.example/tool:1.2";

    fn image(architecture: Architecture) -> Image {
        let mut layer = Layer::new();
        let contents = architecture.name().as_bytes();
        layer.file("tool", Attributes::program(), contents).unwrap();
        let mut image = Image::new(architecture);
        image.user = Some("65532:65532".to_owned());
        image.entrypoint = vec!["/tool".to_owned()];
        image.labels = ["a", "b", "c", "d", "e"]
            .map(|label| (label.to_owned(), String::new()))
            .into();
        image.layers.push(layer.finish(Compression::Gzip).unwrap());
        image
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        bytes
    }

    /// The files of an archive, in their order.
    fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                (path, contents)
            })
            .collect()
    }

    /// Follows a descriptor, which must be true.
    fn follow<'a>(files: &'a [(String, Vec<u8>)], descriptor: &Descriptor) -> &'a [u8] {
        let path = format!("blobs/sha256/{}", descriptor.digest().digest());
        let (_, bytes) = files.iter().find(|(name, _)| *name == path).unwrap();
        assert_eq!(bytes.len() as u64, descriptor.size());
        assert_eq!(&digest(bytes).unwrap(), descriptor.digest());
        bytes
    }

    #[test]
    fn the_same_images_give_the_same_bytes() {
        let both = [image(Architecture::Amd64), image(Architecture::Arm64)];
        let archive = || Archive::new(NAME, &both).unwrap();
        let first = written(&archive());
        // Maps without an order would differ now and then.
        for _ in 0..20 {
            assert!(written(&archive()) == first);
        }
    }

    #[test]
    fn every_part_of_an_archive_is_found_by_its_digest() {
        let both = [image(Architecture::Amd64), image(Architecture::Arm64)];
        let archive = Archive::new(NAME, &both).unwrap();
        let files = files(&written(&archive));
        assert_eq!(files[0].0, "oci-layout");
        let index = ImageIndex::from_reader(files[1].1.as_slice()).unwrap();
        let [root] = index.manifests().as_slice() else {
            panic!("{index:?}");
        };
        assert_eq!(root.digest().as_ref(), archive.digest());
        let annotations = root.annotations().as_ref().unwrap();
        assert_eq!(annotations[super::NAME], NAME);
        assert_eq!(annotations[REFERENCE], "1.2");

        let images = ImageIndex::from_reader(follow(&files, root)).unwrap();
        let mut blobs = 1;
        for (descriptor, image) in images.manifests().iter().zip(&both) {
            let architecture = Arch::from(image.architecture);
            let platform = descriptor.platform().as_ref().unwrap();
            assert_eq!(*platform.architecture(), architecture);
            let manifest = ImageManifest::from_reader(follow(&files, descriptor)).unwrap();
            let [layer] = manifest.layers().as_slice() else {
                panic!("{manifest:?}");
            };
            assert_eq!(follow(&files, layer), image.layers[0].bytes);
            let configuration =
                ImageConfiguration::from_reader(follow(&files, manifest.config())).unwrap();
            assert_eq!(*configuration.architecture(), architecture);
            let config = configuration.config().as_ref().unwrap();
            assert_eq!(config.user().as_deref(), Some("65532:65532"));
            let uncompressed = image.layers[0].uncompressed.to_string();
            assert_eq!(*configuration.rootfs().diff_ids(), [uncompressed]);
            blobs += 3;
        }
        assert_eq!(files.len(), 2 + blobs, "nothing else is in it");
    }

    #[test]
    fn an_archive_of_one_image_names_it_without_an_index_between() {
        let archive = Archive::new(NAME, &[image(Architecture::Amd64)]).unwrap();
        let files = files(&written(&archive));
        let index = ImageIndex::from_reader(files[1].1.as_slice()).unwrap();
        let [root] = index.manifests().as_slice() else {
            panic!("{index:?}");
        };
        assert_eq!(*root.media_type(), MediaType::ImageManifest);
        ImageManifest::from_reader(follow(&files, root)).unwrap();
    }

    #[test]
    fn an_archive_of_nothing_is_refused() {
        let error = Archive::new(NAME, &[]).unwrap_err();
        assert_eq!(error.to_string(), "an archive needs an image");
    }
}
