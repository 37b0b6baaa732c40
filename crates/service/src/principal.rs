//! Principals as people write them into configurations and as old databases have them, in the one form that is
//! compared.

use grid_identity::{dn, voms::fqan};

/// A DN in the slash form of certificates, an FQAN without what means nothing; any other word as it is.
pub fn canonical(text: &str) -> String {
    let first = text.strip_prefix('/').and_then(|rest| rest.split('/').next());
    match first {
        Some(first) if first.contains('=') => dn::canonical(text),
        Some(_) => fqan::canonical(text.as_bytes()).unwrap_or_else(|| text.to_owned()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_and_fqans_get_their_one_form_and_words_keep_theirs() {
        for (written, expected) in [
            ("/C=UG/O=Utopia/CN=Jane Doe", "/C=UG/O=Utopia/CN=Jane Doe"),
            ("/O=Utopia/Email=j@example.org", "/O=Utopia/emailAddress=j@example.org"),
            ("/O=Utopia/CN=host/a.example.org", "/O=Utopia/CN=host\\/a.example.org"),
            ("/myvo/Role=NULL/Capability=NULL", "/myvo"),
            ("/myvo/group/Role=radiologist", "/myvo/group/Role=radiologist"),
            ("/", "/"),
            ("default-group", "default-group"),
        ] {
            assert_eq!(canonical(written), expected);
        }
    }
}
