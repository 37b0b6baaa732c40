//! `mdcli`: one-shot commands as AMGA's client had them, over this catalogue (`docs/src/commands/lcg.md`).

mod query;

use std::ffi::OsString;
use std::process::ExitCode;

use hydra_cli::command::VERSION;
use hydra_cli::output::{print, print_line, print_one_more, tell};
use hydra_cli::{Code, Failure, manual, printable};
use hydra_core::keystore::wire::{Problem, ProblemKind};
use mdm_catalog::wire::{
    AttributeDefinition, Attributes, Change, Created, Kind, NewEntry, Part, Removal, SchemaChange, Search, Type, Value,
};
use mdm_catalog::{CatalogClient, CatalogError, LogicalName};

use crate::attributes::{shown, typed};
use crate::change::directory;

/// Why a command was not done, with AMGA's number for it: those of the client in Python that came with AMGA, whose own
/// store without a server used them.
#[derive(Debug, thiserror::Error)]
enum MdError {
    #[error("1 {0}")]
    Kind(String),
    #[error("3 Illegal command: {0}")]
    Command(String),
    #[error("8 Illegal query: {0}")]
    Query(String),
    #[error("10 No such key: {0}")]
    Key(String),
    #[error("{0} {1}")]
    Catalog(u8, CatalogError),
    #[error("9 Internal error: cannot write the answer")]
    Output(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl MdError {
    /// With the number that is meant by what the catalogue said of this command.
    fn of(self, (invalid, conflict): (u8, u8)) -> Self {
        match self {
            Self::Catalog(_, error) => {
                let number = match error.kind() {
                    Some(ProblemKind::NotFound) => 1,
                    Some(ProblemKind::NotAllowed | ProblemKind::Credential) => 4,
                    Some(ProblemKind::Invalid | ProblemKind::TooLarge) => invalid,
                    Some(ProblemKind::Conflict) => conflict,
                    _ => OTHER,
                };
                Self::Catalog(number, error)
            }
            other => other,
        }
    }
}

/// The number of what has none of its own.
const OTHER: u8 = 9;

impl From<CatalogError> for MdError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(OTHER, error)
    }
}

impl From<Failure> for MdError {
    fn from(failure: Failure) -> Self {
        Self::Output(failure.error)
    }
}

const USAGE: &str = "\
Usage: mdcli COMMAND [ARGUMENTS]

 createdir DIR                       make a directory
 addattr DIR NAME TYPE...            give it attributes
 removeattr DIR NAME                 take one away, with its values
 listattr DIR                        names and types, a line each
 addentry FILE [NAME VALUE]...       make an entry
 setattr FILE NAME VALUE...          set attributes
 getattr FILE NAME...                the entry's name, then the values, a line each
 find DIR QUERY                      entries that fit, a line each
 selectattr DIR:NAME... QUERY        values of entries that fit, a line each
 listentries DIR                     the entries in a directory
 dir DIR                             each name in it, then collection or entry
 rm FILE                             remove an entry
 rmdir DIR                           remove an empty directory
 whoami                              how the catalogue sees you

 -h                                  print this and exit
 --version                           print the version and exit
";

