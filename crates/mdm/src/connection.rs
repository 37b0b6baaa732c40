//! What every command of the catalogue has: which catalogue, how it speaks, and what stands for a file.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use clap::Args;
use hydra_cli::{Code, Failure};
use mdm_catalog::wire::Answer;
use mdm_catalog::{CatalogClient, CatalogError, LogicalName};

use eds::failure::Because;

/// Which catalogue.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Catalogue")]
pub struct Catalog {
    /// The catalogue (default: MDM_CATALOG, else the configuration's, else LFC_HOST)
    #[arg(long = "catalog", value_name = "URL")]
    pub url: Option<String>,
}

impl Catalog {
    /// A client of it.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub fn open(&self) -> Result<CatalogClient, Failure> {
        Ok(CatalogClient::open(self.url.as_deref())?)
    }

    /// The same, where the configuration of another program names one too: before that of the user, after what was
    /// typed and the environment.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub fn open_beside(&self, configured: Option<&str>) -> Result<CatalogClient, Failure> {
        let is_set = std::env::var_os("MDM_CATALOG").is_some_and(|url| !url.is_empty());
        let url = self.url.as_deref().or(configured.filter(|_| !is_set));
        Ok(CatalogClient::open(url)?)
    }
}

/// Reads a logical file name as users type it.
///
/// # Errors
/// Wrong usage, with the rule that it breaks.
pub fn logical_name(typed: &str) -> Result<LogicalName, Failure> {
    LogicalName::typed(typed).map_err(|error| {
        Failure::new(
            Code::Usage,
            Because::new(format!("`{typed}` is no logical file name"), error),
        )
    })
}

/// What stands for an entry, as the catalogue takes it: `guid:…`, or a logical file name in canonical form.
///
/// # Errors
/// Wrong usage, with the rule that it breaks.
pub fn entry_name(typed: &str) -> Result<String, Failure> {
    match typed.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("guid") => {
            Ok(format!("guid:{}", rest.to_ascii_lowercase()))
        }
        _ => Ok(logical_name(typed)?.to_string()),
    }
}

/// All of them, as [`entry_name`].
///
/// # Errors
/// Of the first that is none.
pub fn entry_names(typed: &[String]) -> Result<Vec<String>, Failure> {
    typed.iter().map(|typed| entry_name(typed)).collect()
}

/// An answer to one item as a result.
///
/// # Errors
/// The refusal, as a failure.
pub fn done<T>(about: &str, answer: Answer<T>) -> Result<T, Failure> {
    match answer {
        Answer::Done(done) => Ok(done),
        Answer::Problem(problem) => Err(CatalogError::refused(about, problem).into()),
    }
}

/// Tells all failures but one; of several, the last word is how many there were, with the worst exit code.
///
/// # Errors
/// Where there is a failure.
pub fn worst(mut failures: Vec<Failure>, all: usize, done: &str) -> Result<(), Failure> {
    if all <= 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let codes = failures.iter().map(|one| one.code);
    let Some(code) = codes.max_by_key(|code| eds::failure::severity(*code)) else {
        return Ok(());
    };
    let failed = failures.len();
    for one in failures {
        let _ = hydra_cli::exit(Err(one));
    }
    Err(Failure::new(code, format!("{} of {all} {done}", all - failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_by_path_or_guid() {
        assert_eq!(entry_name("lfn:/myvo/x/").unwrap(), "/myvo/x");
        assert_eq!(entry_name("GUID:AB-1").unwrap(), "guid:ab-1");
        assert_eq!(entry_name("x").unwrap_err().code, Code::Usage);
    }

    #[test]
    fn of_several_failures_the_worst_code_counts() {
        let two = || vec![Failure::new(Code::TryLater, "a"), Failure::new(Code::NotAllowed, "b")];
        let failure = worst(two(), 5, "files are shown").unwrap_err();
        assert_eq!(failure.code, Code::NotAllowed);
        assert_eq!(failure.lines(), ["error: 3 of 5 files are shown"]);
        assert!(worst(Vec::new(), 5, "files are shown").is_ok());
        assert_eq!(
            worst(vec![Failure::new(Code::Io, "x")], 1, "y").unwrap_err().lines(),
            ["error: x"]
        );
    }
}
