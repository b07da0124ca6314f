//! The AdmissionReview, in and out.
//!
//! Reading is in two steps, so that a pod that cannot be read still leaves the request's uid to answer
//! with: first the envelope, in which the object stays the raw text that it is, and then (by the engine)
//! just those fields of the pod that matter. Nothing is copied out of the body.
//!
//! The types are our own: those of client libraries parse the object into a full tree, and write the patch
//! as a list of numbers where the API says base64.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::refusal::{JsonFault, Quoted, Refusal, Refused};

/// What the API server asks.
#[derive(Debug)]
pub struct Review<'a> {
    /// Identifies the request; the answer must repeat it.
    pub uid: Cow<'a, str>,
    /// The namespace of the request. The object's own may be empty still.
    pub namespace: Cow<'a, str>,
    /// The operation, as the API server writes it.
    pub operation: Operation,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What there is to decide.
    pub question: Question<'a>,
}

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Created.
    Create,
    /// Changed.
    Update,
    /// Deleted.
    Delete,
    /// Connected to, as by `kubectl exec`.
    Connect,
}

/// What there is to decide.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// A pod is being created.
    NewPod {
        /// The pod, raw.
        object: &'a str,
    },
    /// Ephemeral containers are being added to a running pod.
    NewEphemeralContainers {
        /// The pod as it shall be, raw.
        object: &'a str,
        /// The pod as it is, raw.
        old_object: &'a str,
    },
    /// Anything else that happens to pods: policies have no say in it.
    None,
}

/// What the API server is told, besides that the pod is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The patch, an RFC 6902 document; empty for none at all.
    pub patch: &'a [u8],
    /// For the API server's audit log, which puts the webhook's name before the keys.
    pub audit_annotations: &'a [(&'static str, String)],
    /// For the client.
    pub warning: Option<&'a str>,
}

// === impl Review ===

const API_VERSION: &str = "admission.k8s.io/v1";

/// The longest uid that is taken: a UUID has 36 characters.
const LONGEST_UID: usize = 128;

impl<'a> Review<'a> {
    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// Where it is not an AdmissionReview, or not one of pods.
    pub fn from_json(body: &'a [u8]) -> Result<Self, Refused> {
        if body.is_empty() {
            return Err(Refused::without_uid(Refusal::EmptyBody));
        }
        let text = std::str::from_utf8(body)
            .map_err(|error| Refused::without_uid(Refusal::NotUtf8(error.valid_up_to())))?;
        let Object(envelope) =
            serde_json::from_str::<Object<Envelope<'a>>>(text).map_err(|error| Refused {
                uid: uid_of_broken(text),
                why: Refusal::Malformed(JsonFault::from(&error)),
            })?;
        let uid = envelope
            .request
            .as_ref()
            .map(|Object(request)| request.uid.clone());
        envelope.read().map_err(|why| Refused {
            uid: uid.and_then(|uid| presentable(uid.into_owned())),
            why,
        })
    }
}

/// The outermost object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Object<Request<'a>>>,
}

/// An object, and nothing else: a derived reader would also take a list of its members' values.
struct Object<T>(T);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Option<Object<GroupVersionKind<'a>>>,
    #[serde(borrow, default)]
    resource: Option<Object<GroupVersionResource<'a>>>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
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

impl<'a> Envelope<'a> {
    fn read(self) -> Result<Review<'a>, Refusal> {
        expect("kind", "AdmissionReview", &self.kind)?;
        expect("apiVersion", API_VERSION, &self.api_version)?;
        let Object(request) = self.request.ok_or(Refusal::Missing("request"))?;
        let (operation, question) = request.question()?;
        Ok(Review {
            uid: request.uid,
            namespace: request.namespace,
            operation,
            dry_run: request.dry_run.unwrap_or(false),
            question,
        })
    }
}

