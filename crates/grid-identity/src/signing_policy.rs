//! Signing policies: which subjects an authority may certify. Two files say it, and both bind where both are there: the
//! Globus access list (`HASH.signing_policy`) and the EUGridPMA namespaces (`HASH.namespaces`).
//!
//! What a file does not say clearly is refused whole: half a policy would be a wide one.

use regex_lite::{Regex, RegexBuilder};

use crate::dn;

/// Why a policy file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No UTF-8, or too long.
    #[error("the file is no text of a policy")]
    NoText,
    /// A line that is not understood.
    #[error("line {line} is not understood: {what}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        what: &'static str,
    },
    /// A pattern that cannot be compiled, or is too large.
    #[error("line {line} has a pattern that cannot be used")]
    Pattern {
        /// Which line, from 1.
        line: usize,
    },
    /// An authority without subjects.
    #[error("an entry ends before it says what it allows")]
    Unfinished,
}

/// What one file says of one authority.
#[derive(Debug)]
pub struct Rule {
    /// The authority's DN, in canonical form.
    pub authority: String,
    permit: Vec<Pattern>,
    deny: Vec<Pattern>,
}

#[derive(Debug)]
enum Pattern {
    /// `*` for any characters, `?` for one.
    Glob(String),
    Regex(Regex),
}

impl Rule {
    /// Whether the authority may certify the subject, given in slash form.
    pub fn allows(&self, subject: &str) -> bool {
        let plain = dn::plain(subject);
        let matches =
            |pattern: &Pattern| pattern.matches(subject) || plain.as_deref().is_some_and(|p| pattern.matches(p));
        self.permit.iter().any(matches) && !self.deny.iter().any(matches)
    }
}

impl Pattern {
    fn matches(&self, subject: &str) -> bool {
        match self {
            Self::Glob(pattern) => glob(pattern.as_bytes(), subject.as_bytes()),
            Self::Regex(regex) => regex.is_match(subject),
        }
    }
}

/// Whether all of `text` matches: on a mismatch only the last `*` is tried longer, so that no pattern takes exponential
/// time.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

const MOST_BYTES: usize = 1 << 20;

fn text(bytes: &[u8]) -> Result<&str, PolicyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::NoText)?;
    if text.len() > MOST_BYTES {
        Err(PolicyError::NoText)
    } else {
        Ok(text)
    }
}

/// Parses a Globus signing policy.
///
/// # Errors
/// [`PolicyError`] where a line is not understood, or an entry is not finished.
pub fn parse(bytes: &[u8]) -> Result<Vec<Rule>, PolicyError> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut open: Option<(Rule, bool)> = None;
    for (number, line) in text(bytes)?.lines().enumerate() {
        let refuse = |what| PolicyError::Line { line: number + 1, what };
        let words = words(line).ok_or(refuse("a quote has no end"))?;
        let [keyword, rest @ ..] = words.as_slice() else {
            continue;
        };
        match keyword.as_str() {
            "access_id_CA" => {
                if let Some((rule, _)) = open.take() {
                    rules.push(finished(rule)?);
                }
                let [authority_kind, authority] = rest else {
                    return Err(refuse("`access_id_CA` takes a kind and a name"));
                };
                if !authority_kind.eq_ignore_ascii_case("x509") {
                    return Err(refuse("the kind of an authority is `X509`"));
                }
                let authority = dn::canonical(authority);
                open = Some((
                    Rule {
                        authority,
                        permit: Vec::new(),
                        deny: Vec::new(),
                    },
                    false,
                ));
            }
            "pos_rights" => {
                let Some((_, granted)) = &mut open else {
                    return Err(refuse("no `access_id_CA` comes before"));
                };
                if rest.len() != 2 || rest[0] != "globus" || rest[1] != "CA:sign" {
                    return Err(refuse("the right is `globus CA:sign`"));
                }
                *granted = true;
            }
            "cond_subjects" => {
                let Some((rule, true)) = &mut open else {
                    return Err(refuse("no `pos_rights` comes before"));
                };
                let [definer, list] = rest else {
                    return Err(refuse("`cond_subjects` takes `globus` and a list"));
                };
                if definer != "globus" {
                    return Err(refuse("`cond_subjects` takes `globus` and a list"));
                }
                // The list is quoted once more: '"/C=DE/*" "/C=AT/*"'.
                let subjects = self::words(list).ok_or(refuse("a quote has no end"))?;
                rule.permit.extend(subjects.into_iter().map(Pattern::Glob));
            }
            _ => return Err(refuse("its first word is unknown")),
        }
    }
    if let Some((rule, _)) = open {
        rules.push(finished(rule)?);
    }
    Ok(rules)
}