/// Runs what AMGA's client would have; `arguments` come without its name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    if manual::is_asked_for(&[&["mdcli".into()], arguments].concat()) {
        return hydra_cli::exit(page());
    }
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // the whole command as one word is read as a shell would
    let words = match words.as_slice() {
        [one] if one.contains(' ') => query::words(one),
        _ => words,
    };
    match words.first().map(String::as_str) {
        Some("-h" | "--help" | "help") => return hydra_cli::exit(print(USAGE.as_bytes())),
        Some("-V" | "--version") => return hydra_cli::exit(print_line(&format!("mdcli {VERSION}"))),
        None => {
            USAGE.lines().for_each(tell);
            return ExitCode::FAILURE;
        }
        Some(_) => {}
    }
    let done = Order::read(&words).and_then(|order| {
        let client = CatalogClient::open(None)?;
        let numbers = order.numbers();
        order.carry_out(&client).map_err(|error| error.of(numbers))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("Error: {error}"));
            let mut cause = match &error {
                // its text is the message already
                MdError::Catalog(_, error) => std::error::Error::source(error),
                other => std::error::Error::source(other),
            };
            while let Some(error) = cause {
                tell(&format!("  {error}"));
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn page() -> Result<(), Failure> {
    let alias = manual::Alias {
        name: "mdcli",
        program: "mdm",
        usage: USAGE,
        exit_codes: &[("0", "done"), ("1", "anything else")],
    };
    let page = alias.page().map_err(|error| Failure::new(Code::Failed, error))?;
    print(&page)
}

/// What a command line asks for.
#[derive(Debug, PartialEq)]
enum Order {
    CreateDir(LogicalName),
    AddAttr(LogicalName, Vec<(String, Type)>),
    RemoveAttr(LogicalName, String),
    ListAttr(LogicalName),
    AddEntry(LogicalName, Vec<(String, String)>),
    SetAttr(LogicalName, Vec<(String, String)>),
    GetAttr(LogicalName, Vec<String>),
    Find(LogicalName, String),
    SelectAttr(LogicalName, Vec<String>, String),
    List(LogicalName, bool),
    Remove(LogicalName),
    RemoveDir(LogicalName),
    WhoAmI,
}

impl Order {
    fn read(words: &[String]) -> Result<Self, MdError> {
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        let (command, rest) = texts.split_first().ok_or_else(|| MdError::Command(String::new()))?;
        match (*command, rest) {
            ("createdir" | "mkdir", [path, ..]) => Ok(Self::CreateDir(name(path)?)),
            ("addattr", [path, attributes @ ..]) if !attributes.is_empty() => {
                let typed = pairs(attributes)?
                    .into_iter()
                    .map(|(name, kind)| Ok((name, amga_type(&kind)?)));
                Ok(Self::AddAttr(name(path)?, typed.collect::<Result<_, MdError>>()?))
            }
            ("removeattr", [path, attribute]) => Ok(Self::RemoveAttr(name(path)?, (*attribute).to_owned())),
            ("listattr", [path]) => Ok(Self::ListAttr(name(path)?)),
            ("addentry" | "addentries", [path, values @ ..]) => Ok(Self::AddEntry(name(path)?, pairs(values)?)),
            ("setattr", [path, values @ ..]) if !values.is_empty() => Ok(Self::SetAttr(name(path)?, pairs(values)?)),
            ("getattr", [path, attributes @ ..]) if !attributes.is_empty() => Ok(Self::GetAttr(
                name(path)?,
                attributes.iter().map(|one| (*one).to_owned()).collect(),
            )),
            ("find", [path]) => Ok(Self::Find(name(path)?, String::new())),
            ("find", [path, asked]) => {
                let path = name(path)?;
                let translated = query::translated(asked, path.as_str());
                Ok(Self::Find(path, translated))
            }
            ("selectattr", [columns @ .., asked]) if !columns.is_empty() => selection(columns, asked),
            ("listentries", [path]) => Ok(Self::List(name(path)?, false)),
            ("dir" | "ls", [path]) => Ok(Self::List(name(path)?, true)),
            ("rm", [path]) => Ok(Self::Remove(name(path)?)),
            ("rmdir", [path]) => Ok(Self::RemoveDir(name(path)?)),
            ("whoami", []) => Ok(Self::WhoAmI),
            (known, _) if USAGE.contains(&format!("\n {known} ")) => {
                Err(MdError::Command(format!("{known} takes other arguments: mdcli -h")))
            }
            (other, _) => Err(MdError::Command(other.to_owned())),
        }
    }

    /// AMGA's numbers for what cannot be meant so, and for what stands in the way of something else.
    fn numbers(&self) -> (u8, u8) {
        match self {
            Self::Find(..) | Self::SelectAttr(..) => (8, OTHER),
            Self::RemoveAttr(..) => (10, OTHER),
            Self::CreateDir(_) => (3, 16),
            Self::RemoveDir(_) => (3, 11),
            Self::AddEntry(..) | Self::AddAttr(..) => (3, 15),
            _ => (3, OTHER),
        }
    }

    fn carry_out(self, client: &CatalogClient) -> Result<(), MdError> {
        match self {
            Self::CreateDir(path) => match client.create_one(&directory(path.clone(), false))? {
                Created::New => Ok(()),
                Created::Known => Err(exists(&path)),
            },
            Self::AddAttr(path, attributes) => {
                let define = |(name, kind)| AttributeDefinition {
                    name,
                    kind,
                    half: Part::Anonymous,
                    indexed: false,
                    dicom: None,
                };
                let add = attributes.into_iter().map(define).collect();
                let remove = Vec::new();
                Ok(client.change_schema(&SchemaChange { path, add, remove }).map(drop)?)
            }
            Self::RemoveAttr(path, attribute) => {
                let (add, remove) = (Vec::new(), vec![attribute]);
                Ok(client.change_schema(&SchemaChange { path, add, remove }).map(drop)?)
            }
            Self::ListAttr(path) => {
                for attribute in client.schema(&path)?.attributes {
                    print_line(&attribute.name)?;
                    print_line(amga_name(attribute.kind))?;
                }
                Ok(())
            }
            Self::AddEntry(path, values) => {
                let entry = NewEntry {
                    kind: Kind::File,
                    attributes: self::values(client, &path, &values)?,
                    ..directory(path.clone(), false)
                };
                match client.create_one(&entry)? {
                    Created::New => Ok(()),
                    Created::Known => Err(exists(&path)),
                }
            }
            Self::SetAttr(path, values) => {
                let attributes = self::values(client, &path, &values)?;
                let change = Change {
                    path: path.to_string(),
                    attributes,
                    ..Change::default()
                };
                Ok(client.change_one(&change).map(drop)?)
            }
            Self::GetAttr(path, names) => get_attributes(client, &path, &names),
            Self::Find(path, query) => print_rows(client, &path, query, Vec::new()),
            Self::SelectAttr(path, columns, query) => print_rows(client, &path, query, columns),
            Self::List(path, all) => list(client, &path, all),
            Self::Remove(path) => remove(client, &path, Kind::File),
            Self::RemoveDir(path) => remove(client, &path, Kind::Directory),
            Self::WhoAmI => Ok(print_line(&printable(&client.whoami()?.dn))?),
        }
    }
}

fn name(typed: &str) -> Result<LogicalName, MdError> {
    // a pattern for all entries of a directory means the directory
    let typed = typed.strip_suffix("/*").unwrap_or(typed);
    LogicalName::typed(typed).map_err(|error| MdError::Command(format!("{typed}: {error}")))
}

fn pairs(words: &[&str]) -> Result<Vec<(String, String)>, MdError> {
    if words.len() % 2 == 1 {
        return Err(MdError::Command("names and values come in pairs".into()));
    }
    let pairs = words
        .chunks_exact(2)
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
    Ok(pairs.collect())
}

fn selection(columns: &[&str], asked: &str) -> Result<Order, MdError> {
    let apart = columns.iter().map(|column| {
        let parts = column.rsplit_once(':');
        parts.ok_or_else(|| MdError::Command(format!("{column} is not DIR:NAME")))
    });
    let apart = apart.collect::<Result<Vec<_>, _>>()?;
    let first = apart.iter().map(|(path, _)| *path).find(|path| !path.is_empty());
    let path = name(first.ok_or_else(|| MdError::Command("no directory is named".into()))?)?;
    if apart
        .iter()
        .any(|(other, _)| !other.is_empty() && name(other).ok().as_ref() != Some(&path))
    {
        return Err(MdError::Query(
            "attributes of several directories cannot be selected together".into(),
        ));
    }
    let columns = apart
        .iter()
        .map(|(_, column)| query::attribute(column).to_owned())
        .collect();
    let translated = query::translated(asked, path.as_str());
    Ok(Order::SelectAttr(path, columns, translated))
}

fn amga_type(text: &str) -> Result<Type, MdError> {
    let word = text.split('(').next().unwrap_or_default().trim().to_ascii_lowercase();
    match word.as_str() {
        "int" | "integer" | "bigint" | "smallint" => Ok(Type::Integer),
        "float" | "double" | "double precision" | "real" | "numeric" => Ok(Type::Float),
        "varchar" | "char" | "text" | "string" => Ok(Type::String),
        "date" => Ok(Type::Date),
        "time" => Ok(Type::Time),
        // there is no type of both: it is kept as it is written
        "timestamp" => Ok(Type::String),
        _ => Err(MdError::Command(format!("{text} is no type"))),
    }
}

fn amga_name(kind: Type) -> &'static str {
    match kind {
        Type::Integer => "int",
        Type::Float => "float",
        Type::Date => "date",
        Type::Time => "time",
        Type::String | Type::Code | Type::List => "text",
    }
}

fn exists(path: &LogicalName) -> MdError {
    let problem = Problem::new(ProblemKind::Conflict).detail("it is there already");
    CatalogError::refused(path.as_str(), problem).into()
}

fn values(client: &CatalogClient, path: &LogicalName, given: &[(String, String)]) -> Result<Attributes, MdError> {
    let mut values = Attributes::new();
    if given.is_empty() {
        return Ok(values);
    }
    let at = path.parent().unwrap_or_else(LogicalName::root);
    let schema = client.schema(&at)?;
    for (attribute, text) in given {
        let known = schema
            .attributes
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(attribute));
        let known = known.ok_or_else(|| MdError::Key(attribute.clone()))?;
        let value = typed(attribute, known.kind, text).map_err(|error| MdError::Command(error.to_string()))?;
        values.insert(known.name.clone(), value);
    }
    Ok(values)
}

