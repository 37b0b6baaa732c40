//! Entries as they stand in the database, and the statements on them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::LogicalName;
use crate::database::{DatabaseError, Datum, Row, Sql, insert_returning, row, rows};
use crate::wire::{Kind, Status};

/// An entry's row.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: i64,
    pub(super) parent: Option<i64>,
    pub(super) path: LogicalName,
    pub(super) kind: Kind,
    /// The UUID alone.
    pub(super) guid: String,
    pub(super) schema: Option<i64>,
    pub(super) operation: Option<i64>,
    pub(super) size: Option<i64>,
    pub(super) adler32: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) status: Option<Status>,
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    pub(super) name_record: i64,
    pub(super) anonymous_record: i64,
    pub(super) identifying_record: i64,
    pub(super) identifying: Option<Vec<u8>>,
}

const COLUMNS: &str = "id, parent, path, kind, guid, schema, operation, size, adler32, sha256, key_id, status, created, \
                       modified, version, name_record, anonymous_record, identifying_record, identifying";

pub(super) fn status_text(status: Status) -> &'static str {
    match status {
        Status::Nearline => "nearline",
        Status::Online => "online",
    }
}

fn read(mut row: Row) -> Result<Stored, DatabaseError> {
    let bad = || DatabaseError::Content { table: "entries" };
    let status = match row.optional_text(11)?.as_deref() {
        None => None,
        Some("nearline") => Some(Status::Nearline),
        Some("online") => Some(Status::Online),
        Some(_) => return Err(bad()),
    };
    Ok(Stored {
        id: row.integer(0)?,
        parent: row.optional_integer(1)?,
        path: LogicalName::new(row.text(2)?).map_err(|_| bad())?,
        kind: if row.integer(3)? == 0 {
            Kind::Directory
        } else {
            Kind::File
        },
        guid: row.text(4)?,
        schema: row.optional_integer(5)?,
        operation: row.optional_integer(6)?,
        size: row.optional_integer(7)?,
        adler32: row.optional_text(8)?,
        sha256: row.optional_text(9)?,
        key_id: row.optional_text(10)?,
        status,
        created: row.integer(12)?,
        modified: row.integer(13)?,
        version: row.integer(14)?,
        name_record: row.integer(15)?,
        anonymous_record: row.integer(16)?,
        identifying_record: row.integer(17)?,
        identifying: row.optional_blob(18)?,
    })
}

/// The entry of that path or, with `guid:` in front, of that guid.
pub(super) fn find(sql: &dyn Sql, text: &str) -> Result<Option<Stored>, DatabaseError> {
    let guid = text.strip_prefix("guid:").map(str::to_ascii_lowercase);
    let column = if guid.is_some() { "guid" } else { "path" };
    let wanted = guid.as_deref().unwrap_or(text);
    let select = format!("SELECT {COLUMNS} FROM entries WHERE {column} = ?1");
    row(sql, &select, &[wanted.into()])?.map(read).transpose()
}

/// The entry of that number.
pub(super) fn by_id(sql: &dyn Sql, id: i64) -> Result<Stored, DatabaseError> {
    let select = format!("SELECT {COLUMNS} FROM entries WHERE id = ?1");
    let found = row(sql, &select, &[id.into()])?.map(read).transpose()?;
    found.ok_or(DatabaseError::Content { table: "entries" })
}

/// Entries by a condition, which begins with its `WHERE` and may end in `ORDER BY` and `LIMIT`.
pub(super) fn select(sql: &dyn Sql, condition: &str, data: &[Datum]) -> Result<Vec<Stored>, DatabaseError> {
    let select = format!("SELECT {COLUMNS} FROM entries {condition}");
    rows(sql, &select, data)?.into_iter().map(read).collect()
}

