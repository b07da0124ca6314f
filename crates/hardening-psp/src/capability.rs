//! Names of capabilities, which PodSecurityPolicy compared letter by letter, and which have two spellings.

/// The one spelling that policies have: upper case, without `CAP_`. `None` for what is no name of a capability.
pub(crate) fn spelled(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let mut characters = bare.chars();
    let is_name = characters.next().is_some_and(|c| c.is_ascii_uppercase())
        && characters.all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    is_name.then(|| bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for (name, expected) in [
            ("NET_ADMIN", Some("NET_ADMIN")),
            ("CAP_NET_ADMIN", Some("NET_ADMIN")),
            ("cap_net_admin", Some("NET_ADMIN")),
            ("ALL", Some("ALL")),
            ("", None),
            ("*", None),
            ("CAP_", None),
            ("net admin", None),
        ] {
            assert_eq!(spelled(name).as_deref(), expected, "{name}");
        }
    }
}
