//! Errors of the Kubernetes client, for people.

use std::error::Error;

/// The error and its causes, each said once: kube's errors repeat their cause in their own text. Of what the
/// API server answered, its own words.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = own_text(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = own_text(error);
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn own_text(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}
