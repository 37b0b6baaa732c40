//! Names of sealed files by a template, for example `/eds/{study}/{series}/{instance}.dcm.eds`: new identifiers, and
//! original ones only where the template asks for them by name.

use std::path::{Path, PathBuf};

use hydra_core::key_id::{KeyId, KeyIdError};

/// The template that is used where none is configured.
pub const USUAL: &str = "/eds/{study}/{series}/{instance}.dcm.eds";

/// A place in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Study,
    Series,
    Instance,
    OriginalStudy,
    OriginalSeries,
    OriginalInstance,
}

const PLACES: [(&str, Place); 6] = [
    ("study", Place::Study),
    ("series", Place::Series),
    ("instance", Place::Instance),
    ("original_study", Place::OriginalStudy),
    ("original_series", Place::OriginalSeries),
    ("original_instance", Place::OriginalInstance),
];

/// The identifiers of one instance on one side.
#[derive(Clone, PartialEq, Eq)]
pub struct Ids {
    /// Of its study.
    pub study: String,
    /// Of its series.
    pub series: String,
    /// Of itself.
    pub instance: String,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It does not begin at the root.
    #[error("it does not begin with `/`")]
    Root,
    /// Segments that would lead elsewhere.
    #[error("it has an empty segment, `.` or `..`")]
    Segment,
    /// A brace without its fellow.
    #[error("a brace in it has no fellow")]
    Brace,
    /// No such place.
    #[error("there is no place `{{{0}}}`")]
    Place(String),
    /// Two instances would have one name.
    #[error("its last segment lacks `{{instance}}`")]
    Instance,
    /// Two series would have one key.
    #[error("with a key for each series its folder must have `{{series}}` in it")]
    Series,
    /// No key could be called so.
    #[error("names by it are no key ids")]
    KeyId(#[source] KeyIdError),
    /// An agent takes no such names.
    #[error("names by it may have {0} bytes, and an agent takes {LONGEST_NAME}")]
    Long(usize),
}

/// A template of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

/// For what there is a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyPer {
    /// For each series.
    Series,
    /// For each instance.
    Instance,
}

impl Template {
    /// Reads a template that suits keys for each `key_per`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, key_per: KeyPer) -> Result<Self, TemplateError> {
        let template = Self(parts(text)?);
        if !text.starts_with('/') {
            return Err(TemplateError::Root);
        }
        let name = template.longest();
        if name[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(TemplateError::Segment);
        }
        KeyId::new(&name).map_err(TemplateError::KeyId)?;
        let (folder, last) = text.rsplit_once('/').unwrap_or(("", text));
        let has = |text: &str, word: &str| {
            text.contains(&format!("{{{word}}}")) || text.contains(&format!("{{original_{word}}}"))
        };
        if !has(last, "instance") {
            return Err(TemplateError::Instance);
        }
        if key_per == KeyPer::Series && !has(folder, "series") {
            return Err(TemplateError::Series);
        }
        Ok(template)
    }

    /// Checks that an agent takes every name by it.
    ///
    /// # Errors
    /// [`TemplateError::Long`]
    pub fn check_for_agent(&self) -> Result<(), TemplateError> {
        match self.longest().len() {
            ..=LONGEST_NAME => Ok(()),
            bytes => Err(TemplateError::Long(bytes)),
        }
    }

    /// The longest name. Identifiers are digits and dots with digits around them, so that one stands for all.
    fn longest(&self) -> String {
        let longest = "9".repeat(64);
        let ids = Ids {
            study: longest.clone(),
            series: longest.clone(),
            instance: longest,
        };
        self.name(&ids, &ids)
    }

    /// The name of an instance.
    pub fn name(&self, new: &Ids, original: &Ids) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(Place::Study) => new.study.clone(),
            Part::Place(Place::Series) => new.series.clone(),
            Part::Place(Place::Instance) => new.instance.clone(),
            Part::Place(Place::OriginalStudy) => original.study.clone(),
            Part::Place(Place::OriginalSeries) => original.series.clone(),
            Part::Place(Place::OriginalInstance) => original.instance.clone(),
        };
        self.0.iter().map(text).collect()
    }
}

/// The key of a file: its own name, or that of the folder that it has in common with its series.
pub fn key_name(name: &str, key_per: KeyPer) -> &str {
    match key_per {
        KeyPer::Instance => name,
        KeyPer::Series => name.rsplit_once('/').map_or(name, |(folder, _)| folder),
    }
}

/// The longest name, in bytes.
pub const LONGEST_NAME: usize = 255;

/// Why a text is no name of a sealed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Too long.
    #[error("it is longer than {LONGEST_NAME} bytes")]
    Long,
    /// It does not begin at the root.
    #[error("it does not begin with `/`")]
    Root,
    /// Segments that would lead elsewhere.
    #[error("it has an empty segment, `.` or `..`")]
    Segment,
    /// Characters that no name has.
    #[error("it has control characters")]
    Control,
}

