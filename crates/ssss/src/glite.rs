//! The five `glite-ssss-*` names: the originals' operands, output to the byte, and exit codes; see
//! `docs/src/commands/glite.md`. What the originals got wrong (silent changes, crashes) is refused instead.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use hydra_cli::command::VERSION;
use hydra_cli::secret_input::{self, SecretInputError, Source};
use hydra_cli::{Code, Failure, manual, output};
use hydra_core::shamir::glite;
use zeroize::Zeroizing;

use crate::log::{self, Level, Place};

/// How much is read in place of the operands of joining.
const MAX_SHARES_BYTES: usize = 1 << 30;

/// Which of the five it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    SplitPassword,
    JoinPassword,
    SplitKey,
    JoinKey,
    GenerateKey,
}

/// Why a tool did not do it.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    #[error("`{text}` is no plain decimal number from 1 to {}", u32::MAX)]
    Number { text: String },
    #[error("the {what} is not text")]
    NoText { what: &'static str },
    #[error(transparent)]
    Input(SecretInputError),
    #[error(transparent)]
    Split(glite::SplitError),
    #[error(transparent)]
    Join(glite::JoinError),
}

/// What arguments ask for.
enum Request<'a> {
    Usage(u8),
    Version,
    Work { quiet: bool, operands: Vec<&'a [u8]> },
}

/// What came of it: text for standard output.
type Answer = Result<Zeroizing<Vec<u8>>, ToolError>;

impl Tool {
    const ALL: [Self; 5] = [
        Self::SplitPassword,
        Self::JoinPassword,
        Self::SplitKey,
        Self::JoinKey,
        Self::GenerateKey,
    ];

