//! `mdm-schema`: which attributes the files of a collection have, and the schema for images.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use clap::Parser;
use eds::args::Manners;
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::output::print;
use hydra_cli::{Code, Failure, printable};
use mdm_catalog::image;
use mdm_catalog::wire::{AttributeDefinition, Part, Schema, SchemaChange, Type};
use serde_json::json;

use crate::connection::{Catalog, logical_name};

/// Show or change the attributes that files of a directory can have
///
/// DEFINITION is NAME:TYPE, then options with colons between them. TYPE is string, integer, float, date, time, code or
/// list; options are `identifying` (of the identifying half; otherwise the anonymous one), `indexed` (searches by it
/// are fast), and dicom=KEYWORD (queries know it by that name too). The first change gives a directory a schema of its
/// own.
#[derive(Debug, Parser)]
#[command(name = "mdm-schema")]
pub struct SchemaArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    pub directory: String,
    /// Add an attribute, or change its options; may be repeated
    #[arg(long, value_name = "DEFINITION")]
    pub add: Vec<String>,
    /// Remove an attribute with all its values; may be repeated
    #[arg(long, value_name = "NAME")]
    pub remove: Vec<String>,
    /// Add the attributes of medical images
    #[arg(long)]
    pub images: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-schema`.
pub const EXAMPLES: &[Example] = &[
    Example {
        says: "Show what can be asked for",
        command: "mdm-schema /myvo/images",
    },
    Example {
        says: "Make a directory one for images",
        command: "mdm-schema --images /myvo/images",
    },
    Example {
        says: "Add an attribute",
        command: "mdm-schema --add diagnosis:code:indexed /myvo/images",
    },
];

/// `mdm-schema`.
///
/// # Errors
/// Why it could not be shown, or was not changed.
pub fn schema(args: &SchemaArgs) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let path = logical_name(&args.directory)?;
    let mut add = if args.images { image::schema() } else { Vec::new() };
    for text in &args.add {
        let definition = definition(text)?;
        add.retain(|known| known.name != definition.name);
        add.push(definition);
    }
    let client = args.catalog.open()?;
    let schema = if add.is_empty() && args.remove.is_empty() {
        client.schema(&path)?
    } else {
        let remove = args.remove.clone();
        client.change_schema(&SchemaChange { path, add, remove })?
    };
    if voice.json {
        return voice.json(&json!(schema));
    }
    print(text(&schema).as_bytes())
}

fn definition(text: &str) -> Result<AttributeDefinition, Failure> {
    let wrong = |what: &str| usage_error(format!("`{text}` {what}")).advise("--add NAME:TYPE[:identifying][:indexed]");
    let mut parts = text.split(':');
    let (name, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let kind = kind_named(kind).ok_or_else(|| wrong("has no type that is one"))?;
    let mut definition = AttributeDefinition {
        name: name.to_owned(),
        kind,
        half: Part::Anonymous,
        indexed: false,
        dicom: None,
    };
    for option in parts {
        match option.split_once('=') {
            Some(("dicom", keyword)) => definition.dicom = Some(keyword.to_owned()),
            None if option == "identifying" => definition.half = Part::Identifying,
            None if option == "anonymous" => definition.half = Part::Anonymous,
            None if option == "indexed" => definition.indexed = true,
            _ => return Err(wrong(&format!("has an option `{option}`, which there is not"))),
        }
    }
    if definition.name.is_empty() {
        return Err(Failure::new(Code::Usage, format!("`{text}` has no name")));
    }
    Ok(definition)
}

const KINDS: [(&str, Type); 7] = [
    ("string", Type::String),
    ("integer", Type::Integer),
    ("float", Type::Float),
    ("date", Type::Date),
    ("time", Type::Time),
    ("code", Type::Code),
    ("list", Type::List),
];

fn kind_named(word: &str) -> Option<Type> {
    KINDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind)
}

/// A type as it is written.
pub fn kind_name(kind: Type) -> &'static str {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or("", |(name, _)| name)
}

fn text(schema: &Schema) -> String {
    let mut text = format!("# Collection: {}\n", printable(schema.path.as_str()));
    for attribute in &schema.attributes {
        let half = if attribute.half == Part::Identifying {
            "identifying"
        } else {
            "anonymous"
        };
        let kind = kind_name(attribute.kind);
        let indexed = if attribute.indexed { "indexed" } else { "" };
        let dicom = attribute.dicom.as_deref().unwrap_or_default();
        let line = format!("{:<24} {kind:<8} {half:<12} {indexed:<8} {dicom}", attribute.name);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read() {
        let read = definition("diagnosis:code:indexed:dicom=AdmittingDiagnosesCodeSequence").unwrap();
        assert_eq!(
            (read.name.as_str(), read.kind, read.half),
            ("diagnosis", Type::Code, Part::Anonymous)
        );
        assert!(read.indexed && read.dicom.is_some());
        assert_eq!(definition("x:date:identifying").unwrap().half, Part::Identifying);
        for wrong in ["x", "x:number", ":string", "x:string:index", "x:string:dicom"] {
            assert_eq!(definition(wrong).unwrap_err().code, Code::Usage, "{wrong}");
        }
    }
}
