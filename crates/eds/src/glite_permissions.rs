//! `glite-eds-getacl`, `-setacl` and `-chmod`: the original's permission commands over the verbs of this crate.
//!
//! They are a family of their own there: failures exit with 1, say `ERROR …` on standard error and nothing with `-q`,
//! results are told with `-v` alone (`docs/src/commands/glite.md`).

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use hydra_cli::output::print;
use hydra_cli::verbosity::Verbosity;
use hydra_cli::{Code, Failure, printable};
use hydra_core::config::load::{self, Overrides, Surroundings};
use hydra_core::keystore::agreement::{Agreement, ChangeError, ChangeOptions, PermissionsReport, RecordHeld};
use hydra_core::keystore::hydra::{StoreCheck, StoreFault};
use hydra_core::permissions::text::{AclEdit, AclTextError, Listing, Mode, principal_to_remove, read_list};
use hydra_core::permissions::{AclEntry, PermissionRecord};

use crate::getopt::{self, Wrong};
use crate::permissions::{Meant, change_failure, change_first, for_each, read_text, report_first};
use crate::session::{Session, SessionError, find_credential};

/// Ids in one request, where `-b` does not say.
const DEFAULT_BATCH: usize = 100;

/// A permission command of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `glite-eds-getacl`
    GetAcl,
    /// `glite-eds-setacl`
    SetAcl,
    /// `glite-eds-chmod`
    Chmod,
}

impl Command {
    /// The command of this name, if it is one of them.
    pub fn called(name: &str) -> Option<Self> {
        Some(match name {
            "glite-eds-getacl" => Self::GetAcl,
            "glite-eds-setacl" => Self::SetAcl,
            "glite-eds-chmod" => Self::Chmod,
            _ => return None,
        })
    }

    fn options(self) -> &'static str {
        match self {
            Self::GetAcl => "hVqvs:",
            Self::SetAcl => "hVqvs:b:m:d:x:M:D:X:",
            Self::Chmod => "hVqvs:b:",
        }
    }

    fn usage(self, name: &str) -> String {
        let (operands, extra) = match self {
            Self::GetAcl => ("ID [ID...]", ""),
            Self::SetAcl => (
                "[-m PRINCIPAL:PERMS]... [-d PRINCIPAL]... | -x PRINCIPAL:PERMS... | \
                 -M FILE | -D FILE | -X FILE ID [ID...]",
                " -m PRINCIPAL:PERMS  set the permissions of a principal, may be repeated\n\
                 \x20-d PRINCIPAL        remove a principal, may be repeated\n\
                 \x20-x PRINCIPAL:PERMS  make the ACL exactly this, may be repeated; NONE empties it\n\
                 \x20-M, -D, -X FILE     the same from a file, - is standard input\n\
                 \x20-b NUM              ids in one request, default 100\n",
            ),
            Self::Chmod => (
                "MODE ID [ID...]",
                " MODE        [ugoa][+-=][pdrwlxgs-], more of them with commas between\n\
                 \x20-b NUM      ids in one request, default 100\n",
            ),
        };
        format!(
            "Usage: {name} [-h] [-V] [-q] [-v] [-s SERVICE] {operands}\n{extra} -s SERVICE  one key store: its URL, or its \
             name in services.xml\n -h          print this and exit\n -V          print the version and exit\n -q          \
             print nothing, not even errors\n -v          print what happens\n"
        )
    }
}

/// A command line, read.
#[derive(Debug, Default)]
struct Line {
    quiet: bool,
    verbose: bool,
    service: Option<OsString>,
    batch: usize,
    set: Vec<OsString>,
    remove: Vec<OsString>,
    exact: Vec<OsString>,
    file: Option<(u8, OsString)>,
    operands: Vec<OsString>,
}

/// What is wrong, in the original's words, and what we know besides.
struct Trouble {
    words: String,
    more: Vec<String>,
}

impl Trouble {
    fn error(words: &str, typed: &str, failure: &Failure) -> Self {
        Self {
            words: format!("ERROR {words} {}", printable(typed)),
            more: failure.lines(),
        }
    }

