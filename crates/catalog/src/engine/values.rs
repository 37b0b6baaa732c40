//! Values of attributes: whether one is of its attribute's type, and how it stands in a row.

use super::KnownAttribute;
use crate::database::{DatabaseError, Datum};
use crate::query::value::{date, time};
use crate::wire::{AttributeDefinition, MAX_TEXT_BYTES, Type, Value};
use hydra_core::permissions::Permissions;

/// The most bytes of an attribute's text that is indexed.
pub const MAX_INDEXED_BYTES: usize = 1024;
/// The most items of a list.
const MAX_LIST_ITEMS: usize = 1000;

/// What a value is in the form in which it is kept, or what is wrong with it; never the value itself.
pub(super) fn checked(definition: &AttributeDefinition, value: Value) -> Result<Value, String> {
    let name = &definition.name;
    let wrong = |expected: &str| format!("`{name}` is {expected}");
    Ok(match (definition.kind, value) {
        (_, Value::Null) => Value::Null,
        (Type::Integer, Value::Integer(number)) => Value::Integer(number),
        (Type::Integer, _) => return Err(wrong("an integer")),
        // Zero has one sign, so that all databases find it.
        (Type::Float, Value::Float(number)) if number.is_finite() => Value::Float(number + 0.0),
        #[expect(
            clippy::cast_precision_loss,
            reason = "a float is asked for; what it cannot hold is rounded"
        )]
        (Type::Float, Value::Integer(number)) => Value::Float(number as f64),
        (Type::Float, _) => return Err(wrong("a number")),
        (Type::String, Value::Text(text)) => Value::Text(checked_text(definition, text)?),
        (Type::String, _) => return Err(wrong("a text")),
        (Type::Date, Value::Text(text)) => Value::Text(date(&text).ok_or_else(|| wrong("a date, YYYY-MM-DD"))?),
        (Type::Date, _) => return Err(wrong("a date, YYYY-MM-DD")),
        (Type::Time, Value::Text(text)) => Value::Text(time(&text).ok_or_else(|| wrong("a time, HH:MM:SS"))?),
        (Type::Time, _) => return Err(wrong("a time, HH:MM:SS")),
        (Type::Code, Value::Text(text)) if is_code(&text) => Value::Text(checked_text(definition, text)?),
        (Type::Code, _) => return Err(wrong("a code, `value^scheme`")),
        (Type::List, Value::List(items)) => Value::List(list(definition, items)?),
        (Type::List, _) => return Err(wrong("a list of texts")),
    })
}

fn checked_text(definition: &AttributeDefinition, text: String) -> Result<String, String> {
    let name = &definition.name;
    let limit = if definition.indexed {
        MAX_INDEXED_BYTES
    } else {
        MAX_TEXT_BYTES
    };
    if text.len() > limit {
        return Err(format!("`{name}` has at most {limit} bytes"));
    }
    let is_allowed = |letter: char| !letter.is_control() || matches!(letter, '\t' | '\n' | '\r');
    if !text.chars().all(is_allowed) {
        return Err(format!("`{name}` has a control character"));
    }
    Ok(text)
}

fn list(definition: &AttributeDefinition, items: Vec<Value>) -> Result<Vec<Value>, String> {
    let name = &definition.name;
    if items.len() > MAX_LIST_ITEMS {
        return Err(format!("`{name}` has at most {MAX_LIST_ITEMS} items"));
    }
    // Each item stands in an index.
    let indexed = AttributeDefinition {
        indexed: true,
        ..definition.clone()
    };
    let item = |item| match item {
        Value::Text(text) => checked_text(&indexed, text).map(Value::Text),
        _ => Err(format!("`{name}` is a list of texts")),
    };
    items.into_iter().map(item).collect()
}

fn is_code(text: &str) -> bool {
    let parts = text.split_once('^');
    parts.is_some_and(|(value, scheme)| !value.is_empty() && !scheme.is_empty() && !scheme.contains('^'))
}

/// Begins the statement that writes [`items`].
pub(super) const INSERT_ITEMS: &str = "INSERT INTO lists(attribute, entry, item)";

