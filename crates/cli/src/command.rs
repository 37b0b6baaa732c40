//! How every command reads its arguments: by clap, with examples and exit codes in `--help` and in the manual page,
//! and with `--generate` for the manual page and the completions of shells.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, Command, Parser};
use clap_mangen::roff::{Roff, bold, roman};

use crate::{Code, EXIT_CODES_HELP, Failure, exit, output};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const GENERATE: &str = "generate";
const KINDS: [&str; 4] = ["man", "bash", "zsh", "fish"];

/// A use of a command as `--help` and the manual show it.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// What it does, a sentence without a full stop.
    pub says: &'static str,
    /// What to type.
    pub command: &'static str,
}

/// Why arguments were not understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// The whole of a usual `main` but [`crate::harden`]: parses, calls the verb, prints what went wrong, answers the code.
pub fn run<T: Parser>(examples: &[Example], verb: impl FnOnce(T) -> Result<(), Failure>) -> ExitCode {
    exit(parse::<T>(std::env::args_os().collect(), examples).and_then(|parsed| parsed.map_or(Ok(()), verb)))
}

/// Parses arguments, the program's name first; none where help, version or `--generate` was asked for and is printed.
///
/// # Errors
/// Wrong usage, or an output that cannot be written.
pub fn parse<T: Parser>(arguments: Vec<OsString>, examples: &[Example]) -> Result<Option<T>, Failure> {
    let mut command = complete(T::command(), examples);
    if let Some(kind) = asked_for(&arguments) {
        output::print(&generate(&mut command, &kind, examples)?)?;
        return Ok(None);
    }
    let name = command.get_name().to_owned();
    let parsed = command
        .try_get_matches_from(arguments)
        .and_then(|matches| T::from_arg_matches(&matches));
    match parsed {
        Ok(parsed) => Ok(Some(parsed)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // clap looks for a terminal and NO_COLOR itself
            output::forgive_broken_pipe(error.print())?;
            Ok(None)
        }
        Err(error) => Err(usage(&error, &name)),
    }
}

/// Wrong usage as a failure: exit code 2, with the way to the help.
pub fn usage(error: &clap::Error, name: &str) -> Failure {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let sentence: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    let mut failure = Failure::new(Code::Usage, UsageError(sentence.join(" ")));
    if let Some(tips) = error.get(ContextKind::Suggested) {
        failure.advice.extend(tips.to_string().lines().map(str::to_owned));
    } else if let Some(similar) = error
        .get(ContextKind::SuggestedArg)
        .or(error.get(ContextKind::SuggestedSubcommand))
    {
        failure.advice.push(similar.to_string());
    }
    failure.advise(format!("{name} --help"))
}

/// A failure of usage that clap cannot see: arguments that are wrong together.
pub fn usage_error(text: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, UsageError(text.into()))
}

/// Adds what all commands have: version, examples, exit codes, `--generate`.
fn complete(command: Command, examples: &[Example]) -> Command {
    let generate = Arg::new(GENERATE)
        .long(GENERATE)
        .value_name("WHAT")
        .value_parser(PossibleValuesParser::new(KINDS))
        .exclusive(true)
        .help("Print the manual page or a shell's completions, as the only option");
    let mut after = String::new();
    if !examples.is_empty() {
        after.push_str("Examples:\n");
        for example in examples {
            after.push_str(&format!("  {}:\n    $ {}\n", example.says, example.command));
        }
        after.push('\n');
    }
    after.push_str(EXIT_CODES_HELP);
    command.version(VERSION).arg(generate).after_long_help(after)
}

/// What `--generate` names where it is the first argument: seen before clap asks for operands or a subcommand.
fn asked_for(arguments: &[OsString]) -> Option<String> {
    let first = arguments.get(1)?.to_str()?;
    let kind = match first.strip_prefix("--generate")? {
        "" => arguments.get(2)?.to_str()?,
        rest => rest.strip_prefix('=')?,
    };
    (KINDS.contains(&kind) && arguments.len() <= 3).then(|| kind.to_owned())
}

