//! The bill of materials: which crates a program was made of, in CycloneDX.
//!
//! It is taken from the program itself, where `cargo auditable` put it, so it cannot be that of another one.
//! Licences, which are not in there, come from cargo.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use auditable_cyclonedx::{
    auditable_serde::{Source, VersionInfo},
    auditable_to_minimal_cdx,
    cyclonedx_bom::models::{
        component::Component,
        hash::{Hash, HashAlgorithm, HashValue, Hashes},
        license::{LicenseChoice, Licenses},
    },
};
use cargo_metadata::MetadataCommand;
use sha2::{Digest as _, Sha256};

use crate::compile::Target;

/// The most that a program may say of what it was made of, in bytes of JSON.
const LARGEST: usize = 8 << 20;

/// A crate's name and version.
type Id = (String, String);

/// The bill of materials of a program, as JSON.
pub(crate) fn bill(root: &Path, target: Target, program: &[u8]) -> anyhow::Result<Vec<u8>> {
    let made_of = auditable_info::audit_info_from_slice(program, LARGEST)
        .context("read what the program was made of")?;
    write(&made_of, &licences(root, target)?, sha256(program))
}

/// In hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(
    made_of: &VersionInfo,
    licences: &BTreeMap<Id, String>,
    program: String,
) -> anyhow::Result<Vec<u8>> {
    let mut bill = auditable_to_minimal_cdx(made_of);
    let own: Vec<Id> = made_of
        .packages
        .iter()
        .filter(|package| package.source == Source::Local)
        .map(|package| (package.name.clone(), package.version.to_string()))
        .collect();
    let complete = |component: &mut Component| {
        let version = component.version.as_ref().map(ToString::to_string);
        let id = (component.name.to_string(), version.unwrap_or_default());
        // What is in no registry has no address in one.
        if own.contains(&id) {
            component.purl = None;
        }
        let licence = licences.get(&id);
        component.licenses =
            licence.map(|licence| Licenses(vec![LicenseChoice::expression(licence)]));
    };
    let components = bill.components.iter_mut().flat_map(|all| &mut all.0);
    let whole = bill
        .metadata
        .iter_mut()
        .filter_map(|of| of.component.as_mut());
    components.chain(whole).for_each(complete);
    if let Some(whole) = bill.metadata.as_mut().and_then(|of| of.component.as_mut()) {
        whole.hashes = Some(Hashes(vec![Hash {
            alg: HashAlgorithm::SHA_256,
            content: HashValue(program),
        }]));
    }
    let mut json = Vec::new();
    bill.output_as_json_v1_5(&mut json)
        .context("write the bill of materials")?;
    Ok(json)
}

/// The licence of each crate that can be part of a program for this target, as its authors say it.
fn licences(root: &Path, target: Target) -> anyhow::Result<BTreeMap<Id, String>> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .other_options(vec![
            "--locked".to_owned(),
            format!("--filter-platform={}", target.triple),
        ])
        .exec()
        .context("ask cargo for the crates' licences")?;
    let packages = metadata.packages.into_iter();
    Ok(packages
        .filter_map(|package| {
            // As some old crates write it, which is no expression.
            let licence = package.license?.replace('/', " OR ");
            Some((
                (package.name.to_string(), package.version.to_string()),
                licence,
            ))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use auditable_cyclonedx::cyclonedx_bom::{models::bom::Bom, validation::Validate as _};

    use super::*;

    // The public registry's name, which this repository spells nowhere.
    const MADE_OF: &str = concat!(
        r#"{"packages": [{"name": "serde", "version": "1.0.1", "source": "crates"#,
        r#".io"},"#,
        r#"{"name": "ours", "version": "0.1.0", "source": "local", "dependencies": [0], "root": true}]}"#,
    );

    #[test]
    fn a_bill_names_each_crate_with_its_licence_and_the_program_by_its_digest() {
        let made_of = MADE_OF.parse().unwrap();
        let licences = [
            ("serde", "1.0.1", "MIT OR Apache-2.0"),
            ("serde", "2.0.0", "MIT"),
        ];
        let licences = licences
            .map(|(name, version, licence)| ((name.into(), version.into()), licence.into()));
        let bill = write(&made_of, &licences.into(), "ab".repeat(32)).unwrap();
        let bill = Bom::parse_from_json(bill.as_slice()).unwrap();
        assert!(bill.validate().passed(), "{:?}", bill.validate());

        let components = bill.components.unwrap().0;
        let [serde] = components.as_slice() else {
            panic!("{components:?}");
        };
        assert_eq!(
            serde.purl.as_ref().unwrap().to_string(),
            "pkg:cargo/serde@1.0.1"
        );
        let licences = vec![LicenseChoice::expression("MIT OR Apache-2.0")];
        assert_eq!(serde.licenses, Some(Licenses(licences)));
        let whole = bill.metadata.unwrap().component.unwrap();
        assert_eq!(
            (whole.name.to_string(), whole.purl),
            ("ours".to_owned(), None)
        );
        assert_eq!(whole.hashes.unwrap().0[0].content.0, "ab".repeat(32));
    }

    #[test]
    fn a_program_that_does_not_say_what_it_was_made_of_is_refused() {
        let target = Target::of(container_image::Architecture::Amd64);
        let error = bill(Path::new("."), target, b"no program").unwrap_err();
        assert_eq!(error.to_string(), "read what the program was made of");
    }
}