/// The items of a list, by which it is searched, as rows of their table; of another value there are none.
pub(super) fn items(known: &KnownAttribute, entry: i64, value: &Value) -> Vec<Vec<Datum>> {
    let Value::List(items) = value else {
        return Vec::new();
    };
    let texts = items.iter().filter_map(|item| match item {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let row = |text: &str| vec![known.id.into(), entry.into(), text.into()];
    texts.map(row).collect()
}

/// How a checked value stands in its column.
pub(crate) fn datum(value: &Value) -> Datum {
    match value {
        Value::Null => Datum::Null,
        Value::Integer(number) => Datum::Integer(*number),
        Value::Float(number) => Datum::Real(*number),
        Value::Text(text) => Datum::Text(text.clone()),
        // Texts only: this JSON cannot fail.
        list @ Value::List(_) => Datum::Text(serde_json::to_string(list).unwrap_or_default()),
    }
}

/// What stands in the column of an attribute of that type.
///
/// # Errors
/// Nothing that was ever written there.
pub(crate) fn value(kind: Type, datum: Datum) -> Result<Value, DatabaseError> {
    Ok(match (kind, datum) {
        (_, Datum::Null) => Value::Null,
        (Type::Integer, Datum::Integer(number)) => Value::Integer(number),
        (Type::Float, Datum::Real(number)) => Value::Float(number),
        (Type::List, Datum::Text(text)) => {
            serde_json::from_str(&text).map_err(|_| DatabaseError::Content { table: "values" })?
        }
        (Type::String | Type::Date | Type::Time | Type::Code, Datum::Text(text)) => Value::Text(text),
        _ => return Err(DatabaseError::Content { table: "values" }),
    })
}

/// Whether a set of permissions has anything in it.
pub(super) fn any(permissions: Permissions) -> bool {
    permissions != Permissions::NONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Part;

    fn of(kind: Type) -> AttributeDefinition {
        AttributeDefinition {
            name: "x".into(),
            kind,
            half: Part::Anonymous,
            indexed: false,
            dicom: None,
        }
    }

    #[test]
    fn values_are_of_their_type_or_refused_without_being_quoted() {
        let text = |text: &str| Value::Text(text.into());
        let good = [
            (Type::Integer, Value::Integer(-1), Value::Integer(-1)),
            (Type::Float, Value::Integer(2), Value::Float(2.0)),
            (Type::Date, text("2024-02-29"), text("2024-02-29")),
            (Type::Time, text("09:30:00.50"), text("09:30:00.5")),
            (Type::Time, text("23:59:59"), text("23:59:59")),
            (Type::Code, text("T-A0100^SRT"), text("T-A0100^SRT")),
            (Type::String, text("a'\"\n;--\u{1F600}"), text("a'\"\n;--\u{1F600}")),
            (
                Type::String,
                text(&"x".repeat(MAX_TEXT_BYTES)),
                text(&"x".repeat(MAX_TEXT_BYTES)),
            ),
            (Type::List, Value::List(vec![text("a")]), Value::List(vec![text("a")])),
            (Type::Date, Value::Null, Value::Null),
        ];
        for (kind, given, kept) in good {
            let checked = checked(&of(kind), given).unwrap();
            assert_eq!(checked, kept);
            assert_eq!(value(kind, datum(&checked)).unwrap(), kept);
        }
        let bad = [
            (Type::Integer, text("SECRET")),
            (Type::Integer, Value::Float(1.0)),
            (Type::Float, Value::Float(f64::NAN)),
            (Type::Date, text("2023-02-29")),
            (Type::Time, text("24:00:00")),
            (Type::Time, text("09:30:00.")),
            (Type::Code, text("SECRET")),
            (Type::String, text("SECRET\0")),
            (Type::String, text(&"x".repeat(MAX_TEXT_BYTES + 1))),
            (Type::List, Value::List(vec![Value::Integer(1)])),
        ];
        for (kind, given) in bad {
            let said = checked(&of(kind), given.clone()).expect_err(&format!("{given:?}"));
            assert!(said.contains("`x`") && !said.contains("SECRET"), "{said}");
        }
    }
}
