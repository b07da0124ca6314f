//! Files on disk: whole or not at all, and none of anyone else's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use crate::output::Problems;
use crate::yaml;

/// The first line of what this program writes into a folder, by which it knows it again.
const MARK: &str = "# Written by kubectl harden convert.\n";
const KUSTOMIZATION: &str = "kustomization.yaml";

/// Writes each object into a file of its own, and a kustomization with all of them in their order.
pub(crate) fn write(folder: &Path, manifests: &[Value], force: bool) -> anyhow::Result<()> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut resources = Vec::new();
    for manifest in manifests {
        let name = file_name(manifest);
        files.insert(
            name.clone(),
            format!("{MARK}{}", yaml::block(manifest, None)),
        );
        resources.push(name);
    }
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    let kustomization = format!("{MARK}{}", yaml::block(&kustomization, None));
    files.insert(KUSTOMIZATION.to_owned(), kustomization);

    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    if !force {
        let foreign: Vec<String> = files
            .keys()
            .map(|name| folder.join(name))
            .filter(|path| path.symlink_metadata().is_ok() && !is_ours(path))
            .map(|path| {
                format!("{}: is there already, and not written by this command; give --force to replace it", path.display())
            })
            .collect();
        if !foreign.is_empty() {
            return Err(Problems(foreign).into());
        }
    }
    for (name, text) in &files {
        replace(&folder.join(name), text)?;
    }
    Ok(())
}

/// Removes what an earlier run wrote, and is none of these objects' files.
pub(crate) fn remove_others(folder: &Path, manifests: &[Value]) -> anyhow::Result<()> {
    let mut names: BTreeSet<String> = manifests.iter().map(file_name).collect();
    names.insert(KUSTOMIZATION.to_owned());
    let error = || folder.display().to_string();
    for entry in fs::read_dir(folder).with_context(error)? {
        let path = entry.with_context(error)?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml");
        let name = path.file_name().and_then(|name| name.to_str());
        let is_written = name.is_some_and(|name| names.contains(name));
        if is_yaml && !is_written && is_ours(&path) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Whether an earlier run wrote a file.
fn is_ours(path: &Path) -> bool {
    let mut start = Vec::new();
    let limit = MARK.len() as u64;
    let read = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut start));
    read.is_ok() && start == MARK.as_bytes()
}

/// Writes a file by way of another one beside it, so that whoever reads it sees all of it.
pub(crate) fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = OsString::from(".");
    name.push(
        path.file_name()
            .ok_or_else(|| anyhow!("{}: names no file", path.display()))?,
    );
    name.push(format!(".{}", std::process::id()));
    let beside: PathBuf = path.with_file_name(name);
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // It is of no use to anyone, and may not even be there.
        let _ = fs::remove_file(&beside);
        return Err(error).with_context(|| path.display().to_string());
    }
    Ok(())
}

/// `clusterpodhardeningpolicy_psp-restricted.yaml`, `podhardeningpolicy_shop_psp-restricted.yaml`. No kind,
/// namespace or name has an underscore.
fn file_name(manifest: &Value) -> String {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or_default().to_ascii_lowercase();
    let parts = [
        Some(kind.as_str()),
        text("/metadata/namespace"),
        text("/metadata/name"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("_") + ".yaml"
}
