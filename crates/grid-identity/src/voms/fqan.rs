//! Fully qualified attribute names: `/vo[/group]…[/Role=role]`, how VOMS writes groups and roles.

/// The canonical form of an FQAN: without `/Role=NULL` and `/Capability=NULL`, which mean nothing.
///
/// None where it is no FQAN. Groups and roles have printable ASCII in them, blanks inside too, but none of `,"\=`: what
/// could read as something else in a list, an ACL or a log is refused rather than escaped.
pub fn canonical(text: &[u8]) -> Option<String> {
    const MOST_BYTES: usize = 512;
    if text.len() > MOST_BYTES {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let mut canonical = String::with_capacity(text.len());
    let mut stage = Stage::Groups;
    for component in text.strip_prefix('/')?.split('/') {
        let (next, value) = match component.split_once('=') {
            None => (Stage::Groups, component),
            Some(("Role", role)) => (Stage::Role, role),
            Some(("Capability", capability)) => (Stage::Capability, capability),
            Some(_) => return None,
        };
        // Groups come first, then at most one role, then at most one capability.
        let in_order = next > stage || (next == Stage::Groups && stage == Stage::Groups);
        if !in_order || !is_plain(value) || (canonical.is_empty() && next != Stage::Groups) {
            return None;
        }
        stage = next;
        if next == Stage::Groups || value != "NULL" {
            canonical.push('/');
            canonical.push_str(component);
        }
    }
    Some(canonical)
}

/// Whether an FQAN in canonical form is of that VO.
pub(super) fn is_of(fqan: &str, vo: &str) -> bool {
    let rest = fqan.strip_prefix('/').and_then(|rest| rest.strip_prefix(vo));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Groups,
    Role,
    Capability,
}

fn is_plain(value: &str) -> bool {
    let allowed = |byte: u8| (b' '..=b'~').contains(&byte) && !b",\"\\=".contains(&byte);
    !value.is_empty() && value.trim() == value && !matches!(value, "." | "..") && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_roles_and_capabilities_are_left_out() {
        for (written, expected) in [
            ("/myvo", "/myvo"),
            ("/myvo/Role=NULL/Capability=NULL", "/myvo"),
            ("/myvo/a/Role=NULL", "/myvo/a"),
            ("/myvo/a b/Role=x/Capability=NULL", "/myvo/a b/Role=x"),
            ("/myvo/Role=NULL/Capability=c", "/myvo/Capability=c"),
            ("/myvo/NULL", "/myvo/NULL"),
            ("/myvo/Role=null", "/myvo/Role=null"),
        ] {
            let read = canonical(written.as_bytes());
            assert_eq!(read.as_deref(), Some(expected), "{written}");
            assert_eq!(canonical(expected.as_bytes()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "/",
            "//",
            "myvo",
            "/myvo/",
            "/myvo//a",
            "/myvo/../a",
            "/myvo/.",
            "/ myvo",
            "/myvo/a ",
            "/Role=x",
            "/Role=NULL",
            "/myvo/Role=",
            "/myvo/Role=a/b",
            "/myvo/Role=a/Role=b",
            "/myvo/Capability=a/Role=b",
            "/myvo/Group=x",
            "/myvo/a=b",
            "/myvo/Role=a=b",
            "/myvo,/other",
            "/myvo\n/a",
            "/myvo\0",
            "/my\u{7f}vo",
            "/myvo/é",
            "/myvo/a\\b",
            "/myvo/\"a\"",
        ] {
            assert_eq!(canonical(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(canonical(b"/myvo/\xff"), None);
        assert_eq!(canonical(format!("/{}", "a".repeat(512)).as_bytes()), None);
    }

    #[test]
    fn another_vo_with_a_longer_name_is_another() {
        assert!(is_of("/myvo", "myvo") && is_of("/myvo/a", "myvo"));
        assert!(!is_of("/myvox", "myvo") && !is_of("/other/myvo", "myvo") && !is_of("/my", "myvo"));
    }
}