fn finished(rule: Rule) -> Result<Rule, PolicyError> {
    if rule.permit.is_empty() {
        Err(PolicyError::Unfinished)
    } else {
        Ok(rule)
    }
}

/// Parses a file of namespaces.
///
/// # Errors
/// [`PolicyError`] where a line is not understood.
pub fn parse_namespaces(bytes: &[u8]) -> Result<Vec<Rule>, PolicyError> {
    let mut rules: Vec<Rule> = Vec::new();
    // The authority whose line it is, and whether a rule of it must follow.
    let mut pending: Vec<String> = Vec::new();
    let mut first = 1;
    for (number, line) in text(bytes)?.lines().enumerate() {
        if pending.is_empty() {
            first = number + 1;
        }
        let refuse = |what| PolicyError::Line { line: first, what };
        let (line, goes_on) = match line.trim_end().strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        pending.extend(words(line).ok_or(refuse("a quote has no end"))?);
        if goes_on || pending.is_empty() {
            continue;
        }
        let words = std::mem::take(&mut pending);
        let [to, issuer, authority, verb, subject, pattern] = words.as_slice() else {
            return Err(refuse("it is not `TO Issuer \"…\" PERMIT Subject \"…\"`"));
        };
        let fixed = to.eq_ignore_ascii_case("to")
            && issuer.eq_ignore_ascii_case("issuer")
            && subject.eq_ignore_ascii_case("subject")
            && authority.starts_with('/');
        let permits = verb.eq_ignore_ascii_case("permit");
        if !fixed || !(permits || verb.eq_ignore_ascii_case("deny")) {
            return Err(refuse("it is not `TO Issuer \"…\" PERMIT Subject \"…\"`"));
        }
        let pattern = regex(pattern).ok_or(PolicyError::Pattern { line: first })?;
        let authority = dn::canonical(authority);
        let position = rules
            .iter()
            .position(|rule| rule.authority == authority)
            .unwrap_or_else(|| {
                rules.push(Rule {
                    authority,
                    permit: Vec::new(),
                    deny: Vec::new(),
                });
                rules.len() - 1
            });
        let rule = &mut rules[position];
        if permits { &mut rule.permit } else { &mut rule.deny }.push(pattern);
    }
    if pending.is_empty() {
        Ok(rules)
    } else {
        Err(PolicyError::Unfinished)
    }
}

/// A pattern that must match a whole subject.
fn regex(pattern: &str) -> Option<Pattern> {
    let whole = format!("^(?:{pattern})$");
    // Alone first: an unbalanced parenthesis must not close ours.
    RegexBuilder::new(pattern)
        .size_limit(1 << 18)
        .nest_limit(16)
        .build()
        .ok()?;
    RegexBuilder::new(&whole)
        .size_limit(1 << 18)
        .nest_limit(17)
        .build()
        .ok()
        .map(Pattern::Regex)
}