    /// The tool of this name, if it is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::SplitPassword => "glite-ssss-split-passwd",
            Self::JoinPassword => "glite-ssss-join-passwd",
            Self::SplitKey => "glite-ssss-split-key",
            Self::JoinKey => "glite-ssss-join-key",
            Self::GenerateKey => "glite-ssss-generate-key",
        }
    }

    /// Does it, all of it, and answers the exit code.
    pub(crate) fn run(self, arguments: &[OsString]) -> ExitCode {
        if manual::is_asked_for(arguments) {
            return hydra_cli::exit(self.manual().and_then(|page| output::print(&page)));
        }
        let given: Vec<&[u8]> = arguments.iter().skip(1).map(|argument| argument.as_bytes()).collect();
        let (text, code) = match self.read(&given) {
            Request::Usage(code) => (Zeroizing::new(self.usage().into_bytes()), code),
            Request::Version => {
                let line = format!("{} Version {VERSION} by (C) EGEE\n", self.name());
                (Zeroizing::new(line.into_bytes()), 0)
            }
            Request::Work { quiet, operands } => self.work(quiet, &operands).unwrap_or_else(|error| self.fail(error)),
        };
        match output::print(&text) {
            Ok(()) => ExitCode::from(code),
            Err(failure) => {
                tell(failure);
                ExitCode::from(self.failure_code())
            }
        }
    }

    /// As getopt(3) of GNU does: options anywhere until `--`, in clusters, the first that ends the program wins.
    fn read<'a>(self, arguments: &[&'a [u8]]) -> Request<'a> {
        let (mut quiet, mut operands, mut only_operands) = (false, Vec::new(), false);
        for argument in arguments {
            if only_operands || *argument == b"-" || !argument.starts_with(b"-") {
                operands.push(*argument);
                continue;
            }
            if *argument == b"--" {
                only_operands = true;
                continue;
            }
            for option in &argument[1..] {
                match option {
                    // the original took any operand of this one for a length, and `-h` is none
                    b'h' => return Request::Usage(u8::from(self == Self::GenerateKey)),
                    b'V' => return Request::Version,
                    b'q' if self != Self::GenerateKey => quiet = true,
                    other => {
                        output::tell(&format!("{}: invalid option -- '{}'", self.name(), char::from(*other)));
                        return Request::Usage(1);
                    }
                }
            }
        }
        let enough = match self {
            Self::SplitPassword | Self::SplitKey => operands.len() == 3,
            // `-` stands for words that are not known yet
            Self::JoinPassword | Self::JoinKey => operands.len() >= 2 || operands == [b"-"],
            Self::GenerateKey => !operands.is_empty(),
        };
        if enough {
            Request::Work { quiet, operands }
        } else {
            Request::Usage(1)
        }
    }

    fn work(self, quiet: bool, operands: &[&[u8]]) -> Result<(Zeroizing<Vec<u8>>, u8), ToolError> {
        match self {
            Self::SplitPassword | Self::SplitKey => Ok((self.split(quiet, operands)?, 0)),
            Self::JoinPassword | Self::JoinKey => {
                let words = words(operands)?;
                if words.len() < 2 {
                    return Ok((Zeroizing::new(self.usage().into_bytes()), 1));
                }
                Ok((self.join(quiet, &words)?, 0))
            }
            Self::GenerateKey => Ok((generate(operands[0])?, 0)),
        }
    }

    fn split(self, quiet: bool, operands: &[&[u8]]) -> Answer {
        let (shares, needed) = (number(operands[0])?, number(operands[1])?);
        let secret = if operands[2] == b"-" {
            ask(self.secret_word())?
        } else {
            Zeroizing::new(operands[2].to_vec())
        };
        let made = match self {
            Self::SplitPassword => glite::split_password(&secret, shares, needed),
            _ => std::str::from_utf8(&secret)
                .map_err(|_| ToolError::NoText { what: "key" })
                .map(|key| glite::split_key(key, shares, needed))?,
        };
        let made = made.map_err(ToolError::Split)?;
        let message = format!("split a {} into {shares} shares, {needed} needed", self.secret_word());
        log::write(
            Level::Info,
            &message,
            &Place {
                file: file!(),
                function: "split",
                line: line!(),
            },
        );
        let (headline, list, label) = match self {
            Self::SplitPassword => ("Password to split", "Split passwords:", "splitPasswd"),
            _ => ("Key to split", "Split keys:", "splitKey"),
        };
        let room = 64 + operands[2].len() + made.iter().map(|share| share.len() + 32).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        if !quiet {
            // the secret is repeated as the operand that everybody sees anyway; one from standard input is not
            out.extend_from_slice(format!("\n{headline} ({needed} of {shares}): ").as_bytes());
            out.extend_from_slice(operands[2]);
            out.extend_from_slice(format!("\n\n{list}").as_bytes());
        }
        for (index, share) in (1..).zip(&made) {
            if !quiet {
                out.extend_from_slice(format!("\n{index}. {label} = ").as_bytes());
            }
            out.extend_from_slice(share.as_bytes());
            out.push(b' ');
        }
        out.push(b'\n');
        Ok(out)
    }

    fn join(self, quiet: bool, words: &[Zeroizing<String>]) -> Answer {
        let shares: Vec<Option<&str>> = words.iter().map(|word| glite::operand(word)).collect();
        let present = shares.iter().flatten().count();
        let message = format!(
            "join a {} from {present} shares in {} places",
            self.secret_word(),
            shares.len()
        );
        log::write(
            Level::Debug,
            &message,
            &Place {
                file: file!(),
                function: "join",
                line: line!(),
            },
        );
        let mut out = Zeroizing::new(Vec::new());
        match self {
            Self::JoinPassword => {
                let password = glite::join_password(&shares).map_err(ToolError::Join)?;
                let headline = if quiet { "" } else { "\nJoined password : " };
                out.reserve_exact(headline.len() + password.len() + 1);
                out.extend_from_slice(headline.as_bytes());
                out.extend_from_slice(password.expose());
            }
            _ => {
                let key = glite::join_key(&shares).map_err(ToolError::Join)?;
                let headline = if quiet { "" } else { "\nJoined key : " };
                out.reserve_exact(headline.len() + key.len() + 1);
                out.extend_from_slice(headline.as_bytes());
                out.extend_from_slice(key.as_bytes());
            }
        }
        out.push(b'\n');
        Ok(out)
    }

    /// The originals' words on standard output, the reason on standard error and in the log.
    fn fail(self, error: ToolError) -> (Zeroizing<Vec<u8>>, u8) {
        let place = Place {
            file: file!(),
            function: "fail",
            line: line!(),
        };
        log::write(Level::Error, &format!("{}: {error}", self.name()), &place);
        tell(Failure::new(hydra_cli::Code::Failed, error));
        let words = match self {
            Self::SplitPassword => "\n\nError in splitting password. Check logfile",
            Self::SplitKey => "\n\nError in splitting key. Check logfile",
            // so spelt in the original, and scripts may look for it
            Self::JoinPassword => "\n\nError in joining pasword. Check logfile",
            Self::JoinKey => "\n\nError in joining key. Check logfile",
            Self::GenerateKey => "",
        };
        (Zeroizing::new(words.as_bytes().to_vec()), self.failure_code())
    }

    fn failure_code(self) -> u8 {
        match self {
            Self::JoinPassword | Self::JoinKey => 2,
            _ => 1,
        }
    }

    fn secret_word(self) -> &'static str {
        match self {
            Self::SplitPassword | Self::JoinPassword => "password",
            _ => "key",
        }
    }

    fn manual(self) -> Result<Vec<u8>, Failure> {
        let program = crate::GLITE_NAMES.iter().find(|(name, _)| *name == self.name());
        let wrong_operands = ("1", "wrong usage, or a secret that cannot be split");
        let alias = manual::Alias {
            name: self.name(),
            program: program.map_or("ssss-split", |(_, program)| program),
            usage: &self.usage(),
            exit_codes: match self {
                Self::JoinPassword | Self::JoinKey => {
                    &[("0", "done"), ("1", "wrong usage"), ("2", "the shares do not join")]
                }
                _ => &[("0", "done"), wrong_operands],
            },
        };
        alias.page().map_err(|error| Failure::new(Code::Failed, error))
    }

    fn usage(self) -> String {
        let (operands, says) = match self {
            Self::SplitPassword => (
                "[-q] N K PASSWORD",
                "Split PASSWORD into N shares, any K of which join to it again.",
            ),
            Self::SplitKey => (
                "[-q] N K KEY",
                "Split KEY (hex, a multiple of 4 digits) into N shares, any K of which join to it again.",
            ),
            Self::JoinPassword => (
                "[-q] SHARE|NULL SHARE|NULL...",
                "Join a password from its shares, each in its place, NULL in the place of one that is missing.",
            ),
            Self::JoinKey => (
                "[-q] SHARE|NULL SHARE|NULL...",
                "Join a key from its shares, each in its place, NULL in the place of one that is missing.",
            ),
            Self::GenerateKey => ("LENGTH", "Write a random key of LENGTH hex digits, a multiple of 4."),
        };
        let mut text = format!("Usage: {} {operands}\n{says}\n", self.name());
        match self {
            Self::GenerateKey => {}
            Self::SplitPassword | Self::SplitKey => {
                text.push_str("  -q  print the shares alone, on one line\n");
                text.push_str(&format!(
                    "  -   in place of the {} reads it from standard input\n",
                    self.secret_word()
                ));
            }
            Self::JoinPassword | Self::JoinKey => {
                text.push_str(&format!("  -q  print the {} alone\n", self.secret_word()));
                text.push_str("  -   in place of shares reads them from standard input\n");
            }
        }
        if self != Self::GenerateKey {
            text.push_str("  -h  print this text\n");
        }
        text.push_str("  -V  print the version\n");
        text
    }
}

