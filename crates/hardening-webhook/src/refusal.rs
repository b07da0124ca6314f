//! Why a request gets an HTTP error in place of an AdmissionReview, and what that error looks like.
//!
//! The body is a `metav1.Status`: the API server prints its message, and its own `failurePolicy` decides
//! what becomes of the pod. A message says what is wrong with the request and never repeats a value of the
//! pod's.

use std::fmt;
use std::time::Duration;

use hardening_engine::{InvalidPod, Unseen};
use hyper::StatusCode;
use serde::Serialize;

use crate::metrics::ErrorKind;

/// Why a request is not answered with an AdmissionReview.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another path.
    #[error("no such path: reviews are answered at /mutate")]
    Path,
    /// Another method.
    #[error("reviews are taken by POST only")]
    Method,
    /// Another type of content.
    #[error("the Content-Type must be application/json")]
    ContentType,
    /// A compressed body.
    #[error("no Content-Encoding is accepted: send the AdmissionReview as it is")]
    ContentEncoding,
    /// A body beyond the limit.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A body that did not arrive whole.
    #[error("the body broke off")]
    BrokenBody(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No body.
    #[error("the body is empty: an AdmissionReview is expected")]
    EmptyBody,
    /// A body that is not text.
    #[error("the body is not UTF-8 text, from byte {0} on")]
    NotUtf8(usize),
    /// A body that is not JSON, or breaks off.
    #[error("the body is not an AdmissionReview: {0}")]
    Malformed(JsonFault),
    /// Something else than a v1 AdmissionReview.
    #[error("{field} must be {expected}, not {found}")]
    Unexpected {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: Quoted,
    },
    /// A field that every review has.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that must be an object.
    #[error("{0} is not an object")]
    NotAnObject(&'static str),
    /// A name that no object can have.
    #[error("{0} is not a valid name")]
    InvalidName(&'static str),
    /// A pod that cannot be read: which field it is. Not a source, because its cause shows the value.
    #[error("the pod cannot be read: {0}")]
    Pod(InvalidPod),
    /// Something that decides has not shown up in time.
    #[error("{unseen}, after waiting {} ms for it", waited.as_millis())]
    Unseen {
        /// What.
        unseen: Unseen,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A body that arrives too slowly.
    #[error("the body did not arrive within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// More than can be done, or held in memory, at once.
    #[error("too many reviews at once: try again")]
    Overload,
    /// A defect of this program.
    #[error("the review failed because of a defect in the webhook")]
    Panic,
}

/// What is wrong with JSON, and where, without any of its values.
#[derive(Debug)]
pub struct JsonFault {
    what: &'static str,
    line: usize,
    column: usize,
}

/// A string of the sender's, quoted, escaped, and cut short.
#[derive(Debug)]
pub struct Quoted(String);

/// A refusal, with the uid of the request where it could be read.
#[derive(Debug)]
pub struct Refused {
    /// The request's uid.
    pub uid: Option<String>,
    /// Why.
    pub why: Refusal,
}

// === impl Refusal ===

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BrokenBody(_)
            | Self::EmptyBody
            | Self::NotUtf8(_)
            | Self::Malformed(_)
            | Self::Unexpected { .. }
            | Self::Missing(_)
            | Self::NotAnObject(_)
            | Self::InvalidName(_)
            | Self::Pod(_) => StatusCode::BAD_REQUEST,
            Self::Unseen { .. } | Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Deadline(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Overload => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What it counts as.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Path | Self::Method | Self::ContentType | Self::ContentEncoding => {
                ErrorKind::Http
            }
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::BrokenBody(_) => ErrorKind::Body,
            Self::EmptyBody
            | Self::NotUtf8(_)
            | Self::Malformed(_)
            | Self::Unexpected { .. }
            | Self::Missing(_)
            | Self::NotAnObject(_)
            | Self::InvalidName(_) => ErrorKind::Review,
            Self::Pod(_) => ErrorKind::Pod,
            Self::Unseen { .. } => ErrorKind::Unseen,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Overload => ErrorKind::Overload,
            Self::Panic => ErrorKind::Panic,
        }
    }

    /// The reason, in metav1's words.
    fn reason(&self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
            StatusCode::REQUEST_TIMEOUT => "Timeout",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::INTERNAL_SERVER_ERROR => "InternalError",
            _ => "BadRequest",
        }
    }
}

// === impl Refused ===

impl Refused {
    /// A request whose uid was not read.
    #[must_use]
    pub fn without_uid(why: Refusal) -> Self {
        Self { uid: None, why }
    }

    /// The body of the answer: a `metav1.Status`.
    #[must_use]
    pub fn to_status(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Status<'a> {
            kind: &'static str,
            api_version: &'static str,
            metadata: Empty,
            status: &'static str,
            message: &'a str,
            reason: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<Details<'a>>,
            code: u16,
        }
        #[derive(Serialize)]
        struct Empty {}
        #[derive(Serialize)]
        struct Details<'a> {
            uid: &'a str,
        }

        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: &self.why.to_string(),
            reason: self.why.reason(),
            details: self.uid.as_deref().map(|uid| Details { uid }),
            code: self.why.status().as_u16(),
        };
        // Strings and numbers always become JSON.
        serde_json::to_vec(&status).unwrap_or_default()
    }
}

// === impl JsonFault ===

impl From<&serde_json::Error> for JsonFault {
    /// serde's own message may hold the value that was read, so only its category and place are kept.
    fn from(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        let what = match error.classify() {
            Category::Eof => "it breaks off",
            Category::Syntax => "it is not JSON",
            Category::Data => "a field is of the wrong type or is given twice",
            Category::Io => "it cannot be read",
        };
        Self {
            what,
            line: error.line(),
            column: error.column(),
        }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, line, column } = self;
        write!(f, "{what} (line {line}, column {column})")
    }
}

// === impl Quoted ===

impl From<&str> for Quoted {
    fn from(text: &str) -> Self {
        const LONGEST: usize = 64;
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => Self(format!("{:?}…", text.get(..end).unwrap_or_default())),
            None => Self(format!("{text:?}")),
        }
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