/// Likewise, up to `limit` of them and up to about so many bytes; whether there are more.
pub(super) fn select_some(
    sql: &dyn Sql,
    condition: &str,
    data: &[Datum],
    limit: usize,
    most_bytes: usize,
) -> Result<(Vec<Stored>, bool), DatabaseError> {
    let select = format!("SELECT {COLUMNS} FROM entries {condition}");
    let (mut found, mut bytes, mut more) = (Vec::new(), 0, false);
    sql.query(&select, data, &mut |row| {
        if found.len() == limit || bytes >= most_bytes {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        let stored = read(row)?;
        bytes += stored.identifying.as_ref().map_or(0, Vec::len);
        found.push(stored);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((found, more))
}

/// Inserts entries, whose numbers are drawn; the numbers, by path.
pub(super) fn insert<'a>(
    sql: &dyn Sql,
    entries: impl Iterator<Item = &'a Stored>,
) -> Result<HashMap<String, i64>, DatabaseError> {
    let head = "INSERT INTO entries(parent, path, kind, guid, schema, operation, size, adler32, sha256, key_id, status, \
                created, modified, version, name_record, anonymous_record, identifying_record, identifying)";
    let made = insert_returning(sql, head, entries.map(data_of).collect(), " RETURNING id, path")?;
    let read = |mut row: Row| Ok((row.text(1)?, row.integer(0)?));
    made.into_iter().map(read).collect()
}

/// All but the number.
fn data_of(entry: &Stored) -> Vec<Datum> {
    let kind = match entry.kind {
        Kind::Directory => 0_i64,
        Kind::File => 1,
    };
    vec![
        entry.parent.into(),
        entry.path.as_str().into(),
        kind.into(),
        entry.guid.as_str().into(),
        entry.schema.into(),
        entry.operation.into(),
        entry.size.into(),
        entry.adler32.clone().into(),
        entry.sha256.clone().into(),
        entry.key_id.clone().into(),
        entry.status.map(status_text).into(),
        entry.created.into(),
        entry.modified.into(),
        entry.version.into(),
        entry.name_record.into(),
        entry.anonymous_record.into(),
        entry.identifying_record.into(),
        entry.identifying.clone().into(),
    ]
}

/// Writes what of an entry can change, but for path and permissions.
pub(super) fn update(sql: &dyn Sql, entry: &Stored) -> Result<(), DatabaseError> {
    let text = "UPDATE entries SET size = ?2, adler32 = ?3, sha256 = ?4, key_id = ?5, status = ?6, modified = ?7, \
                version = ?8, identifying = ?9 WHERE id = ?1";
    let data = [
        entry.id.into(),
        entry.size.into(),
        entry.adler32.clone().into(),
        entry.sha256.clone().into(),
        entry.key_id.clone().into(),
        entry.status.map(status_text).into(),
        entry.modified.into(),
        entry.version.into(),
        entry.identifying.clone().into(),
    ];
    sql.execute(text, &data)?;
    Ok(())
}

/// The replicas of an entry that are not of the identifying half, in the order they came.
pub(super) fn replicas(sql: &dyn Sql, entry: i64) -> Result<Vec<String>, DatabaseError> {
    let found = rows(
        sql,
        "SELECT url FROM replicas WHERE entry = ?1 ORDER BY place",
        &[entry.into()],
    )?;
    found.into_iter().map(|mut row| row.text(0)).collect()
}

/// Adds a replica behind the others; one that is there already stays where it is.
pub(super) fn add_replica(sql: &dyn Sql, entry: i64, url: &str) -> Result<(), DatabaseError> {
    let text = "INSERT INTO replicas(entry, place, url) \
                VALUES (?1, (SELECT coalesce(max(place), 0) + 1 FROM replicas WHERE entry = ?1), ?2) \
                ON CONFLICT DO NOTHING";
    sql.execute(text, &[entry.into(), url.into()])?;
    Ok(())
}

/// Takes a replica away; whether it was there.
pub(super) fn remove_replica(sql: &dyn Sql, entry: i64, url: &str) -> Result<bool, DatabaseError> {
    let text = "DELETE FROM replicas WHERE entry = ?1 AND url = ?2";
    Ok(sql.execute(text, &[entry.into(), url.into()])? > 0)
}

/// What lies below a directory by path: from the first text (included) to the second (excluded).
pub(super) fn below(directory: &LogicalName) -> (String, String) {
    if directory.is_root() {
        return ("/".to_owned(), "0".to_owned());
    }
    // `0` comes next behind `/`.
    (format!("{directory}/"), format!("{directory}0"))
}
