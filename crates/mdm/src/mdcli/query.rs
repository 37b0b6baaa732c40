//! Queries as AMGA had them, in the language of this catalogue. No I/O.

/// Takes a line apart as a shell would: blanks between words, quotes around those that have some.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// An attribute as this catalogue calls it: `FILE` is the name of an entry.
pub(super) fn attribute(name: &str) -> &str {
    if name == "FILE" { "name" } else { name }
}

/// A piece of a query.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Text(String),
    Name(String),
    Sign(String),
}

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_whitespace() {
            continue;
        }
        if matches!(c, '"' | '\'') {
            let mut text = String::new();
            while let Some(next) = rest.next() {
                if next == c {
                    // a quote twice is a quote
                    if rest.peek() != Some(&c) {
                        break;
                    }
                    rest.next();
                } else if next == '\\' && rest.peek() == Some(&c) {
                    rest.next();
                    text.push(c);
                    continue;
                }
                text.push(next);
            }
            tokens.push(Token::Text(text));
        } else if is_name(c) {
            let mut name = String::from(c);
            while let Some(next) = rest.next_if(|next| is_name(*next)) {
                name.push(next);
            }
            tokens.push(Token::Name(name));
        } else {
            let mut sign = String::from(c);
            let pairs = ["==", "!=", "<=", ">=", "<>", "&&", "||"];
            if let Some(next) = rest.peek()
                && pairs.contains(&format!("{c}{next}").as_str())
            {
                sign.extend(rest.next());
            }
            tokens.push(Token::Sign(sign));
        }
    }
    tokens
}

/// `/jobs:owner` is one, and so is a number.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || "_/:.-+".contains(c)
}

/// A query of AMGA in the language of this catalogue: strings in single quotes, attributes without their directory,
/// `like(a, "p")` as `a LIKE 'p'`. `directory` is the one that is searched: names of entries are meant in it.
pub(super) fn translated(query: &str, directory: &str) -> String {
    let tokens = tokens(query);
    let mut out: Vec<String> = Vec::new();
    let mut about_names = false;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Name(word)
                if word.eq_ignore_ascii_case("like") && tokens.get(at) == Some(&Token::Sign("(".into())) =>
            {
                if let (Some(Token::Name(name)), Some(Token::Sign(comma)), Some(Token::Text(text)), Some(_)) = (
                    tokens.get(at + 1),
                    tokens.get(at + 2),
                    tokens.get(at + 3),
                    tokens.get(at + 4),
                ) && comma == ","
                {
                    let name = bare(name);
                    let text = if name == "FILE" {
                        in_directory(text, directory)
                    } else {
                        text.clone()
                    };
                    out.push(format!("{} LIKE {}", attribute(name), quoted(&text)));
                    at += 5;
                } else {
                    out.push(word.clone());
                }
            }
            Token::Name(word) => {
                let name = bare(word);
                about_names = name == "FILE";
                out.push(attribute(name).to_owned());
            }
            Token::Text(text) if about_names => out.push(quoted(&in_directory(text, directory))),
            Token::Text(text) => out.push(quoted(text)),
            Token::Sign(sign) => out.push(match sign.as_str() {
                "==" => "=".to_owned(),
                "&&" | "&" => "AND".to_owned(),
                "||" | "|" => "OR".to_owned(),
                "!" => "NOT".to_owned(),
                other => other.to_owned(),
            }),
        }
    }
    out.join(" ")
}

fn bare(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, attribute)| attribute)
}

fn in_directory(text: &str, directory: &str) -> String {
    if text.starts_with(['%', '/']) {
        text.to_owned()
    } else {
        format!("{}/{text}", directory.trim_end_matches('/'))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use mdm_catalog::query::parse;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_of_amga_are_understood() {
        for (asked, ours) in [
            (r#"/jobs:owner = "koblitz""#, "owner = 'koblitz'"),
            (
                r#"like(/jobs:owner, "ko%") and cpus>=2"#,
                "owner LIKE 'ko%' AND cpus >= 2",
            ),
            (
                r#"owner == "a" && !(cpus < -2.5)"#,
                "owner = 'a' AND NOT ( cpus < -2.5 )",
            ),
            (r#"/jobs:FILE = "1""#, "name = '/jobs/1'"),
            (r#"like(FILE, "%.mp3")"#, "name LIKE '%.mp3'"),
            (r#"title = "it's""#, "title = 'it''s'"),
            ("title = 'it''s'", "title = 'it''s'"),
        ] {
            let read = translated(asked, "/jobs");
            assert!(read.eq_ignore_ascii_case(ours), "{asked}: {read}");
            assert!(parse(&read).is_ok(), "{read}");
        }
        assert_eq!(translated("", "/jobs"), "");
    }

    #[test]
    fn words_are_as_in_a_shell() {
        assert_eq!(words("find /jobs 'a = \"b c\"'"), ["find", "/jobs", "a = \"b c\""]);
        assert_eq!(words("  a '' b"), ["a", "", "b"]);
    }

    proptest! {
        #[test]
        fn a_text_stays_one_text(text in "[^\"\\\\]{0,20}") {
            let read = translated(&format!("a = \"{text}\""), "/x");
            prop_assert_eq!(read, format!("a = {}", quoted(&text)));
        }

        #[test]
        fn nothing_panics(text in ".{0,60}") {
            let _ = translated(&text, "/x");
            let _ = words(&text);
        }
    }
}