    fn plain(failure: &Failure) -> Self {
        Self {
            words: format!("ERROR {}", printable(&failure.error.to_string())),
            more: failure.lines().into_iter().skip(1).collect(),
        }
    }

    /// Wrong usage: told also with `-q`, which may not have been read yet.
    fn usage(words: &str, more: Option<String>) -> Self {
        Self {
            words: words.to_owned(),
            more: more.into_iter().map(|line| format!("  cause: {line}")).collect(),
        }
    }
}

const ILLEGAL: &str = "Illegal command line arguments";

/// Runs a command under its original name.
pub fn run(command: Command, name: &str, arguments: &[OsString]) -> ExitCode {
    let read = match getopt::read(arguments, command.options(), "hV") {
        Ok(read) => read,
        Err(Wrong::Unknown) => return refuse(&Trouble::usage("Unknown command line option", None)),
        Err(Wrong::NoValue) => return refuse(&Trouble::usage(ILLEGAL, None)),
    };
    match read.options.last() {
        Some((b'h', _)) => return printed(&command.usage(name)),
        Some((b'V', _)) => return printed(&format!("{}\n", hydra_core::VERSION)),
        _ => {}
    }
    let line = match meaning(read) {
        Ok(line) => line,
        Err(trouble) => return refuse(&trouble),
    };
    Verbosity {
        verbose: u8::from(line.verbose),
        quiet: line.quiet,
    }
    .start_log();
    let troubles = match command {
        Command::GetAcl => getacl(&line),
        Command::SetAcl => acl_edit(&line).and_then(|edit| {
            let edit = |record: &PermissionRecord| edit.applied_to(record);
            change(&line, &line.operands, "Changed ACLs on", edit)
        }),
        Command::Chmod => mode(&line).and_then(|(mode, ids)| {
            let edit = |record: &PermissionRecord| mode.applied_to(record);
            change(&line, ids, "Changed permissions on", edit)
        }),
    };
    let troubles = match troubles {
        Ok(troubles) if troubles.is_empty() => return ExitCode::SUCCESS,
        Ok(troubles) => troubles,
        Err(trouble) => vec![trouble],
    };
    if !line.quiet {
        troubles.iter().for_each(tell);
    }
    ExitCode::from(Code::Failed as u8)
}

fn printed(text: &str) -> ExitCode {
    hydra_cli::exit(print(text.as_bytes()))
}

fn refuse(trouble: &Trouble) -> ExitCode {
    tell(trouble);
    ExitCode::from(Code::Failed as u8)
}

fn tell(trouble: &Trouble) {
    let mut stderr = io::stderr().lock();
    // nobody is left to tell where standard error is closed
    let _ = writeln!(stderr, "{}", trouble.words);
    for line in &trouble.more {
        let _ = writeln!(stderr, "{line}");
    }
}

fn meaning(read: getopt::Read) -> Result<Line, Trouble> {
    let mut line = Line {
        batch: DEFAULT_BATCH,
        operands: read.operands,
        ..Line::default()
    };
    for (letter, value) in read.options {
        let value = value.unwrap_or_default();
        match letter {
            b'q' => line.quiet = true,
            // takes an earlier -q back
            b'v' => (line.quiet, line.verbose) = (false, true),
            b's' => line.service = Some(value),
            b'b' => line.batch = batch(&value).ok_or_else(|| Trouble::usage(ILLEGAL, None))?,
            b'm' => line.set.push(value),
            b'd' => line.remove.push(value),
            b'x' => line.exact.push(value),
            _ if line.file.is_some() => return Err(Trouble::usage(ILLEGAL, None)),
            letter => line.file = Some((letter, value)),
        }
    }
    Ok(line)
}

fn batch(value: &OsStr) -> Option<usize> {
    let digits = value
        .to_str()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number: usize = digits.parse().ok()?;
    Some(if number == 0 { DEFAULT_BATCH } else { number })
}

