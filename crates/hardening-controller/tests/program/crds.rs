//! The CustomResourceDefinitions, printed and in `crds/`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::program;

fn printed() -> String {
    let output = program().arg("crds").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds")
}

#[test]
fn the_printed_definitions_are_what_kubectl_reads_them_as() {
    let manifests = hardening_manifests::parse("crds", printed().as_bytes()).unwrap();
    let read: Vec<Value> = manifests
        .into_iter()
        .map(|manifest| manifest.value)
        .collect();
    assert!(read == hardening_api::crds(), "{}", printed());
}

/// `UPDATE_EXPECT=1 cargo test -p hardening-controller --test program crds` writes the files anew.
#[test]
fn the_files_in_crds_are_what_is_printed() {
    let printed = printed();
    let documents: Vec<&str> = printed
        .split("---\n")
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(documents.len(), 2);
    for (name, document) in ["podhardeningpolicies", "clusterpodhardeningpolicies"]
        .iter()
        .zip(documents)
    {
        let file = folder().join(format!("podhardening.dev_{name}.yaml"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&file, document).unwrap();
        }
        assert!(
            fs::read_to_string(&file).is_ok_and(|text| text == document),
            "{} is stale: \
             UPDATE_EXPECT=1 cargo test -p hardening-controller --test program crds writes it anew",
            file.display(),
        );
    }
}

#[test]
fn there_is_nothing_else_in_crds() {
    let files = fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, hardening_api::PolicyKind::ALL.len());
}
