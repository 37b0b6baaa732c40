//! `ssss-split`: a secret of 1 byte to 1 MiB becomes n lines, any m of which join (`docs/src/formats/shares.md`).

use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::secret_input::{self, Source};
use hydra_cli::{Code, Failure, output};
use hydra_core::shamir::gf256::{MAX_SECRET_BYTES, SplitError};
use hydra_core::shamir::share::{self, Share};
use zeroize::Zeroizing;

pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        says: "Split a passphrase, asked for without echo, over five people of whom any three can restore it",
        command: "ssss-split -m 3 -n 5",
    },
    Example {
        says: "Split a key file; each line of the output goes to somebody else",
        command: "ssss-split -m 2 -n 3 secret.key",
    },
    Example {
        says: "Split what another command writes, to the last byte",
        command: "printf %s secret | ssss-split -m 2 -n 3",
    },
];

/// Split a secret into shares
///
/// Any M of the N shares join to the secret again; fewer tell nothing but its length. Each share is one line of text
/// that says which set it belongs to, how many are needed and which one it is, and whose checksum shows mistakes of
/// copying. Join them with ssss-join.
#[derive(Debug, Parser)]
#[command(name = "ssss-split")]
pub struct SplitArguments {
    /// How many shares are needed to join, 1 to N; `-t` is taken for `-m`
    #[arg(short = 'm', short_alias = 't', long = "threshold", value_name = "M", value_parser = share_number())]
    threshold: u8,
    /// How many shares to make, up to 255
    #[arg(short = 'n', long = "shares", value_name = "N", value_parser = share_number())]
    shares: u8,
    /// Print one JSON object in place of lines
    #[arg(long)]
    json: bool,
    /// The file that holds the secret, taken byte for byte; standard input without it or as `-`
    file: Option<PathBuf>,
}

fn share_number() -> RangedU64ValueParser<u8> {
    RangedU64ValueParser::new().range(1..=255)
}

pub(crate) fn run(arguments: &SplitArguments) -> Result<(), Failure> {
    let (m, n) = (arguments.threshold, arguments.shares);
    if m > n {
        return Err(usage_error(format!(
            "{m} shares cannot be needed where only {n} are made"
        )));
    }
    let secret = read(&Source::from_operand(arguments.file.as_deref()))?;
    let shares = share::split(&secret, m, n).map_err(explain)?;
    if arguments.json {
        output::print(json(&shares, m, n).as_bytes())
    } else {
        shares.iter().try_for_each(|share| print_line(&share.encode()))
    }
}

fn read(source: &Source) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if source.is_terminal() {
        return Ok(secret_input::ask_twice(
            "Secret (not shown): ",
            "Once more: ",
            MAX_SECRET_BYTES,
        )?);
    }
    Ok(secret_input::read_all(source, MAX_SECRET_BYTES)?)
}

fn explain(error: SplitError) -> Failure {
    let is_empty = matches!(error, SplitError::SecretLength { bytes: 0 });
    let failure = Failure::new(Code::Failed, error);
    if is_empty {
        return failure.advise("see whether the command before the pipe failed, or the file is empty");
    }
    failure
}

fn print_line(text: &str) -> Result<(), Failure> {
    let mut line = Zeroizing::new(String::with_capacity(text.len() + 1));
    line.push_str(text);
    line.push('\n');
    output::print(line.as_bytes())
}

/// Written by hand, because a JSON library would leave copies of the shares; their characters need no escapes.
fn json(shares: &[Share], m: u8, n: u8) -> Zeroizing<String> {
    let lines: Vec<Zeroizing<String>> = shares.iter().map(Share::encode).collect();
    let set = shares.first().map(Share::set).unwrap_or_default();
    let room = 100 + lines.iter().map(|line| line.len() + 3).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(&format!(
        "{{\"set\":\"{set}\",\"threshold\":{m},\"total\":{n},\"shares\":["
    ));
    for (position, line) in lines.iter().enumerate() {
        text.push_str(if position == 0 { "\"" } else { ",\"" });
        text.push_str(line);
        text.push('"');
    }
    text.push_str("]}\n");
    text
}