/// A failure on standard error; the exit code is the tool's own.
fn tell(failure: Failure) {
    let _ = hydra_cli::exit(Err(failure));
}

fn generate(operand: &[u8]) -> Answer {
    let digits = usize::try_from(number(operand)?).unwrap_or(usize::MAX);
    let key = glite::generate_key(digits).map_err(ToolError::Split)?;
    let mut out = Zeroizing::new(Vec::with_capacity(key.len() + 1));
    out.extend_from_slice(key.as_bytes());
    out.push(b'\n');
    Ok(out)
}

/// Plain decimal and nothing else: the originals took `5x` for 5, and `abc` for 0.
fn number(operand: &[u8]) -> Result<u32, ToolError> {
    let text = String::from_utf8_lossy(operand);
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| ToolError::Number {
        text: text.into_owned(),
    })
}

/// A secret from standard input in place of an operand; one line end after it is not part of it.
fn ask(what: &str) -> Result<Zeroizing<Vec<u8>>, ToolError> {
    if Source::Stdin.is_terminal() {
        return secret_input::ask(&format!("The {what} (not shown): "), glite::MAX_KEY_DIGITS)
            .map_err(ToolError::Input);
    }
    let mut secret = secret_input::read_all(&Source::Stdin, glite::MAX_KEY_DIGITS + 2).map_err(ToolError::Input)?;
    if secret.ends_with(b"\n") {
        secret.pop();
        if secret.ends_with(b"\r") {
            secret.pop();
        }
    }
    Ok(secret)
}

/// The operands of joining; the words of standard input in the place of `-`.
fn words(operands: &[&[u8]]) -> Result<Vec<Zeroizing<String>>, ToolError> {
    let mut words = Vec::new();
    let mut push = |word: &[u8]| match std::str::from_utf8(word) {
        Ok(word) => {
            words.push(Zeroizing::new(word.to_owned()));
            Ok(())
        }
        Err(_) => Err(ToolError::NoText { what: "share" }),
    };
    for operand in operands {
        if *operand != b"-" {
            push(operand)?;
            continue;
        }
        let text = if Source::Stdin.is_terminal() {
            secret_input::ask("The shares, on one line (not shown): ", glite::MAX_KEY_DIGITS)
        } else {
            secret_input::read_all(&Source::Stdin, MAX_SHARES_BYTES)
        };
        let text = text.map_err(ToolError::Input)?;
        text.split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .try_for_each(&mut push)?;
    }
    Ok(words)
}
