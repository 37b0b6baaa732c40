//! Commands of the catalogue. One program by many names: `mdm-find` is `mdm find`, and so on; `mdcli` and the `lcg-*`
//! keep the arguments of the originals (`docs/src/commands/mdm.md`, `docs/src/commands/lcg.md`).

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use hydra_cli::Failure;
use hydra_cli::command::{Example, parse};

pub mod access;
pub mod attributes;
pub mod browse;
pub mod change;
pub mod connection;
mod copies;
mod evidence;
pub mod find;
pub mod get;
pub mod halves;
pub mod headers;
pub mod identify;
pub mod lcg;
pub mod mdcli;
pub mod register;
pub mod schema;
pub mod steps;
pub mod tape;
pub mod withdraw;

/// One of the commands that this program is.
struct Command {
    name: &'static str,
    /// What it does, for the list of commands.
    about: &'static str,
    examples: &'static [Example],
    run: fn(Vec<OsString>, &[Example]) -> Result<(), Failure>,
}

/// A command whose arguments are read by clap.
fn with<T: Parser>(
    arguments: Vec<OsString>,
    examples: &[Example],
    verb: impl FnOnce(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    parse::<T>(arguments, examples)?.map_or(Ok(()), |parsed| verb(&parsed))
}

const COMMANDS: &[Command] = &[
    Command {
        name: "mdm-find",
        about: "find files by their attributes",
        examples: find::EXAMPLES,
        run: |arguments, examples| with(arguments, examples, find::find),
    },
    Command {
        name: "mdm-get",
        about: "get images, opened",
        examples: get::EXAMPLES,
        run: |arguments, examples| with(arguments, examples, get::get),
    },
    Command {
        name: "mdm-getacl",
        about: "show who may do what with name, halves and key",
        examples: access::GETACL_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, access::getacl),
    },
    Command {
        name: "mdm-ls",
        about: "list a directory",
        examples: browse::LS_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, browse::ls),
    },
    Command {
        name: "mdm-mkdir",
        about: "make directories",
        examples: change::MKDIR_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, change::mkdir),
    },
    Command {
        name: "mdm-register",
        about: "register images of a PACS without copying them",
        examples: register::EXAMPLES,
        run: |arguments, examples| with(arguments, examples, register::register),
    },
    Command {
        name: "mdm-rm",
        about: "remove names with their attributes",
        examples: change::RM_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, change::rm),
    },
    Command {
        name: "mdm-schema",
        about: "show or change the attributes of a collection",
        examples: schema::EXAMPLES,
        run: |arguments, examples| with(arguments, examples, schema::schema),
    },
    Command {
        name: "mdm-set",
        about: "set attributes, replicas, checksums",
        examples: change::SET_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, change::set),
    },
    Command {
        name: "mdm-setacl",
        about: "change who may do what with name, halves and key",
        examples: access::SETACL_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, access::setacl),
    },
    Command {
        name: "mdm-show",
        about: "show all that you may see of a file",
        examples: browse::SHOW_EXAMPLES,
        run: |arguments, examples| with(arguments, examples, browse::show),
    },
    Command {
        name: "mdm-withdraw",
        about: "remove a patient's images: keys, copies, names",
        examples: withdraw::EXAMPLES,
        run: |arguments, examples| with(arguments, examples, withdraw::withdraw),
    },
];

/// The names that this program answers to, beside `mdm` itself.
pub fn names() -> impl Iterator<Item = &'static str> {
    let originals = lcg::NAMES.iter().map(|(name, _)| *name);
    COMMANDS
        .iter()
        .map(|command| command.name)
        .chain(originals)
        .chain(["mdcli"])
}

/// Runs what the process was called by, or what its first operand names. For `main`, and nothing else.
pub fn run() -> ExitCode {
    hydra_cli::harden();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = hydra_cli::called_as(&arguments);
    if let Some(command) = COMMANDS.iter().find(|command| command.name == called) {
        return hydra_cli::exit((command.run)(arguments, command.examples));
    }
    if let Some(command) = lcg::named(&called) {
        return lcg::run(command, &called, arguments.get(1..).unwrap_or_default());
    }
    if called == "mdcli" {
        return mdcli::run(arguments.get(1..).unwrap_or_default());
    }
    let first = arguments.get(1).and_then(|word| word.to_str());
    if let Some((name, command)) = first.and_then(|word| Some((word, lcg::named(word)?))) {
        return lcg::run(command, name, &arguments[2..]);
    }
    if first == Some("mdcli") {
        return mdcli::run(&arguments[2..]);
    }
    match arguments.get(1).and_then(|word| named(word)) {
        Some(command) => {
            let mut rest = vec![OsString::from(command.name)];
            rest.extend(arguments.into_iter().skip(2));
            hydra_cli::exit((command.run)(rest, command.examples))
        }
        None => hydra_cli::exit(alone(arguments)),
    }
}

/// `find` and `mdm-find` are one.
fn named(word: &OsStr) -> Option<&'static Command> {
    let word = word.to_str()?;
    COMMANDS
        .iter()
        .find(|command| command.name == word || command.name.strip_prefix("mdm-") == Some(word))
}

/// The program by its own name, without a command: its help, its completions, or wrong usage.
fn alone(arguments: Vec<OsString>) -> Result<(), Failure> {
    parse::<Alone>(arguments, ALONE_EXAMPLES).map(drop)
}

/// What `mdm` itself reads. The commands read their own arguments, and are found before.
struct Alone;

const ALONE_EXAMPLES: &[Example] = &[Example {
    says: "The same as mdm-ls",
    command: "mdm ls /myvo/images",
}];

impl CommandFactory for Alone {
    fn command() -> clap::Command {
        let short = |command: &Command| {
            let name = command.name.strip_prefix("mdm-").unwrap_or(command.name);
            clap::Command::new(name).about(command.about)
        };
        clap::Command::new("mdm")
            .about("Commands of the catalogue, each a program of its own too: mdm-find is `mdm find`")
            .subcommand_required(true)
            .disable_help_subcommand(true)
            .subcommands(COMMANDS.iter().map(short))
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

impl FromArgMatches for Alone {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

impl Parser for Alone {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_both_names_and_sorted() {
        assert_eq!(named(OsStr::new("find")).map(|one| one.name), Some("mdm-find"));
        assert_eq!(named(OsStr::new("mdm-find")).map(|one| one.name), Some("mdm-find"));
        assert!(named(OsStr::new("eds-put")).is_none());
        let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn every_command_line_is_sound() {
        Alone::command().debug_assert();
        find::Find::command().debug_assert();
        access::GetAcl::command().debug_assert();
        access::SetAcl::command().debug_assert();
        browse::Ls::command().debug_assert();
        browse::Show::command().debug_assert();
        get::Get::command().debug_assert();
        register::Register::command().debug_assert();
        withdraw::Withdraw::command().debug_assert();
        change::Mkdir::command().debug_assert();
        change::Rm::command().debug_assert();
        change::Set::command().debug_assert();
        schema::SchemaArgs::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in COMMANDS {
            assert!(!command.examples.is_empty(), "{}", command.name);
            for example in command.examples {
                assert!(
                    example.command.starts_with(&format!("{} ", command.name)),
                    "{}",
                    example.command
                );
            }
        }
    }
}