fn get_attributes(client: &CatalogClient, path: &LogicalName, names: &[String]) -> Result<(), MdError> {
    let entry = client.show_one(path.as_str())?;
    let mut lines = vec![path.last_segment().to_owned()];
    for asked in names {
        let found = entry
            .attributes
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(asked));
        let value = match found {
            Some((_, value)) => value.clone(),
            None => {
                let schema = client.schema(path)?;
                if !schema
                    .attributes
                    .iter()
                    .any(|known| known.name.eq_ignore_ascii_case(asked))
                {
                    return Err(MdError::Key(asked.clone()));
                }
                Value::Null
            }
        };
        lines.push(shown(&value));
    }
    lines.iter().try_for_each(|line| print_line(&printable(line)))?;
    Ok(())
}

fn print_rows(client: &CatalogClient, path: &LogicalName, query: String, columns: Vec<String>) -> Result<(), MdError> {
    let search = Search {
        from: path.to_string(),
        query,
        columns,
        ..Search::default()
    };
    for row in client.search(&search)? {
        for value in row? {
            if !print_one_more(&printable(&shown(&value)))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn list(client: &CatalogClient, path: &LogicalName, all: bool) -> Result<(), MdError> {
    for entry in client.list_all(path, false) {
        let entry = entry?;
        if !all && entry.kind == Kind::Directory {
            continue;
        }
        print_line(&printable(entry.path.as_str()))?;
        if all {
            print_line(if entry.kind == Kind::Directory {
                "collection"
            } else {
                "entry"
            })?;
        }
    }
    Ok(())
}

fn remove(client: &CatalogClient, path: &LogicalName, kind: Kind) -> Result<(), MdError> {
    if client.show_one(path.as_str())?.kind != kind {
        let is = if kind == Kind::File {
            "a directory: rmdir"
        } else {
            "no directory: rm"
        };
        return Err(MdError::Kind(format!("{path} is {is}")));
    }
    let removal = Removal {
        path: path.to_string(),
        recursive: false,
        unreplicated: true,
    };
    Ok(client.remove_one(&removal).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Order, MdError> {
        Order::read(&query::words(line))
    }

    fn path(text: &str) -> LogicalName {
        LogicalName::typed(text).unwrap()
    }

    #[test]
    fn commands_of_amga_are_read() {
        assert_eq!(read("createdir /jobs").unwrap(), Order::CreateDir(path("/jobs")));
        let attributes = vec![("owner".into(), Type::String), ("cpus".into(), Type::Integer)];
        assert_eq!(
            read("addattr /jobs owner 'varchar(20)' cpus int").unwrap(),
            Order::AddAttr(path("/jobs"), attributes)
        );
        assert_eq!(
            read("addentry /jobs/1 owner 'Jane Doe'").unwrap(),
            Order::AddEntry(path("/jobs/1"), vec![("owner".into(), "Jane Doe".into())])
        );
        assert_eq!(
            read("selectattr /jobs:owner /jobs:FILE 'cpus > 2'").unwrap(),
            Order::SelectAttr(path("/jobs"), vec!["owner".into(), "name".into()], "cpus > 2".into())
        );
        assert_eq!(read("dir /jobs/").unwrap(), Order::List(path("/jobs"), true));
    }

    #[test]
    fn what_is_wrong_has_the_number_of_amga() {
        for (line, number) in [
            ("frobnicate /x", '3'),
            ("createdir", '3'),
            ("createdir x", '3'),
            ("addattr /x a", '3'),
            ("addattr /x a blob", '3'),
            ("selectattr /a:x /b:y 'z = 1'", '8'),
        ] {
            let text = read(line).unwrap_err().to_string();
            assert!(text.starts_with(number), "{line}: {text}");
        }
        for (line, invalid, conflict) in [
            ("addentry /x/y", "3 ", "15 "),
            ("createdir /x", "3 ", "16 "),
            ("rmdir /x", "3 ", "11 "),
            ("find /x 'a = 1'", "8 ", "9 "),
            ("removeattr /x a", "10 ", "9 "),
        ] {
            let numbers = read(line).unwrap().numbers();
            let of = |kind| {
                let problem = Problem::new(kind);
                MdError::from(CatalogError::refused("/x", problem))
                    .of(numbers)
                    .to_string()
            };
            assert!(of(ProblemKind::Invalid).starts_with(invalid), "{line}");
            assert!(of(ProblemKind::Conflict).starts_with(conflict), "{line}");
            assert!(of(ProblemKind::NotFound).starts_with("1 `/x`"), "{line}");
        }
        assert!(exists(&path("/x")).of((3, 15)).to_string().starts_with("15 `/x`"));
    }
}
