//! `ssss-join`: shares from a file, a pipe or a terminal become the secret again, to the last byte.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Parser;
use data_encoding::BASE64;
use hydra_cli::command::Example;
use hydra_cli::secret_input::{self, Source};
use hydra_cli::{Code, Failure, output};
use hydra_core::shamir::glite;
use hydra_core::shamir::share::{JoinError, Shares};
use zeroize::Zeroizing;

pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        says: "Join shares that are typed or pasted one by one, without echo",
        command: "ssss-join",
    },
    Example {
        says: "Join the shares in a file, and keep the secret in another",
        command: "ssss-join shares.txt > secret.key",
    },
    Example {
        says: "Join a password from shares of gLite's tools, a line each, NULL for a missing one",
        command: "ssss-join --glite-password shares.txt",
    },
];

/// 255 shares of 1 MiB in groups of four characters fit.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Longer than the longest share, with blanks.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Join shares to the secret that was split
///
/// Reads the lines that ssss-split made, in any order and however they were wrapped, grouped or upper-cased. One bad
/// share refuses the whole join, and is named; more shares than needed are checked against each other.
#[derive(Debug, Parser)]
#[command(name = "ssss-join")]
pub struct JoinArguments {
    /// The shares are those of a key split by glite-ssss-split-key: line K is share K, NULL a missing one
    #[arg(long, conflicts_with = "glite_password")]
    glite_key: bool,
    /// The shares are those of a password split by glite-ssss-split-passwd: line K is share K, NULL a missing one
    #[arg(long)]
    glite_password: bool,
    /// Print one JSON object, the secret in base64
    #[arg(long)]
    json: bool,
    /// The file that holds the shares; standard input without it or as `-`
    file: Option<PathBuf>,
}

/// Why joined bytes were not written.
#[derive(Debug, thiserror::Error)]
#[error("the secret is binary, and standard output is a terminal")]
struct BinaryOnTerminal;

/// Why a text cannot hold shares of gLite.
#[derive(Debug, thiserror::Error)]
#[error("the shares are not text")]
struct NoText(#[source] std::str::Utf8Error);

pub(crate) fn run(arguments: &JoinArguments) -> Result<(), Failure> {
    let source = Source::from_operand(arguments.file.as_deref());
    if !arguments.glite_key && !arguments.glite_password {
        let shares = gather(&source)?;
        let secret = shares.join().map_err(explain)?;
        return write(secret.expose(), arguments.json);
    }
    let text = if source.is_terminal() {
        ask_lines()?
    } else {
        secret_input::read_all(&source, MAX_TEXT_BYTES)?
    };
    let text = std::str::from_utf8(&text).map_err(|error| Failure::new(Code::Damaged, NoText(error)))?;
    let shares = glite::shares_of_lines(text).map_err(explain_glite)?;
    if arguments.glite_password {
        let password = glite::join_password(&shares).map_err(explain_glite)?;
        return write(password.expose(), arguments.json);
    }
    let key = glite::join_key(&shares).map_err(explain_glite)?;
    let (before, after) = if arguments.json {
        ("{\"key\":\"", "\"}\n")
    } else {
        ("", "\n")
    };
    let mut line = Zeroizing::new(String::with_capacity(before.len() + key.len() + after.len()));
    line.push_str(before);
    line.push_str(&key);
    line.push_str(after);
    output::print(line.as_bytes())
}

fn gather(source: &Source) -> Result<Shares, Failure> {
    let mut shares = Shares::default();
    if !source.is_terminal() {
        shares
            .read(&secret_input::read_all(source, MAX_TEXT_BYTES)?)
            .map_err(explain)?;
        return Ok(shares);
    }
    while shares.need().is_none_or(|need| shares.have() < need) {
        let of = shares.need().map(|need| format!(" of {need}")).unwrap_or_default();
        let line = secret_input::ask(
            &format!("Share {}{of} (not shown): ", shares.have() + 1),
            MAX_LINE_BYTES,
        )?;
        if line.is_empty() {
            break;
        }
        shares.read(&line).map_err(explain)?;
    }
    Ok(shares)
}

/// Lines for gLite's shares, which do not say how many are needed: an empty one ends them.
fn ask_lines() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES));
    for number in 1.. {
        let prompt = format!("Share {number} (not shown; NULL for a missing one, nothing to end): ");
        let line = secret_input::ask(&prompt, MAX_LINE_BYTES)?;
        if line.is_empty() || text.len() + line.len() >= MAX_LINE_BYTES {
            break;
        }
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    Ok(text)
}

fn explain(error: JoinError) -> Failure {
    let (code, advice) = match &error {
        JoinError::BareHex => (
            Code::Usage,
            "ssss-join --glite-key, or --glite-password if a password was split",
        ),
        JoinError::TooFew { .. } => (Code::Failed, "add shares of the same set"),
        JoinError::Damaged { .. } => (
            Code::Damaged,
            "compare it with the original, or leave it out if others suffice",
        ),
        JoinError::OtherSet { .. } | JoinError::Repeated { .. } | JoinError::Mixed { .. } => {
            (Code::Damaged, "leave it out, and add another if then too few are left")
        }
        JoinError::Disagree => (
            Code::Damaged,
            "join different choices of as many shares as are needed, and compare",
        ),
        JoinError::Version { .. } => (Code::Damaged, "a newer ssss-join"),
        _ => (Code::Damaged, "give it nothing but the lines that ssss-split wrote"),
    };
    Failure::new(code, error).advise(advice)
}

fn explain_glite(error: glite::JoinError) -> Failure {
    Failure::new(Code::Damaged, error)
}

/// The exact bytes on standard output; on a terminal only what cannot harm it.
fn write(secret: &[u8], json: bool) -> Result<(), Failure> {
    if json {
        let mut text = Zeroizing::new(String::with_capacity(40 + BASE64.encode_len(secret.len())));
        text.push_str("{\"secret_base64\":\"");
        BASE64.encode_append(secret, &mut text);
        text.push_str("\"}\n");
        return output::print(text.as_bytes());
    }
    let on_terminal = io::stdout().is_terminal();
    if on_terminal && !is_text(secret) {
        return Err(Failure::new(Code::CannotCreate, BinaryOnTerminal).advise("ssss-join SHARES > SECRET"));
    }
    output::print(secret)?;
    if on_terminal && !secret.ends_with(b"\n") {
        let _ = writeln!(io::stderr());
    }
    Ok(())
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'))
}
