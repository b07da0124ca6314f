//! What is known of the cluster that PodSecurityPolicies come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hardening_api::policy::Mode;
use hardening_manifests::{Error, Manifest, Object, objects, read_what_can_be};
use hardening_psp::Input;
use hardening_psp::migrate::Given;
use hardening_psp::rbac::is_rbac;
use serde_json::Value;

use crate::args::{ConvertArgs, ConvertMode};
use crate::source::{Cluster, alone, segment};

/// What could be read, and what could not.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) known: Known,
    /// Bad input, one line each.
    pub(crate) errors: Vec<String>,
    /// What was passed over, one line each.
    pub(crate) notes: Vec<String>,
}

/// The objects that matter.
#[derive(Default)]
pub(crate) struct Known {
    /// Each with where it stands.
    pub(crate) psps: Vec<(String, Value)>,
    rbac: Vec<Value>,
    counts_rbac: bool,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    service_accounts: Option<BTreeMap<String, BTreeSet<String>>>,
}

/// Which kinds are taken from a source.
#[derive(Clone, Copy)]
enum Taken {
    All,
    Rbac,
    Namespaces,
}

/// Reads the files and asks the cluster, as the command line says.
pub(crate) fn gather(args: &ConvertArgs, files: &[PathBuf]) -> anyhow::Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut cluster = None;
    gathered.read(files, Taken::All);
    match args.rbac.as_deref() {
        None if !gathered.known.rbac.is_empty() => gathered.notes.push(
            "the roles and bindings among the manifests are not taken into account without --rbac"
                .to_owned(),
        ),
        None => {}
        Some([]) if gathered.known.rbac.is_empty() => {
            gathered.take(&open(&mut cluster, args)?.rbac()?, Taken::Rbac);
        }
        Some(paths) => gathered.read(paths, Taken::Rbac),
    }
    gathered.known.counts_rbac = args.rbac.is_some();
    match args.namespaces.as_deref() {
        None => {}
        Some([]) => {
            gathered.take(&open(&mut cluster, args)?.namespaces()?, Taken::Namespaces);
        }
        Some(paths) => gathered.read(paths, Taken::Namespaces),
    }
    Ok(gathered)
}

fn open<'a>(cluster: &'a mut Option<Cluster>, args: &ConvertArgs) -> anyhow::Result<&'a Cluster> {
    match cluster {
        Some(cluster) => Ok(cluster),
        None => Ok(cluster.insert(Cluster::open(&args.cluster)?)),
    }
}

// === impl Gathered ===

impl Gathered {
    fn read(&mut self, paths: &[PathBuf], taken: Taken) {
        let (manifests, errors) = read_what_can_be(paths);
        self.errors.extend(errors.into_iter().map(in_one_line));
        self.take(&manifests, taken);
    }

    fn take(&mut self, manifests: &[Manifest], taken: Taken) {
        // By file: how many objects of each kind.
        let mut passed_over: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
        for object in objects(manifests) {
            if object.kind.is_empty() || object.api_version.is_empty() {
                let lacks = if object.kind.is_empty() {
                    "kind"
                } else {
                    "apiVersion"
                };
                self.errors
                    .push(format!("{}: {object}: {lacks}: is required", object.source));
                continue;
            }
            // They go into selectors and into names of files.
            let names = [object.name(), object.namespace()];
            let is_known = matches!(object.kind, "Namespace" | "ServiceAccount");
            let odd = names
                .into_iter()
                .flatten()
                .find_map(|name| segment(name).err());
            if let (true, Some(odd)) = (is_known, odd) {
                self.errors
                    .push(format!("{}: {object}: metadata: {odd}", object.source));
                continue;
            }
            let is_taken = match taken {
                Taken::All => self.known.take(&object),
                Taken::Rbac => self.known.take_rbac(&object),
                Taken::Namespaces => self.known.take_namespaces(&object),
            };
            // A list is a dump of all sorts, and so is a cluster's.
            if !is_taken && object.source.item.is_none() {
                let of_file = passed_over
                    .entry(object.source.file.to_string())
                    .or_default();
                *of_file.entry(object.kind).or_default() += 1;
            }
        }
        for (file, kinds) in passed_over {
            let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
            let kinds: Vec<String> = kinds.collect();
            self.notes.push(format!(
                "{file}: passed over, as not needed here: {}",
                kinds.join(", ")
            ));
        }
    }
}

/// Why a file could not be read.
pub(crate) fn in_one_line(error: Error) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

// === impl Known ===

impl Known {
    pub(crate) fn input(&self, mode: Mode) -> Input<'_> {
        let psps = self.psps.iter();
        Input {
            psps: psps
                .map(|(origin, object)| Given {
                    origin: origin.clone(),
                    object,
                })
                .collect(),
            rbac: self.counts_rbac.then(|| self.rbac.iter().collect()),
            namespaces: self.namespaces.clone(),
            service_accounts: self.service_accounts.clone(),
            mode,
        }
    }

    fn take(&mut self, object: &Object<'_>) -> bool {
        if object.kind == "PodSecurityPolicy" {
            let source = object.source.clone();
            let psp = alone(object, source.clone()).value;
            self.psps.push((source.to_string(), psp));
            return true;
        }
        self.take_rbac(object) || self.take_namespaces(object)
    }

    fn take_rbac(&mut self, object: &Object<'_>) -> bool {
        let is_taken = is_rbac(object.api_version, object.kind);
        if is_taken {
            self.rbac.push(alone(object, object.source.clone()).value);
        }
        is_taken
    }

    fn take_namespaces(&mut self, object: &Object<'_>) -> bool {
        match (object.api_version, object.kind, object.name()) {
            ("v1", "Namespace", Some(name)) => {
                let labels = object.value.pointer("/metadata/labels");
                let labels = labels.and_then(Value::as_object).into_iter().flatten();
                let labels = labels
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
                self.namespaces.insert(name.to_owned(), labels.collect());
                true
            }
            ("v1", "ServiceAccount", Some(name)) => {
                let namespace = object.namespace().unwrap_or("default").to_owned();
                let all = self.service_accounts.get_or_insert_default();
                all.entry(namespace).or_default().insert(name.to_owned());
                true
            }
            _ => false,
        }
    }
}

impl From<ConvertMode> for Mode {
    fn from(mode: ConvertMode) -> Self {
        match mode {
            ConvertMode::Enforce => Self::Enforce,
            ConvertMode::Audit => Self::Audit,
        }
    }
}
