//! Values of attributes as people write and read them. No I/O.

use mdm_catalog::wire::{Type, Value};

/// What stands between the items of a list.
const BETWEEN: char = ';';

/// Why a text is no value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// No `=` in it.
    #[error("`{0}` is not NAME=VALUE")]
    NoName(String),
    /// Not a number where one is needed.
    #[error("attribute `{name}` takes {what}, which `{text}` is not")]
    Type {
        /// Of which attribute.
        name: String,
        /// What it takes.
        what: &'static str,
        /// What was given.
        text: String,
    },
}

/// Takes `NAME=VALUE` apart.
///
/// # Errors
/// Where there is no `=`, or no name.
pub fn assignment(text: &str) -> Result<(&str, &str), ValueError> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.ok_or_else(|| ValueError::NoName(text.to_owned()))
}

/// A text as a value of an attribute of that type; the empty text is nothing. What numbers cannot be is told here, all
/// else by the catalogue.
///
/// # Errors
/// A text that is no such number.
pub fn typed(name: &str, kind: Type, text: &str) -> Result<Value, ValueError> {
    let wrong = |what| ValueError::Type {
        name: name.to_owned(),
        what,
        text: text.to_owned(),
    };
    if text.is_empty() {
        return Ok(Value::Null);
    }
    match kind {
        Type::Integer => text.parse().map(Value::Integer).map_err(|_| wrong("an integer")),
        Type::Float => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(Value::Float).ok_or_else(|| wrong("a number"))
        }
        Type::List => {
            let items = text.split(BETWEEN).map(|item| Value::Text(item.trim().to_owned()));
            Ok(Value::List(items.collect()))
        }
        Type::String | Type::Date | Type::Time | Type::Code => Ok(Value::Text(text.to_owned())),
    }
}

/// A value as people read it; nothing is the empty text.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.iter().map(shown).collect::<Vec<_>>().join(&BETWEEN.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values_of_the_type_and_back() {
        for (kind, text, value) in [
            (Type::Integer, "-7", Value::Integer(-7)),
            (Type::Float, "1.5", Value::Float(1.5)),
            (Type::String, "7", Value::Text("7".into())),
            (
                Type::List,
                "a;b",
                Value::List(vec![Value::Text("a".into()), Value::Text("b".into())]),
            ),
            (Type::Date, "", Value::Null),
        ] {
            let read = typed("x", kind, text).unwrap();
            assert_eq!(read, value);
            assert_eq!(shown(&read), text);
        }
        for (kind, text) in [(Type::Integer, "1.5"), (Type::Float, "NaN"), (Type::Float, "x")] {
            assert!(typed("x", kind, text).is_err(), "{text}");
        }
        assert_eq!(assignment("a=b=c"), Ok(("a", "b=c")));
        assert!(assignment("=b").is_err() && assignment("ab").is_err());
    }
}