/// Checks a name that came from outside: whatever passes stays under the folder that names start from.
///
/// # Errors
/// Why it is none.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.len() > LONGEST_NAME {
        return Err(NameError::Long);
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    let segments = name.strip_prefix('/').ok_or(NameError::Root)?;
    if segments.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(NameError::Segment);
    }
    Ok(())
}

/// Whether a path that came from outside is absolute and leads straight to where it says.
pub fn check_path(path: &str) -> bool {
    let segments = path.strip_prefix('/').unwrap_or("..");
    path.len() < 4096
        && !path.chars().any(char::is_control)
        && !segments.split('/').any(|segment| matches!(segment, "" | "." | ".."))
}

/// Where a name lies under a folder.
pub fn path_under(folder: &Path, name: &str) -> PathBuf {
    folder.join(name.trim_start_matches('/'))
}

fn parts(mut text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    while let Some(at) = text.find(['{', '}']) {
        let (before, rest) = text.split_at(at);
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (word, behind) = inside.ok_or(TemplateError::Brace)?;
        let place = PLACES.iter().find(|(name, _)| *name == word);
        parts.push(Part::Place(
            place.ok_or_else(|| TemplateError::Place(word.to_owned()))?.1,
        ));
        text = behind;
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(start: &str) -> Ids {
        let id = |end: &str| format!("{start}.{end}");
        Ids {
            study: id("1"),
            series: id("2"),
            instance: id("3"),
        }
    }

    #[test]
    fn names_have_the_new_identifiers_and_original_ones_only_where_asked() {
        let name = |template: &str| {
            let template = Template::parse(template, KeyPer::Instance).unwrap();
            template.name(&ids("2.25"), &ids("6.6"))
        };
        assert_eq!(name(USUAL), "/eds/2.25.1/2.25.2/2.25.3.dcm.eds");
        assert_eq!(name("/a/{instance}"), "/a/2.25.3");
        assert_eq!(name("/{original_study}/{series}-{instance}"), "/6.6.1/2.25.2-2.25.3");
    }

    #[test]
    fn templates_that_lead_elsewhere_or_make_names_alike_are_refused() {
        let refused = |template: &str| Template::parse(template, KeyPer::Series).unwrap_err();
        assert_eq!(refused("eds/{series}/{instance}"), TemplateError::Root);
        assert_eq!(refused("/../{series}/{instance}"), TemplateError::Segment);
        assert_eq!(refused("/eds//{series}/{instance}"), TemplateError::Segment);
        assert_eq!(refused("/{series}/{instance"), TemplateError::Brace);
        assert_eq!(refused("/{series}}/{instance}"), TemplateError::Brace);
        assert_eq!(refused("/{patient}/{instance}"), TemplateError::Place("patient".into()));
        assert_eq!(refused("/{series}/x"), TemplateError::Instance);
        assert_eq!(refused("/{study}/{instance}"), TemplateError::Series);
        let long = format!("/{}/{{series}}/{{instance}}", "x".repeat(400));
        assert!(matches!(refused(&long), TemplateError::KeyId(_)));
        assert!(matches!(refused("/a\n/{series}/{instance}"), TemplateError::KeyId(_)));
        assert!(Template::parse("/{study}/{instance}", KeyPer::Instance).is_ok());
        // a key may be called so, a file that an agent places not
        let long = |bytes: usize| {
            let template = format!("/{}/{{series}}/{{instance}}", "x".repeat(bytes - 131));
            Template::parse(&template, KeyPer::Series).unwrap().check_for_agent()
        };
        assert_eq!(long(256), Err(TemplateError::Long(256)));
        assert_eq!(long(255), Ok(()));
    }

    #[test]
    fn names_that_come_from_outside_stay_below() {
        assert_eq!(check("/eds/2.25.1/$(x) `y`;'.eds"), Ok(()));
        assert_eq!(check(&format!("/{}", "x".repeat(254))), Ok(()));
        assert_eq!(check(&format!("/{}", "x".repeat(255))), Err(NameError::Long));
        assert_eq!(check("eds"), Err(NameError::Root));
        for bad in ["/", "/a/", "//a", "/a/./b", "/../a", "/a/.."] {
            assert_eq!(check(bad), Err(NameError::Segment), "{bad}");
        }
        for bad in ["/a\n", "/\0", "/a\u{7f}", "/a\u{85}"] {
            assert_eq!(check(bad), Err(NameError::Control), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_called_as_files_or_their_folder() {
        assert_eq!(key_name("/eds/1/2/3.eds", KeyPer::Instance), "/eds/1/2/3.eds");
        assert_eq!(key_name("/eds/1/2/3.eds", KeyPer::Series), "/eds/1/2");
        assert_eq!(path_under(Path::new("/srv/se"), "/eds/1"), Path::new("/srv/se/eds/1"));
    }
}
