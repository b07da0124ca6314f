//! Errors of the Kubernetes client, for people.

use std::error::Error;

/// The error and its causes, each said once: kube's errors repeat their cause in their own text. Of what the
/// API server answered, its own words, and nothing after them.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let own = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if !status.message.is_empty() => {
                next = None;
                status.message.clone()
            }
            _ => {
                next = error.source();
                error.to_string()
            }
        };
        if text.is_empty() {
            text = own;
        } else if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
    }
    text
}