fn generate(command: &mut Command, kind: &str, examples: &[Example]) -> Result<Vec<u8>, Failure> {
    use clap_complete::shells::{Bash, Fish, Zsh};
    let name = command.get_name().to_owned();
    let mut out = Vec::new();
    match kind {
        "bash" => clap_complete::generate(Bash, command, name, &mut out),
        "zsh" => clap_complete::generate(Zsh, command, name, &mut out),
        "fish" => clap_complete::generate(Fish, command, name, &mut out),
        _ => manual(command, examples, &mut out).map_err(|error| Failure::new(Code::Io, error))?,
    }
    Ok(out)
}

/// The manual page: one page, subcommands included, so that there is one file for each binary.
fn manual(command: &mut Command, examples: &[Example], out: &mut Vec<u8>) -> std::io::Result<()> {
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    for subcommand in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        let mut section = Roff::new();
        section.control("SH", [format!("COMMAND {}", subcommand.get_name()).as_str()]);
        section.text([roman(
            subcommand.get_about().map(ToString::to_string).unwrap_or_default(),
        )]);
        section.to_writer(out)?;
        clap_mangen::Man::new(subcommand.clone()).render_options_section(out)?;
    }
    let mut rest = Roff::new();
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        for example in examples {
            rest.control("TP", [])
                .text([roman(example.says)])
                .text([bold(example.command)]);
        }
    }
    rest.control("SH", ["EXIT STATUS"]);
    for line in EXIT_CODES_HELP.lines().skip(1) {
        let (code, meaning) = line.trim().split_once(' ').unwrap_or_default();
        rest.control("TP", []).text([bold(code)]).text([roman(meaning.trim())]);
    }
    rest.to_writer(out)?;
    page.render_version_section(out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "eds-try", about = "Tries things")]
    struct Arguments {
        /// What to try
        thing: String,
        #[arg(long)]
        hard: bool,
    }

    const EXAMPLES: [Example; 1] = [Example {
        says: "Try a thing",
        command: "eds-try thing",
    }];

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn wrong_usage_is_one_sentence_with_exit_code_2() {
        let failure = parse::<Arguments>(words("eds-try --hrad x"), &EXAMPLES).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        let lines = failure.lines();
        assert!(lines[0].starts_with("error: unexpected argument '--hrad'"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("--hard")), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "  try: eds-try --help");
        let lines = parse::<Arguments>(words("eds-try"), &EXAMPLES).unwrap_err().lines();
        assert!(lines[0].contains("<THING>"), "{lines:?}");
    }

    #[test]
    fn arguments_arrive() {
        let parsed = parse::<Arguments>(words("eds-try x --hard"), &EXAMPLES)
            .unwrap()
            .unwrap();
        assert!(parsed.hard && parsed.thing == "x");
    }

    #[test]
    fn the_manual_page_has_examples_and_exit_codes() {
        let mut command = complete(Arguments::command(), &EXAMPLES);
        let page = String::from_utf8(generate(&mut command, "man", &EXAMPLES).unwrap()).unwrap();
        for part in ["eds\\-try thing", "EXIT STATUS", "too few stores", "\\-\\-hard"] {
            assert!(page.contains(part), "{part} in {page}");
        }
        for shell in ["bash", "zsh", "fish"] {
            assert!(!generate(&mut command, shell, &EXAMPLES).unwrap().is_empty(), "{shell}");
        }
    }

    #[test]
    fn generate_needs_no_operands() {
        assert_eq!(asked_for(&words("x --generate man")).as_deref(), Some("man"));
        assert_eq!(asked_for(&words("x --generate=zsh")).as_deref(), Some("zsh"));
        assert_eq!(asked_for(&words("x --generate vi")), None);
        assert_eq!(asked_for(&words("x --generate")), None);
    }

    #[test]
    fn clap_finds_no_fault_in_what_is_added() {
        complete(Arguments::command(), &EXAMPLES).debug_assert();
    }
}