/// The words of a line up to a comment: bare, or between quotes of either kind. None where a quote has no end.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '#' => break,
            '\'' | '"' => {
                let (word, after) = rest[1..].split_once(first)?;
                words.push(word.to_owned());
                rest = after;
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                rest = &rest[end..];
            }
        }
        rest = rest.trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "/DC=org/DC=grid/CN=CA";

    fn one(file: &str) -> Rule {
        let mut rules = parse(file.as_bytes()).unwrap();
        assert_eq!(rules.len(), 1);
        rules.remove(0)
    }

    #[test]
    fn a_globus_policy_allows_what_its_patterns_cover() {
        let rule = one(
            "# comment\n access_id_CA   X509  '/DC=org/DC=grid/CN=CA'\npos_rights globus CA:sign\n\
             cond_subjects globus '\"/DC=org/DC=grid/*\" \"/C=D?/*/CN=host/*\"'\n",
        );
        assert_eq!(rule.authority, CA);
        assert!(rule.allows("/DC=org/DC=grid/O=People/CN=alice"));
        assert!(rule.allows("/C=DE/O=x/CN=host\\/a.org"));
        assert!(!rule.allows("/DC=org/DC=gridx"));
        assert!(!rule.allows("/C=DEE/O=x/CN=host\\/a.org"));
        // a value that holds slashes does not pretend to be attributes
        assert!(!rule.allows("/C=DE/O=x\\/CN=host\\/a"));
    }

    #[test]
    fn subjects_may_be_quoted_once_or_not_at_all() {
        for list in ["'/DC=org/*'", "\"/DC=org/*\"", "/DC=org/*", "'\"/DC=org/*\"'"] {
            let rule = one(&format!(
                "access_id_CA X509 \"{CA}\"\npos_rights globus CA:sign\ncond_subjects globus {list}"
            ));
            assert!(rule.allows("/DC=org/CN=x"), "{list}");
            assert!(!rule.allows("/DC=net/CN=x"), "{list}");
        }
    }

    #[test]
    fn policies_that_are_not_clear_are_refused_whole() {
        for bad in [
            "access_id_CA X509 '/CN=a",
            "access_id_CA X509",
            "access_id_CA Kerberos '/CN=a'",
            "access_id_CA X509 '/CN=a'",
            "access_id_CA X509 '/CN=a'\npos_rights globus CA:sign",
            "access_id_CA X509 '/CN=a'\ncond_subjects globus '\"*\"'",
            "access_id_CA X509 '/CN=a'\npos_rights globus CA:read\ncond_subjects globus '\"*\"'",
            "access_id_CA X509 '/CN=a'\nneg_rights globus CA:sign\ncond_subjects globus '\"*\"'",
            "pos_rights globus CA:sign",
            "hello",
            "access_id_CA X509 '/CN=a'\npos_rights globus CA:sign\ncond_subjects globus '\"*'",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(&[0xff]).is_err());
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn namespaces_permit_and_deny_by_whole_matches() {
        let file = format!(
            "# comment\nTO Issuer \"{CA}\" \\\n  PERMIT Subject \"/DC=org/DC=grid/.*\"\nto issuer \"{CA}\" deny subject \"/DC=org/DC=grid/OU=Old/.*\"\n"
        );
        let rules = parse_namespaces(file.as_bytes()).unwrap();
        assert_eq!(rules.len(), 1);
        assert!(rules[0].allows("/DC=org/DC=grid/CN=x"));
        assert!(!rules[0].allows("/DC=org/DC=grid/OU=Old/CN=x"));
        assert!(!rules[0].allows("/C=X/DC=org/DC=grid/CN=x"));
    }

    #[test]
    fn namespaces_that_are_not_clear_are_refused_whole() {
        for bad in [
            "TO Issuer \"/CN=a\" PERMIT Subject \"(\"",
            "TO Issuer \"/CN=a\" PERMIT Subject \"a)|(b\"",
            "TO Issuer \"/CN=a\" PERMIT Subject",
            "TO Issuer SELF PERMIT Subject \"/.*\"",
            "TO Issuer \"/CN=a\" ALLOW Subject \"/.*\"",
            "TO Issuer \"/CN=a\" \\",
        ] {
            assert!(parse_namespaces(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let rule = one(&format!(
            "access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"{}b\"'",
            "a*".repeat(200)
        ));
        assert!(!rule.allows(&"a".repeat(4_000)));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-zA-Z_:'\"/*?\\\\ \n#]{0,200}") {
            let _ = parse(text.as_bytes());
            let _ = parse_namespaces(text.as_bytes());
            let _ = dn::canonical(&text);
        }
    }
}