fn utf8(text: &OsStr) -> Result<&str, Trouble> {
    let not_utf8 = || Trouble::usage(ILLEGAL, Some("an argument is not UTF-8".to_owned()));
    text.to_str().ok_or_else(not_utf8)
}

fn wrong_acl(error: &AclTextError) -> Trouble {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    let cause = printable(&format!("{error}{}", source.unwrap_or_default()));
    Trouble::usage(ILLEGAL, Some(cause))
}

/// The change that the options of setacl ask for.
fn acl_edit(line: &Line) -> Result<AclEdit, Trouble> {
    let changes = !line.set.is_empty() || !line.remove.is_empty();
    let kinds = [changes, !line.exact.is_empty(), line.file.is_some()];
    if kinds.iter().filter(|asked| **asked).count() != 1 || line.operands.is_empty() {
        return Err(Trouble::usage(ILLEGAL, None));
    }
    let entry = |text: &OsString| utf8(text)?.parse::<AclEntry>().map_err(|error| wrong_acl(&error));
    let Some((letter, path)) = &line.file else {
        if !changes {
            let named = line.exact.iter().filter(|text| *text != "NONE");
            return Ok(AclEdit::exact(named.map(entry).collect::<Result<Vec<_>, _>>()?));
        }
        let principal = |text: &OsString| principal_to_remove(utf8(text)?).map_err(|error| wrong_acl(&error));
        let set = line.set.iter().map(entry).collect::<Result<_, _>>()?;
        let remove = line.remove.iter().map(principal).collect::<Result<_, _>>()?;
        return AclEdit::change(set, remove).map_err(|error| wrong_acl(&error));
    };
    let text = read_text(Path::new(path)).map_err(|failure| Trouble::plain(&failure))?;
    let edit = match letter {
        b'M' => read_list(&text, str::parse).and_then(|set| AclEdit::change(set, Vec::new())),
        b'D' => read_list(&text, principal_to_remove).and_then(|remove| AclEdit::change(Vec::new(), remove)),
        _ => read_list(&text, str::parse::<AclEntry>).map(AclEdit::exact),
    };
    edit.map_err(|error| wrong_acl(&error))
}

fn mode(line: &Line) -> Result<(Mode, &[OsString]), Trouble> {
    let (mode, ids) = line
        .operands
        .split_first()
        .filter(|(_, ids)| !ids.is_empty())
        .ok_or_else(|| Trouble::usage(ILLEGAL, None))?;
    let illegal =
        |error: &dyn std::error::Error| Trouble::usage("Illegal mode argument", Some(printable(&error.to_string())));
    let mode = utf8(mode)?.parse::<Mode>().map_err(|error| illegal(&error))?;
    Ok((mode, ids))
}

/// The key stores: all that are configured, or the one that `-s` names.
fn session(line: &Line) -> Result<Session, Trouble> {
    let around = Surroundings::of_process();
    let opened = match &line.service {
        None => Session::with(&overrides(), &around),
        Some(service) => {
            let service = utf8(service)?;
            if ["http://", "https://", "httpg://"]
                .iter()
                .any(|scheme| service.starts_with(scheme))
            {
                // what is named here comes before services.xml
                let alone = Overrides {
                    stores: vec![service.to_owned()],
                    threshold: Some(1),
                    services_first: false,
                };
                Session::with(&alone, &around)
            } else {
                named(service, &around)?
            }
        }
    };
    let session = opened.map_err(|error| Trouble::plain(&Failure::from(error)))?;
    if line.verbose {
        let checks = session.wait(session.hydra.check());
        let told: String = checks.iter().map(endpoint).collect();
        print(told.as_bytes()).map_err(|failure| Trouble::plain(&failure))?;
    }
    Ok(session)
}

fn overrides() -> Overrides {
    Overrides {
        services_first: true,
        ..Overrides::default()
    }
}

