//! The tables of a catalogue, for both databases, and how a database of an earlier version gets them.
//!
//! Attributes of the anonymous half stand in one table for each schema, `values_7`, with one column for each attribute,
//! `a17`: such names are made from numbers alone, so that no text of a user ever is part of a statement.

use super::{DatabaseError, Dialect, Product, Sql, row};
use crate::wire::Type;

/// Each brings the tables from its index to the next number.
const MIGRATIONS: [&str; 3] = [
    include_str!("schema.1.sql"),
    include_str!("schema.2.sql"),
    include_str!("schema.3.sql"),
];

/// The schema that this version writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// The catalogue.
pub const CATALOG: Product = Product {
    program: "mdm-catalog",
    // "MdmC"
    number: 0x4d64_6d43,
    version: VERSION,
    earlier: |_| Ok(0),
    migrate: |sql, number| {
        let text = usize::try_from(number).ok().and_then(|number| MIGRATIONS.get(number));
        text.map_or(Ok(()), |text| sql.define(&sql.dialect().definition(text)))
    },
};

/// A row of `meta`.
///
/// # Errors
/// [`DatabaseError`]
pub fn meta(sql: &dyn Sql, name: &str) -> Result<Option<String>, DatabaseError> {
    let found = row(sql, "SELECT value FROM meta WHERE name = ?1", &[name.into()])?;
    found.map(|mut row| row.text(0)).transpose()
}

/// Writes a row of `meta`.
///
/// # Errors
/// [`DatabaseError`]
pub fn set_meta(sql: &dyn Sql, name: &str, value: &str) -> Result<(), DatabaseError> {
    let text = "INSERT INTO meta(name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    sql.execute(text, &[name.into(), value.into()])?;
    Ok(())
}

/// The table of a schema's anonymous values: `entry` and the columns of [`value_column`].
pub fn values_table(schema: i64) -> String {
    format!("values_{schema}")
}

/// The column of an attribute's values.
pub fn value_column(attribute: i64) -> String {
    format!("a{attribute}")
}

/// The type of such a column. Lists stand there as JSON, to be shown, and in the table `lists`, to be searched.
pub fn column_type(kind: Type, dialect: Dialect) -> &'static str {
    match kind {
        Type::Integer => "BIGINT",
        Type::Float => "DOUBLE PRECISION",
        Type::String | Type::Date | Type::Time | Type::Code | Type::List => dialect.text(),
    }
}
