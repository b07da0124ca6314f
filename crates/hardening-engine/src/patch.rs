//! The plan as an RFC 6902 patch: explicit operations at explicit places, written straight to bytes.
//!
//! Every operation is an `add`, of what is not there, but for the `remove`s that take out the API server's
//! token. An object that the fields need and the pod lacks is added whole, once, with the fields in it, so
//! that no operation ever points below something that does not exist.

use crate::defaults::Item;
use crate::field::Field;
use crate::plan::{Fill, FillValue, Plan, Target, list_of};
use crate::pod::{Container, ContainerKind, Pod, Volume};
use crate::record::{self, Records};
use crate::write::{push, write_list, write_string};

/// Writes the patch of a plan that is not empty.
pub(crate) fn write(plan: &Plan<'_>, records: &Records, out: &mut Vec<u8>) {
    // An operation, or a member, of some thirty bytes for each fill; and the records.
    let records_len = records.filled.len() + records.withheld.len();
    out.reserve(256 + 64 * plan.fills.len() + records_len);
    let mut fills: Vec<&Fill<'_>> = plan.fills.iter().collect();
    fills.sort_by_key(|fill| (place(fill.target), fill.field));
    let mut ops = Operations { out, any: false };
    ops.out.push(b'[');
    remove_token(&mut ops, plan);
    let mut volumes = Volumes::of(plan.pod);
    for group in fills.chunk_by(|a, b| place(a.target) == place(b.target)) {
        match group.first().map(|fill| fill.target) {
            Some(Target::Container { kind, index, .. }) => {
                write_container(&mut ops, plan.pod, kind, index, group, &mut volumes);
            }
            Some(Target::Pod) => write_pod(&mut ops, plan.pod, group),
            None => {}
        }
    }
    volumes.write(&mut ops);
    record::write(&mut ops, plan, records);
    ops.out.push(b']');
}

fn place(target: Target<'_>) -> (u8, usize) {
    match target {
        Target::Pod => (0, 0),
        Target::Container {
            kind: ContainerKind::InitContainer,
            index,
            ..
        } => (1, index),
        Target::Container {
            kind: ContainerKind::Container,
            index,
            ..
        } => (2, index),
        Target::Container {
            kind: ContainerKind::EphemeralContainer,
            index,
            ..
        } => (3, index),
    }
}

/// A patch being written.
pub(crate) struct Operations<'o> {
    out: &'o mut Vec<u8>,
    any: bool,
}

impl Operations<'_> {
    /// An `add`, its value written by `value`. The parts of a path are names and numbers that need no
    /// escape.
    pub(crate) fn add<'p>(
        &mut self,
        path: impl IntoIterator<Item = &'p str>,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        self.separate();
        self.out.extend_from_slice(b"{\"op\":\"add\",\"path\":\"");
        for part in path {
            push(self.out, [part]);
        }
        self.out.extend_from_slice(b"\",\"value\":");
        value(self.out);
        self.out.push(b'}');
    }

    fn remove<const N: usize>(&mut self, path: [&str; N]) {
        self.separate();
        self.out
            .extend_from_slice(b"{\"op\":\"remove\",\"path\":\"");
        push(self.out, path);
        self.out.extend_from_slice(b"\"}");
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
    }
}

// --- the token ---

/// From the back, so that no index moves before it is used.
fn remove_token(ops: &mut Operations<'_>, plan: &Plan<'_>) {
    for (kind, container, mount) in plan.token.mounts.iter().rev() {
        let (container, mount) = (container.to_string(), mount.to_string());
        let list = list_of(*kind);
        ops.remove(["/spec/", list, "/", &container, "/volumeMounts/", &mount]);
    }
    for volume in plan.token.volumes.iter().rev() {
        ops.remove(["/spec/volumes/", &volume.to_string()]);
    }
}

// --- fields ---

fn write_pod(ops: &mut Operations<'_>, pod: &Pod<'_>, fills: &[&Fill<'_>]) {
    let has_context = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.security_context.is_some());
    let in_context = |group: &&[&Fill<'_>]| {
        let path = group.first().and_then(|fill| fill.field.row().pod);
        path.is_some_and(|path| path.starts_with(CONTEXT))
    };
    for group in groups(fills).filter(|group| !in_context(group)) {
        ops.add(["/spec/", name(group)], |out| {
            write_value(out, group);
        });
    }
    let context = || groups(fills).filter(in_context);
    if !has_context && context().next().is_some() {
        ops.add(["/spec/securityContext"], |out| {
            write_members(out, context());
        });
    } else {
        for group in context() {
            let list_exists = match group.first().map(|fill| fill.field) {
                Some(field) => pod
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.written().contains(field)),
                None => false,
            };
            add_or_append(ops, &["/spec/securityContext"], group, list_exists);
        }
    }
}