/// A session with the one configured store of this name.
fn named(service: &str, around: &Surroundings) -> Result<Result<Session, SessionError>, Trouble> {
    let plain = |error: SessionError| Trouble::plain(&Failure::from(error));
    let mut config = load::load(&overrides(), around).map_err(|error| plain(error.into()))?;
    config.stores.retain(|store| store.name == service);
    if config.stores.len() != 1 {
        let words = format!("ERROR Service not found: {}", printable(service));
        return Err(Trouble {
            words,
            more: Vec::new(),
        });
    }
    (config.threshold, config.min_threshold) = (1, 1);
    let found = find_credential(around).map_err(plain)?;
    Ok(Session::from_parts(config, &found.credential))
}

/// What the original tells first of each endpoint. Our stores have one version of protocol and schema.
fn endpoint(check: &StoreCheck) -> String {
    let url = printable(&check.url);
    match &check.answer {
        Err(_) => format!("# Using endpoint {url}\n"),
        Ok((about, _)) => {
            let version = printable(&about.version);
            let protocol = about.protocols.iter().max().copied().unwrap_or_default();
            format!(
                "# Using endpoint {url}\n# - service version: {version}\n# - interface version: {protocol}\n\
                 # - schema version: {protocol}\n"
            )
        }
    }
}

/// The ids; of those that are none, the trouble.
fn meant(ids: &[OsString]) -> Result<(Vec<Meant>, Vec<Trouble>), Trouble> {
    let mut all = Vec::new();
    let mut troubles = Vec::new();
    for id in ids {
        let typed = utf8(id)?;
        match Meant::new(typed) {
            Ok(meant) => all.push(meant),
            Err(error) => {
                let failure = crate::operands::bad_key_id(typed, error);
                troubles.push(Trouble::error("Missing permission for", typed, &failure));
            }
        }
    }
    Ok((all, troubles))
}

fn getacl(line: &Line) -> Result<Vec<Trouble>, Trouble> {
    if line.operands.is_empty() {
        return Err(Trouble::usage(ILLEGAL, None));
    }
    let (all, mut troubles) = meant(&line.operands)?;
    let session = session(line)?;
    let verb = async |one: &Meant| report_first(&session.hydra, one).await;
    let reports = session.wait(for_each(&all, line.batch, verb));
    let mut blocks = Vec::new();
    for (one, report) in all.iter().zip(reports) {
        let report = report.map_err(|error| Trouble::plain(&crate::failure::local(error)))?;
        let title = printable(&one.typed);
        if line.verbose {
            let urls = session.hydra.config().stores.iter().map(|store| store.url.as_str());
            for (url, (_, held)) in urls.zip(&report.stores) {
                match held {
                    Ok(held) => blocks.push(format!(
                        "# ENTRY: {title}\n# ENDPOINT: {url}\n{}",
                        Listing(&held.record)
                    )),
                    Err(fault) => troubles.push(missing(&one.typed, std::slice::from_ref(fault))),
                }
            }
            if report.agreement != Agreement::Everywhere && report.stores.iter().all(|(_, held)| held.is_ok()) {
                troubles.push(corrupted(&one.typed, &report));
            }
            continue;
        }
        match (report.agreement, &report.record) {
            (Agreement::Everywhere, Some(record)) => blocks.push(format!("# ENTRY: {title}\n{}", Listing(record))),
            (Agreement::Unknown, _) => {
                let faults: Vec<&StoreFault> = faults(&report).collect();
                troubles.push(missing(&one.typed, faults));
            }
            _ => troubles.push(corrupted(&one.typed, &report)),
        }
    }
    print(blocks.join("\n").as_bytes()).map_err(|failure| Trouble::plain(&failure))?;
    Ok(troubles)
}

fn faults(report: &PermissionsReport) -> impl Iterator<Item = &StoreFault> {
    report.stores.iter().filter_map(|(_, held)| held.as_ref().err())
}

fn missing<'f>(typed: &str, faults: impl IntoIterator<Item = &'f StoreFault>) -> Trouble {
    let cause = |fault: &StoreFault| format!("  cause: {}", printable(&fault.to_string()));
    Trouble {
        words: format!("ERROR Missing permission for {}", printable(typed)),
        more: faults.into_iter().map(cause).collect(),
    }
}

