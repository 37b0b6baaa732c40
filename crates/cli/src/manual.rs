//! Manual pages of programs that do not read their arguments by clap: the other names, which keep what their originals
//! printed as usage (`docs/src/commands/glite.md`). The page is made of that usage, so the two say the same.

use std::ffi::OsString;
use std::io::Write;

use clap_mangen::roff::{Roff, bold, roman};

use crate::command::VERSION;

/// A program under another name, for its manual page.
#[derive(Debug, Clone, Copy)]
pub struct Alias<'a> {
    /// The name it was called by.
    pub name: &'a str,
    /// The program that it is.
    pub program: &'a str,
    /// What it prints as usage: `Usage: NAME …`, then sentences, and options or operands with two blanks behind each.
    pub usage: &'a str,
    /// Its exit codes with their meaning.
    pub exit_codes: &'a [(&'a str, &'a str)],
}

/// Whether the arguments, the program's name first, ask for the manual page and nothing else.
pub fn is_asked_for(arguments: &[OsString]) -> bool {
    let words: Vec<Option<&str>> = arguments.iter().skip(1).map(|word| word.to_str()).collect();
    matches!(
        words.as_slice(),
        [Some("--generate=man")] | [Some("--generate"), Some("man")]
    )
}

impl Alias<'_> {
    /// The page.
    ///
    /// # Errors
    /// None: it is written into memory.
    pub fn page(&self) -> std::io::Result<Vec<u8>> {
        let Self { name, program, .. } = self;
        let mut out = Vec::new();
        let mut page = Roff::new();
        let version = format!("{name} {VERSION}");
        page.control("TH", [*name, "1", "", version.as_str()]);
        page.control("SH", ["NAME"]);
        page.text([roman(format!("{name} - the name that gLite's tools had for {program}"))]);
        self.usage_sections(&mut page);
        page.control("SH", ["EXIT STATUS"]);
        for (code, meaning) in self.exit_codes {
            page.control("TP", []).text([bold(*code)]).text([roman(*meaning)]);
        }
        page.control("SH", ["SEE ALSO"]);
        page.text([bold(*program), roman("(1)")]);
        page.to_writer(&mut out)?;
        out.flush()?;
        Ok(out)
    }

    fn usage_sections(&self, page: &mut Roff) {
        let Self { name, program, .. } = self;
        let mut lines = self.usage.lines().peekable();
        page.control("SH", ["SYNOPSIS"]);
        let mut first = true;
        while let Some(form) = lines.peek().and_then(|line| synopsis(line, name, first)) {
            if !first {
                page.control("br", []);
            }
            page.text([bold(*name), roman(format!(" {form}"))]);
            first = false;
            lines.next();
        }
        page.control("SH", ["DESCRIPTION"]);
        page.text([
            roman("Does what "),
            bold(*program),
            roman(
                "(1) does, with the operands, words and exit codes that gLite's tool of this name had, so that scripts \
                 written for it run unchanged.",
            ),
        ]);
        for line in lines.filter(|line| !line.trim().is_empty()) {
            match line.trim_start().split_once("  ").filter(|_| line.starts_with(' ')) {
                Some((term, meaning)) => page
                    .control("TP", [])
                    .text([bold(term)])
                    .text([roman(meaning.trim_start())]),
                None => page.control("PP", []).text([roman(line.trim())]),
            };
        }
    }
}

/// What stands behind the program's name in a line that shows how it is called.
fn synopsis<'a>(line: &'a str, name: &str, first: bool) -> Option<&'a str> {
    let line = if first {
        line.strip_prefix("Usage: ").or_else(|| line.strip_prefix("usage: "))?
    } else {
        line.strip_prefix(' ')?.trim_start()
    };
    Some(line.strip_prefix(name)?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_usage_says() {
        let alias = Alias {
            name: "glite-try",
            program: "eds-try",
            usage: "Usage: glite-try [-q] ID\n       glite-try -h\nTries ID.\n -q         say nothing\n -c CIPHER  try so\n",
            exit_codes: &[("0", "done"), ("255", "anything else")],
        };
        let page = String::from_utf8(alias.page().unwrap()).unwrap();
        for part in [
            "glite\\-try \\- the name that gLite\\*(Aqs tools had for eds\\-try",
            "\\fBglite\\-try\\fR [\\-q] ID",
            "\\fBglite\\-try\\fR \\-h",
            "Tries ID.",
            "\\fB\\-q\\fR\nsay nothing",
            "\\fB\\-c CIPHER\\fR\ntry so",
            "EXIT STATUS\"\n.TP\n\\fB0\\fR\ndone",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn only_the_one_question_is_it() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(is_asked_for(&words("x --generate man")));
        assert!(is_asked_for(&words("x --generate=man")));
        for other in [
            "x",
            "x --generate",
            "x --generate bash",
            "x ID --generate man",
            "x --generate man ID",
        ] {
            assert!(!is_asked_for(&words(other)), "{other}");
        }
    }
}
