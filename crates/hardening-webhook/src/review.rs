//! What the API server asks, read from a request's body.
//!
//! Of the pod only those fields are looked at that matter, and none is copied. A review of a new pod that is written as
//! API servers write it, and with which nothing is wrong, is read in one go. Any other is gone through by serde_json with
//! the object left raw, so that a pod that cannot be read still leaves the request's uid to answer with.

use std::borrow::Cow;

use hardening_engine::Pod;
use serde_json::value::RawValue;

use crate::envelope::{About, Envelope, Object, presentable, uid_of_broken};
use crate::new_pod::{self, NewPod};
use crate::refusal::{JsonFault, Refusal, Refused};

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
    /// The pod that there is something to decide about; `None` where policies have no say in what happens.
    pub pod: Option<Box<Pod<'a>>>,
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

// === impl Review ===

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
        let text = simdutf8::compat::from_utf8(body)
            .map_err(|error| Refused::without_uid(Refusal::NotUtf8(error.valid_up_to())))?;
        match new_pod::read(text) {
            Some(new) => Ok(Self::of_new_pod(new)),
            None => Self::of_anything(text),
        }
    }

    fn of_new_pod(new: NewPod<'a>) -> Self {
        Self {
            uid: Cow::Borrowed(new.uid),
            namespace: Cow::Borrowed(new.namespace),
            operation: Operation::Create,
            dry_run: new.dry_run,
            pod: Some(new.pod),
        }
    }

    /// Reads any review, or says what is wrong with it.
    fn of_anything(text: &'a str) -> Result<Self, Refused> {
        let Object(envelope) =
            serde_json::from_str::<Object<Envelope<'a>>>(text).map_err(|error| Refused {
                uid: uid_of_broken(text),
                why: Refusal::Malformed(JsonFault::from(&error)),
            })?;
        let uid = envelope
            .request
            .as_ref()
            .map(|Object(request)| request.uid.clone());
        Self::of_envelope(envelope).map_err(|why| Refused {
            uid: uid.and_then(|uid| presentable(&uid)),
            why,
        })
    }

    fn of_envelope(envelope: Envelope<'a>) -> Result<Self, Refusal> {
        let (request, operation, about) = envelope.open()?;
        let object = || object("request.object", request.object);
        let pod = match about {
            About::NewPod => Some(Pod::from_json(object()?)),
            About::NewEphemeralContainers => {
                let (new, old) = (
                    object()?,
                    self::object("request.oldObject", request.old_object)?,
                );
                Some(Pod::with_new_ephemeral_containers(new, old))
            }
            About::Else => None,
        };
        let pod = pod.transpose().map_err(Refusal::Pod)?.map(Box::new);
        Ok(Self {
            uid: request.uid,
            namespace: request.namespace,
            operation,
            dry_run: request.dry_run.unwrap_or(false),
            pod,
        })
    }
}

fn object<'a>(field: &'static str, raw: Option<&'a RawValue>) -> Result<&'a str, Refusal> {
    let object = raw.map(RawValue::get).ok_or(Refusal::Missing(field))?;
    if object.starts_with('{') {
        Ok(object)
    } else {
        Err(Refusal::NotAnObject(field))
    }
}

// === impl Operation ===

impl Operation {
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
