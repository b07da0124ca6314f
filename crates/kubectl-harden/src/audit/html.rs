//! An audit as a page: one file with everything in it, that asks nothing of any network, to be passed on,
//! printed and kept.
//!
//! What there is little of (namespaces, the matrix) is written out; workloads are rows, and what a row unfolds
//! to is made by the page's script from the audit's own JSON, which the page carries. So thousands of workloads
//! stay usable. What comes from a cluster is text everywhere: the template escapes it, the script sets it as
//! text, and a Content-Security-Policy lets no script run but the page's own.

mod matrix;
mod picture;

use std::collections::BTreeMap;

use anyhow::Context as _;
use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::model::{Audit, Level, Reason, Workload};
use matrix::Matrix;
use picture::Picture;

const STYLE: &str = include_str!("../../templates/audit.css");
const SCRIPT: &str = include_str!("../../templates/audit.js");

/// The page.
#[derive(Template)]
#[template(path = "audit.html")]
struct Page<'a> {
    audit: &'a Audit,
    /// Of this program.
    version: &'static str,
    /// When it was made, in UTC.
    made: &'a str,
    policy: String,
    style: &'static str,
    script: &'static str,
    pictures: [Picture; 2],
    matrix: Matrix<'a>,
    /// The audit as JSON that can stand in a page.
    data: String,
    /// Why fields are missing, in words, by their names in that JSON.
    reasons: String,
}

/// The page as text. `made` is when, in UTC.
pub(crate) fn page(audit: &Audit, made: &str) -> anyhow::Result<String> {
    let reasons: BTreeMap<Reason, &str> = Reason::ALL.map(|reason| (reason, reason.text())).into();
    let page = Page {
        audit,
        version: env!("CARGO_PKG_VERSION"),
        made,
        policy: format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
            hash(STYLE),
            hash(SCRIPT)
        ),
        style: STYLE,
        script: SCRIPT,
        pictures: [
            Picture::of_namespaces(&audit.namespaces),
            Picture::of_workloads(&audit.total),
        ],
        matrix: Matrix::of(audit),
        data: embedded(audit)?,
        reasons: embedded(&reasons)?,
    };
    page.render().context("write the page")
}

fn hash(text: &str) -> String {
    BASE64.encode(Sha256::digest(text))
}

/// JSON in which nothing can end the element that it stands in. All of these can only be in strings.
fn embedded(value: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string(value).context("write the page's data as JSON")?;
    Ok(json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026"))
}

// === what the template asks ===

impl Page<'_> {
    fn level(level: &Level) -> &'static str {
        level.name()
    }

    /// How strict a level is, to sort by.
    fn rank(level: &Level) -> usize {
        Level::ALL.iter().position(|one| one == level).unwrap_or(0)
    }

    fn pods(workload: &Workload) -> String {
        match workload.pods {
            0 => "template".to_owned(),
            pods => pods.to_string(),
        }
    }
}
