//! The AdmissionReview as it comes: what stands around the object.
//!
//! The types are our own: those of client libraries parse the object into a full tree, which costs several
//! times as much as all the rest of an answer.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::refusal::{Quoted, Refusal};
use crate::review::Operation;

/// The outermost object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) request: Option<Object<Request<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    #[serde(borrow, default)]
    pub(crate) uid: Cow<'a, str>,
    #[serde(borrow)]
    kind: Option<Object<GroupVersionKind<'a>>>,
    #[serde(borrow)]
    resource: Option<Object<GroupVersionResource<'a>>>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    pub(crate) dry_run: Option<bool>,
    #[serde(borrow)]
    pub(crate) object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) old_object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GroupVersionKind<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct GroupVersionResource<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    resource: Cow<'a, str>,
}

/// An object, and nothing else: a derived reader would also take a list of its members' values.
pub(crate) struct Object<T>(pub(crate) T);

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A pod is being created.
    NewPod,
    /// Ephemeral containers are being added to a running pod.
    NewEphemeralContainers,
    /// Anything else that happens to pods: policies have no say in it.
    Else,
}

const API_VERSION: &str = "admission.k8s.io/v1";

/// The longest uid that is taken: a UUID has 36 characters.
const LONGEST_UID: usize = 128;

impl<'a> Envelope<'a> {
    /// The request, and what it is about.
    pub(crate) fn open(self) -> Result<(Request<'a>, Operation, About), Refusal> {
        expect("kind", "AdmissionReview", &self.kind)?;
        expect("apiVersion", API_VERSION, &self.api_version)?;
        let Object(request) = self.request.ok_or(Refusal::Missing("request"))?;
        let (operation, about) = request.about()?;
        Ok((request, operation, about))
    }
}

impl Request<'_> {
    fn about(&self) -> Result<(Operation, About), Refusal> {
        if self.uid.is_empty() {
            return Err(Refusal::Missing("request.uid"));
        }
        if !is_uid(&self.uid) {
            return Err(Refusal::InvalidName("request.uid"));
        }
        let Object(resource) = self
            .resource
            .as_ref()
            .ok_or(Refusal::Missing("request.resource"))?;
        expect("request.resource.group", "", &resource.group)?;
        expect("request.resource.version", "v1", &resource.version)?;
        expect("request.resource.resource", "pods", &resource.resource)?;
        let operation = operation(&self.operation)?;
        let about = match (operation, &*self.sub_resource) {
            (Operation::Create, "") => About::NewPod,
            (Operation::Update, "ephemeralcontainers") => About::NewEphemeralContainers,
            _ => return Ok((operation, About::Else)),
        };
        self.check_pod()?;
        Ok((operation, about))
    }

    /// What must hold where there is a decision to be made.
    fn check_pod(&self) -> Result<(), Refusal> {
        if self.namespace.is_empty() {
            return Err(Refusal::Missing("request.namespace"));
        }
        if !is_dns_label(&self.namespace) {
            return Err(Refusal::InvalidName("request.namespace"));
        }
        let Object(kind) = self.kind.as_ref().ok_or(Refusal::Missing("request.kind"))?;
        expect("request.kind.group", "", &kind.group)?;
        expect("request.kind.version", "v1", &kind.version)?;
        expect("request.kind.kind", "Pod", &kind.kind)
    }
}

fn expect(field: &'static str, expected: &'static str, found: &str) -> Result<(), Refusal> {
    match found {
        _ if found == expected => Ok(()),
        "" => Err(Refusal::Missing(field)),
        _ if expected.is_empty() => Err(Refusal::Unexpected {
            field,
            expected: "the core group, \"\"",
            found: found.into(),
        }),
        _ => Err(Refusal::Unexpected {
            field,
            expected,
            found: found.into(),
        }),
    }
}

/// Whether a namespace could be called so: what could not exist need not be waited for.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn operation(name: &str) -> Result<Operation, Refusal> {
    match name {
        "CREATE" => Ok(Operation::Create),
        "UPDATE" => Ok(Operation::Update),
        "DELETE" => Ok(Operation::Delete),
        "CONNECT" => Ok(Operation::Connect),
        "" => Err(Refusal::Missing("request.operation")),
        other => Err(Refusal::Unexpected {
            field: "request.operation",
            expected: "CREATE, UPDATE, DELETE or CONNECT",
            found: Quoted::from(other),
        }),
    }
}

/// Whether an API server could have sent this uid.
pub(crate) fn is_uid(uid: &str) -> bool {
    (1..=LONGEST_UID).contains(&uid.len())
}

/// A uid to answer with, if it is one.
pub(crate) fn presentable(uid: &str) -> Option<String> {
    is_uid(uid).then(|| uid.to_owned())
}

// === impl Object ===

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

// === the uid of a review that is not whole ===

/// Finds `request.uid` in text that is not JSON throughout: the API server writes it near the beginning, so
/// a body that breaks off, or goes wrong in the pod, mostly still tells which request it was.
pub(crate) fn uid_of_broken(text: &str) -> Option<String> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // It fails, sooner or later; what counts is how far it came.
    let _ = Member {
        name: "request",
        then: Member {
            name: "uid",
            then: Uid(&mut found),
        },
    }
    .deserialize(&mut deserializer);
    found.as_deref().and_then(presentable)
}

/// Reads one member of an object.
struct Member<T> {
    name: &'static str,
    then: T,
}

struct Uid<'f>(&'f mut Option<String>);

impl<'de, T: DeserializeSeed<'de, Value = ()>> DeserializeSeed<'de> for Member<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: DeserializeSeed<'de, Value = ()>> Visitor<'de> for Member<T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<Cow<'de, str>>()? {
            if key == self.name {
                return members.next_value_seed(self.then);
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Uid<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.0 = Some(String::deserialize(deserializer)?);
        Ok(())
    }
}