impl<'a> Request<'a> {
    fn question(&self) -> Result<(Operation, Question<'a>), Refusal> {
        if self.uid.is_empty() {
            return Err(Refusal::Missing("request.uid"));
        }
        if self.uid.len() > LONGEST_UID {
            return Err(Refusal::InvalidName("request.uid"));
        }
        let Object(resource) = self
            .resource
            .as_ref()
            .ok_or(Refusal::Missing("request.resource"))?;
        expect("request.resource.group", "", &resource.group)?;
        expect("request.resource.version", "v1", &resource.version)?;
        expect("request.resource.resource", "pods", &resource.resource)?;
        let operation = Operation::from_name(&self.operation)?;
        let question = match (operation, &*self.sub_resource) {
            (Operation::Create, "") => Question::NewPod {
                object: self.pod("request.object", self.object)?,
            },
            (Operation::Update, "ephemeralcontainers") => Question::NewEphemeralContainers {
                object: self.pod("request.object", self.object)?,
                old_object: self.pod("request.oldObject", self.old_object)?,
            },
            _ => Question::None,
        };
        Ok((operation, question))
    }

    /// One of the two objects, with what else must be there for a decision about it.
    fn pod(&self, part: &'static str, object: Option<&'a RawValue>) -> Result<&'a str, Refusal> {
        if self.namespace.is_empty() {
            return Err(Refusal::Missing("request.namespace"));
        }
        if !is_dns_label(&self.namespace) {
            return Err(Refusal::InvalidName("request.namespace"));
        }
        let Object(kind) = self.kind.as_ref().ok_or(Refusal::Missing("request.kind"))?;
        expect("request.kind.group", "", &kind.group)?;
        expect("request.kind.version", "v1", &kind.version)?;
        expect("request.kind.kind", "Pod", &kind.kind)?;
        let object = object.map(RawValue::get).ok_or(Refusal::Missing(part))?;
        if !object.starts_with('{') {
            return Err(Refusal::NotAnObject(part));
        }
        Ok(object)
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
fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn presentable(uid: String) -> Option<String> {
    (!uid.is_empty() && uid.len() <= LONGEST_UID).then_some(uid)
}

// === impl Operation ===

impl Operation {
    fn from_name(name: &str) -> Result<Self, Refusal> {
        match name {
            "CREATE" => Ok(Self::Create),
            "UPDATE" => Ok(Self::Update),
            "DELETE" => Ok(Self::Delete),
            "CONNECT" => Ok(Self::Connect),
            "" => Err(Refusal::Missing("request.operation")),
            other => Err(Refusal::Unexpected {
                field: "request.operation",
                expected: "CREATE, UPDATE, DELETE or CONNECT",
                found: Quoted::from(other),
            }),
        }
    }

    /// The operation's name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

// === impl Answer ===

impl Answer<'_> {
    /// Writes the AdmissionReview that allows the request, in one go and into one buffer.
    #[must_use]
    pub fn to_json(&self, uid: &str) -> Vec<u8> {
        let annotations: usize = self
            .audit_annotations
            .iter()
            .map(|(key, value)| key.len() + value.len() + 16)
            .sum();
        let size = 256 + uid.len() + annotations + self.patch.len().div_ceil(3) * 4;
        let mut out = String::with_capacity(size);
        out.push_str(
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"#,
        );
        push_json_string(&mut out, uid);
        out.push_str(r#","allowed":true"#);
        if !self.patch.is_empty() {
            // The API server wants both or neither.
            out.push_str(r#","patchType":"JSONPatch","patch":""#);
            BASE64.encode_string(self.patch, &mut out);
            out.push('"');
        }
        for (i, (key, value)) in self.audit_annotations.iter().enumerate() {
            out.push_str(if i == 0 {
                r#","auditAnnotations":{"#
            } else {
                ","
            });
            push_json_string(&mut out, key);
            out.push(':');
            push_json_string(&mut out, value);
        }
        if !self.audit_annotations.is_empty() {
            out.push('}');
        }
        if let Some(warning) = self.warning {
            out.push_str(r#","warnings":["#);
            push_json_string(&mut out, warning);
            out.push(']');
        }
        out.push_str("}}");
        out.into_bytes()
    }
}

fn push_json_string(out: &mut String, text: &str) {
    let plain = |byte: u8| byte != b'"' && byte != b'\\' && !byte.is_ascii_control();
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // A string always becomes JSON.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
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
fn uid_of_broken(text: &str) -> Option<String> {
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
    found.and_then(presentable)
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
