//! Errors as people read them: in one line, with their causes.

use std::error::Error;

/// An error with its causes, each said once.
pub(super) fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let text = match error.downcast_ref::<kube::Error>() {
            // The API server's own words. What kube makes of them ends in a dump of the whole answer.
            Some(kube::Error::Api(status)) if !status.message.is_empty() => {
                next = None;
                status.message.clone()
            }
            _ => error.to_string(),
        };
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read Secret a/b")]
    struct Read(#[source] kube::Error);

    #[test]
    fn an_answer_of_the_api_server_is_told_in_its_words() {
        let status = |message: &str| {
            let status = json!({"status": "Failure", "code": 403, "message": message});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        let broken = std::io::Error::other("connection refused");
        let cases = [
            (
                status("secrets \"b\" is forbidden"),
                "read Secret a/b: secrets \"b\" is forbidden",
            ),
            (
                kube::Error::Service(Box::new(broken)),
                "read Secret a/b: ServiceError: connection refused",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(one_line(&Read(error)), expected);
        }
    }
}