fn corrupted(typed: &str, report: &PermissionsReport) -> Trouble {
    let cause = |(store, held): &(String, Result<RecordHeld, StoreFault>)| {
        let what = match held {
            Ok(held) => format!("{store} holds version {}", held.record.version),
            Err(fault) => fault.to_string(),
        };
        format!("  cause: {}", printable(&what))
    };
    Trouble {
        words: format!("ERROR Corrupted permissions for {}", printable(typed)),
        more: report.stores.iter().map(cause).collect(),
    }
}

/// Changes nothing of an id unless every store is there; what broke off half-way is told, also in a full batch.
fn change(
    line: &Line,
    ids: &[OsString],
    done: &str,
    edit: impl Fn(&PermissionRecord) -> PermissionRecord,
) -> Result<Vec<Trouble>, Trouble> {
    let (all, mut troubles) = meant(ids)?;
    let session = session(line)?;
    let options = ChangeOptions {
        over: None,
        all_or_nothing: true,
    };
    let verb = async |one: &Meant| change_first(&session.hydra, one, &edit, &options).await;
    let outcomes = session.wait(for_each(&all, line.batch, verb));
    let mut told = String::new();
    for (one, outcome) in all.iter().zip(outcomes) {
        match outcome {
            Ok(changed) if changed.changed.is_empty() => {}
            Ok(_) => told += &format!("{done} {}\n", printable(&one.typed)),
            Err(error) => {
                let words = match error {
                    ChangeError::NotFound { .. } => "Missing permission for",
                    _ => "Change failed on",
                };
                troubles.push(Trouble::error(words, &one.typed, &change_failure(error)));
            }
        }
    }
    if line.verbose {
        print(told.as_bytes()).map_err(|failure| Trouble::plain(&failure))?;
    }
    Ok(troubles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: Command, words: &str) -> Result<Line, String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let read = getopt::read(&words, command.options(), "hV").map_err(|wrong| format!("{wrong:?}"))?;
        meaning(read).map_err(|trouble| trouble.words)
    }

    #[test]
    fn one_kind_of_change_at_a_time() {
        let refused = |words: &str| {
            line(Command::SetAcl, words).and_then(|line| acl_edit(&line).map(|_| ()).map_err(|trouble| trouble.words))
        };
        for good in [
            "-m a:g ID",
            "-m a:g -m b:l -d c ID ID",
            "-x a:g -x b:g ID",
            "-x NONE ID",
            "ID -d a:g",
        ] {
            assert_eq!(refused(good), Ok(()), "{good}");
        }
        for wrong in [
            "ID",
            "-m a:g",
            "-m a:g -x b:g ID",
            "-m a:g -m a:l ID",
            "-m a:g -d a ID",
            "-d a -d a:g ID",
            "-m a:q ID",
            "-d a:q ID",
            "-m a ID",
            "-M f -m a:g ID",
            "-M f -X f ID",
            "-b x -m a:g ID",
            "-b -1 -m a:g ID",
        ] {
            assert_eq!(refused(wrong), Err(ILLEGAL.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn a_batch_of_none_is_the_default() {
        assert_eq!(line(Command::Chmod, "-b 0 +l ID").unwrap().batch, DEFAULT_BATCH);
        assert_eq!(line(Command::Chmod, "-b 7 +l ID").unwrap().batch, 7);
        let read = line(Command::Chmod, "-qv +l ID").unwrap();
        assert!(read.verbose && !read.quiet);
        assert!(line(Command::Chmod, "-vq +l ID").unwrap().quiet);
    }

    #[test]
    fn a_mode_needs_an_id() {
        let words = |words: &str| {
            let line = line(Command::Chmod, words).unwrap();
            mode(&line).map(|(_, ids)| ids.len()).map_err(|trouble| trouble.words)
        };
        assert_eq!(words("g+lg a b"), Ok(2));
        assert_eq!(words("g+lg"), Err(ILLEGAL.to_owned()));
        assert_eq!(words("755 a"), Err("Illegal mode argument".to_owned()));
    }
}