const CONTEXT: &str = "securityContext.";

fn write_container<'a>(
    ops: &mut Operations<'_>,
    pod: &Pod<'_>,
    kind: ContainerKind,
    index: usize,
    fills: &[&Fill<'a>],
    volumes: &mut Volumes<'a>,
) {
    let Some(container) = pod.container(kind, index) else {
        return;
    };
    let is_path = |group: &&[&Fill<'_>]| field(group) == Some(Field::WritablePaths);
    let fields = || groups(fills).filter(|group| !is_path(group));
    let mut digits = itoa::Buffer::new();
    let (list, index) = (list_of(kind), digits.format(index));
    let path = |member| ["/spec/", list, "/", index, member];
    let context_path = path("/securityContext");
    let capabilities_path = path("/securityContext/capabilities");
    match &container.security_context {
        None if fields().next().is_some() => {
            ops.add(context_path, |out| write_object(out, fields));
        }
        None => {}
        Some(context) => {
            for group in fields().filter(|group| !is_capability(group)) {
                add_or_append(ops, &context_path, group, false);
            }
            let capabilities = || fields().filter(is_capability);
            if context.capabilities.is_none() && capabilities().next().is_some() {
                ops.add(capabilities_path, |out| {
                    write_members(out, capabilities());
                });
            } else {
                for group in capabilities() {
                    let written = container.written();
                    let exists = field(group).is_some_and(|field| written.contains(field));
                    add_or_append(ops, &capabilities_path, group, exists);
                }
            }
        }
    }
    let paths = groups(fills).filter(is_path).flatten().copied();
    write_mounts(ops, &path("/volumeMounts"), container, paths, volumes);
}

/// Fills of one field, which several policies may contribute to, are one value.
fn groups<'f, 'a>(fills: &'f [&'f Fill<'a>]) -> impl Iterator<Item = &'f [&'f Fill<'a>]> {
    fills.chunk_by(|a, b| a.field == b.field)
}

fn field(group: &[&Fill<'_>]) -> Option<Field> {
    group.first().map(|fill| fill.field)
}

fn is_capability(group: &&[&Fill<'_>]) -> bool {
    matches!(
        field(group),
        Some(Field::CapabilitiesDrop | Field::CapabilitiesAdd)
    )
}

/// The last part of a field's path.
fn name(group: &[&Fill<'_>]) -> &'static str {
    let path = field(group).map_or("", Field::name);
    // So short that a search made for long texts takes longer.
    let dot = path.bytes().rposition(|byte| byte == b'.');
    dot.and_then(|dot| path.get(dot + 1..)).unwrap_or(path)
}

#[inline(never)]
fn add_or_append(
    ops: &mut Operations<'_>,
    object: &[&str],
    group: &[&Fill<'_>],
    list_exists: bool,
) {
    let name = name(group);
    if !list_exists {
        return ops.add(below(object, ["/", name]), |out| {
            write_value(out, group);
        });
    }
    for item in group.iter().flat_map(|fill| fill.items()) {
        ops.add(below(object, ["/", name, "/-"]), |out| {
            push(out, [&item.json]);
        });
    }
}

/// A path that goes on from an object's or a list's.
fn below<'p, const N: usize>(
    path: &[&'p str],
    parts: [&'p str; N],
) -> impl Iterator<Item = &'p str> {
    path.iter().copied().chain(parts)
}

/// A security context with these fields; capabilities are an object of their own in it.
fn write_object<'f, 'a: 'f, G>(out: &mut Vec<u8>, fields: impl Fn() -> G)
where
    G: Iterator<Item = &'f [&'f Fill<'a>]>,
{
    let others = || fields().filter(|group| !is_capability(group));
    let capabilities = || fields().filter(is_capability);
    write_members(out, others());
    if capabilities().next().is_some() {
        out.pop();
        if others().next().is_some() {
            out.push(b',');
        }
        out.extend_from_slice(b"\"capabilities\":");
        write_members(out, capabilities());
        out.push(b'}');
    }
}

fn write_members<'f, 'a: 'f>(out: &mut Vec<u8>, groups: impl Iterator<Item = &'f [&'f Fill<'a>]>) {
    out.push(b'{');
    for (i, group) in groups.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'"');
        push(out, [name(group)]);
        out.extend_from_slice(b"\":");
        write_value(out, group);
    }
    out.push(b'}');
}

#[inline(never)]
fn write_value(out: &mut Vec<u8>, group: &[&Fill<'_>]) {
    match group.first().map(|fill| &fill.value) {
        Some(FillValue::Single(value)) => value.write_json(out),
        Some(FillValue::Items(_)) | None => {
            let items = group.iter().flat_map(|fill| fill.items());
            write_list(out, items, |out, item: &&Item| {
                push(out, [&item.json]);
            });
        }
    }
}

// --- writable paths ---

/// The emptyDirs to add, and the volumes that the pod has.
struct Volumes<'a> {
    existing: &'a [Volume<'a>],
    added: Vec<(String, &'a Item)>,
    list_exists: bool,
}

impl<'a> Volumes<'a> {
    fn of(pod: &'a Pod<'a>) -> Self {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        Self {
            existing: volumes.unwrap_or_default(),
            added: Vec::new(),
            list_exists: volumes.is_some(),
        }
    }

    fn has(&self, name: &str) -> bool {
        let existing = self.existing.iter().map(|volume| volume.name.as_str());
        let added = self.added.iter().map(|(name, _)| name.as_str());
        existing.chain(added).any(|taken| taken == name)
    }

    /// A name for the volume of a container's path that no other volume has. It is for people only: an
    /// earlier volume is found again by its mount's path.
    fn add(&mut self, container: &str, item: &'a Item) -> String {
        let base = volume_name(container, &item.key);
        let mut name = base.clone();
        let mut n = 2;
        while self.has(&name) {
            let suffix = format!("-{n}");
            let room = MAX_NAME - suffix.len();
            name = format!(
                "{}{suffix}",
                base.get(..room.min(base.len())).unwrap_or(&base)
            );
            n += 1;
        }
        self.added.push((name.clone(), item));
        name
    }

    fn write(&self, ops: &mut Operations<'_>) {
        let write = |out: &mut Vec<u8>, (name, item): &(String, &Item)| {
            push(
                out,
                ["{\"emptyDir\":", &item.json, ",\"name\":\"", name, "\"}"],
            );
        };
        if self.list_exists {
            for volume in &self.added {
                ops.add(["/spec/volumes/-"], |out| write(out, volume));
            }
        } else if !self.added.is_empty() {
            ops.add(["/spec/volumes"], |out| {
                write_list(out, self.added.iter(), write);
            });
        }
    }
}

/// The most characters that a volume's name may have (RFC 1123 label).
pub(crate) const MAX_NAME: usize = 63;
/// What the names of our volumes begin with.
pub(crate) const NAME_MARK: &str = "writable-";
/// How much of a container's name there is room for beside [`NAME_MARK`] and a path's hash.
pub(crate) const CUT_CONTAINER: usize = MAX_NAME - NAME_MARK.len() - 9;

/// `writable-app-var-cache` for the path `/var/cache` of the container `app`. Where that would be too long, a
/// hash stands for the path, and the container's name is cut.
fn volume_name(container: &str, path: &str) -> String {
    let container = name_part(container);
    let name = format!("{NAME_MARK}{container}{}", name_part(path));
    let name = name.trim_end_matches('-');
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let cut = container.get(..CUT_CONTAINER).unwrap_or(&container);
    format!("{NAME_MARK}{cut}-{}", path_hash(path))
}

/// A text with nothing in it but what a volume's name may have.
pub(crate) fn name_part(text: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    text.chars().map(allowed).collect()
}

/// What stands for a path in a name that has no room for it.
pub(crate) fn path_hash(path: &str) -> String {
    // FNV-1a: stable over versions of Rust, and no secret hangs on it.
    let hash = path.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}

fn write_mounts<'f, 'a: 'f>(
    ops: &mut Operations<'_>,
    list: &[&str],
    container: &Container<'_>,
    paths: impl Iterator<Item = &'f Fill<'a>>,
    volumes: &mut Volumes<'a>,
) {
    let items = paths.flat_map(|fill| fill.items());
    let mounts: Vec<(String, &str)> = items
        .map(|item| (volumes.add(container.name.as_str(), item), &*item.key))
        .collect();
    let write = |out: &mut Vec<u8>, (name, path): &(String, &str)| {
        out.extend_from_slice(b"{\"mountPath\":");
        write_string(out, path);
        push(out, [",\"name\":\"", name, "\"}"]);
    };
    if container.volume_mounts.is_some() {
        for mount in &mounts {
            ops.add(below(list, ["/-"]), |out| {
                write(out, mount);
            });
        }
    } else if !mounts.is_empty() {
        ops.add(list.iter().copied(), |out| {
            write_list(out, mounts.iter(), write);
        });
    }
}
