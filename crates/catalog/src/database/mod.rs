//! A database, whichever it is: statements are written once, for SQLite and PostgreSQL alike, and run through [`Sql`]
//! inside [`Database::read`] and [`Database::write`]. No decision is made here (`docs/src/operating-catalogue.md`).
//! What has tables of its own says so as a [`Product`]: the catalogue, and the registry and queue of `dicom-recall`.
//!
//! Placeholders are `?1`, `?2` … Where the two databases differ, [`Dialect`] has the words.

mod group;
pub mod postgres;
pub mod schema;
pub mod sqlite;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// SQLite says so.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL says so, or there is no way to it.
    #[error("the database failed")]
    Postgres(#[source] postgres::PostgresError),
    /// Where a new one should be made.
    #[error("the tables are in this database already")]
    Exists,
    /// Another process has it open.
    #[error("`{}` is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file cannot be made or opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Made by a later version.
    #[error("the database has schema {found}, this version knows up to {known}")]
    Newer {
        /// Its schema.
        found: i64,
        /// This version's.
        known: i64,
    },
    /// Some other database.
    #[error("not a database of {program}")]
    NotOurs {
        /// Whose it should be.
        program: &'static str,
    },
    /// Of another catalogue.
    #[error("the database belongs to the catalogue `{found}`")]
    OtherCatalog {
        /// Whose it is.
        found: String,
    },
    /// A backup lies where the database should.
    #[error("the database is a backup, made {made}, that was not restored")]
    IsBackup {
        /// When it was made.
        made: String,
    },
    /// A row that this version never wrote.
    #[error("a row does not read: column {column} is no {expected}")]
    Row {
        /// Which column of the answer, from 0.
        column: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// Something that only another version would have stored.
    #[error("a row of `{table}` does not read")]
    Content {
        /// Which table.
        table: &'static str,
    },
    /// There is nobody to ask: the process ends, or a thread of it panicked.
    #[error("the database is closed")]
    Closed,
}

impl DatabaseError {
    /// Whether there is no room: reading goes on.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => sqlite::is_full(error),
            Self::Postgres(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether there is no way to it for now, or it has no time: the same may be done later.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Sqlite(error) => sqlite::is_busy(error),
            Self::Postgres(error) => error.remedy == postgres::Remedy::Time,
            Self::Closed => true,
            _ => false,
        }
    }
}

/// Whose tables are in a database.
#[derive(Debug)]
pub struct Product {
    /// The program, as it calls itself towards the database and in `meta`.
    pub program: &'static str,
    /// What SQLite's files and the lock of PostgreSQL's writers are known by.
    pub number: i32,
    /// The schema that this version writes.
    pub version: i64,
    /// The schema of a database whose `meta` does not have it.
    pub earlier: fn(&dyn Sql) -> Result<i64, DatabaseError>,
    /// Brings the tables from the schema of that number to the next.
    pub migrate: fn(&dyn Sql, i64) -> Result<(), DatabaseError>,
}

impl Product {
    /// Brings the tables up to this version's.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn bring_up(&self, sql: &dyn Sql) -> Result<(), DatabaseError> {
        let meta = "CREATE TABLE IF NOT EXISTS meta(name {TEXT} PRIMARY KEY, value {TEXT} NOT NULL)";
        sql.define(&sql.dialect().definition(meta))?;
        let found = match schema::meta(sql, "schema")? {
            Some(text) => text.parse().map_err(|_| DatabaseError::Content { table: "meta" })?,
            None => (self.earlier)(sql)?,
        };
        if found > self.version {
            let known = self.version;
            return Err(DatabaseError::Newer { found, known });
        }
        for number in found..self.version {
            (self.migrate)(sql, number)?;
        }
        if found < self.version {
            schema::set_meta(sql, "schema", &self.version.to_string())?;
        }
        Ok(())
    }
}

/// Which database it is, for the few words that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// A condition: the value of `column` is one of [`Datum::Integers`] or [`Datum::Texts`] at the placeholder, as in
    /// `is_one_of("e.id", 3)`.
    pub fn is_one_of(self, column: &str, placeholder: usize) -> String {
        match self {
            Self::Sqlite => format!("{column} IN (SELECT value FROM json_each(?{placeholder}))"),
            Self::Postgres => format!("{column} = ANY(?{placeholder})"),
        }
    }

    /// A column in a condition whose index is not worth a walk: SQLite takes every index for selective.
    pub fn unwalked(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("+{column}"),
            Self::Postgres => column.to_owned(),
        }
    }

    /// The definition of a table's number, drawn by the database and never drawn again.
    pub fn number_column(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Self::Postgres => "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        }
    }

    /// The type of texts, which are compared by code points.
    pub fn text(self) -> &'static str {
        match self {
            Self::Sqlite => "TEXT",
            Self::Postgres => "TEXT COLLATE \"C\"",
        }
    }

    /// The type of bytes.
    pub fn blob(self) -> &'static str {
        match self {
            Self::Sqlite => "BLOB",
            Self::Postgres => "BYTEA",
        }
    }

    /// The definition of a number that is given, by which rows are found without an index beside them.
    pub fn key_column(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER PRIMARY KEY",
            Self::Postgres => "BIGINT PRIMARY KEY",
        }
    }

    /// Behind the definition of a table whose rows are kept in the order of its primary key.
    pub fn by_key(self) -> &'static str {
        match self {
            Self::Sqlite => " WITHOUT ROWID",
            Self::Postgres => "",
        }
    }

    /// A definition written with `{ID}`, `{KEY}`, `{TEXT}`, `{BLOB}` and `{BY KEY}` for what differs. All other types
    /// are the same words: `BIGINT`, `DOUBLE PRECISION`.
    pub fn definition(self, text: &str) -> String {
        text.replace("{ID}", self.number_column())
            .replace("{KEY}", self.key_column())
            .replace("{BY KEY}", self.by_key())
            .replace("{TEXT}", self.text())
            .replace("{BLOB}", self.blob())
    }
}

/// A value that is bound or read.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// NULL.
    Null,
    /// BIGINT.
    Integer(i64),
    /// DOUBLE PRECISION.
    Real(f64),
    /// TEXT.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// Bound only: many numbers, for [`Dialect::is_one_of`].
    Integers(Vec<i64>),
    /// Bound only: many texts, likewise.
    Texts(Vec<String>),
}

impl From<i64> for Datum {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Datum {
    fn from(is_so: bool) -> Self {
        Self::Integer(is_so.into())
    }
}

impl From<f64> for Datum {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Datum {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Datum {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl<T: Into<Self>> From<Option<T>> for Datum {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(pub Vec<Datum>);

impl Row {
    /// The value of a column, which is taken out.
    pub fn take(&mut self, column: usize) -> Datum {
        self.0
            .get_mut(column)
            .map_or(Datum::Null, |datum| std::mem::replace(datum, Datum::Null))
    }

    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn integer(&self, column: usize) -> Result<i64, DatabaseError> {
        self.optional_integer(column)?.ok_or(DatabaseError::Row {
            column,
            expected: "integer",
        })
    }

    /// A number, or NULL.
    ///
    /// # Errors
    /// It is neither.
    pub fn optional_integer(&self, column: usize) -> Result<Option<i64>, DatabaseError> {
        match self.0.get(column) {
            Some(Datum::Integer(number)) => Ok(Some(*number)),
            Some(Datum::Null) => Ok(None),
            _ => Err(DatabaseError::Row {
                column,
                expected: "integer",
            }),
        }
    }

    /// What is so or not: a number that is not 0.
    ///
    /// # Errors
    /// It is no number.
    pub fn boolean(&self, column: usize) -> Result<bool, DatabaseError> {
        Ok(self.integer(column)? != 0)
    }

    /// A text, which is taken out.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&mut self, column: usize) -> Result<String, DatabaseError> {
        self.optional_text(column)?.ok_or(DatabaseError::Row {
            column,
            expected: "text",
        })
    }

    /// A text, which is taken out, or NULL.
    ///
    /// # Errors
    /// It is neither.
    pub fn optional_text(&mut self, column: usize) -> Result<Option<String>, DatabaseError> {
        match self.take(column) {
            Datum::Text(text) => Ok(Some(text)),
            Datum::Null => Ok(None),
            _ => Err(DatabaseError::Row {
                column,
                expected: "text",
            }),
        }
    }

    /// Bytes, which are taken out, or NULL.
    ///
    /// # Errors
    /// It is neither.
    pub fn optional_blob(&mut self, column: usize) -> Result<Option<Vec<u8>>, DatabaseError> {
        match self.take(column) {
            Datum::Blob(bytes) => Ok(Some(bytes)),
            Datum::Null => Ok(None),
            _ => Err(DatabaseError::Row {
                column,
                expected: "bytes",
            }),
        }
    }
}

/// Shown each row of an answer; breaks off when it has enough.
pub type Each<'a> = &'a mut dyn FnMut(Row) -> Result<ControlFlow<()>, DatabaseError>;

/// Statements inside a transaction.
pub trait Sql {
    /// Which database runs them.
    fn dialect(&self) -> Dialect;

    /// Runs a statement that answers no rows; how many rows it touched.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn execute(&self, sql: &str, data: &[Datum]) -> Result<u64, DatabaseError>;

    /// Runs a statement and shows each row of the answer (of `… RETURNING` too) as it comes. If `each` asks something
    /// else of PostgreSQL, what is left of the answer is taken into memory first.
    ///
    /// # Errors
    /// [`DatabaseError`], also what `each` answers.
    fn query(&self, sql: &str, data: &[Datum], each: Each<'_>) -> Result<(), DatabaseError>;

    /// Runs definitions, as `CREATE TABLE`: several, none with values.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn define(&self, sql: &str) -> Result<(), DatabaseError>;
}

/// All rows of a (short) answer.
///
/// # Errors
/// [`DatabaseError`]
pub fn rows(sql: &dyn Sql, text: &str, data: &[Datum]) -> Result<Vec<Row>, DatabaseError> {
    let mut found = Vec::new();
    sql.query(text, data, &mut |row| {
        found.push(row);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The first row of an answer.
///
/// # Errors
/// [`DatabaseError`]
pub fn row(sql: &dyn Sql, text: &str, data: &[Datum]) -> Result<Option<Row>, DatabaseError> {
    let mut found = None;
    sql.query(text, data, &mut |row| {
        found = Some(row);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Inserts rows, several with each statement: `head` is `INSERT INTO table(columns)`, `tail` what stands behind the
/// values.
///
/// # Errors
/// [`DatabaseError`]
pub fn insert(sql: &dyn Sql, head: &str, rows: Vec<Vec<Datum>>, tail: &str) -> Result<(), DatabaseError> {
    in_parts(head, rows, tail, &mut |text, data| sql.execute(text, data).map(drop))
}

/// Likewise; what the tail `RETURNING …` answers, in whatever order.
///
/// # Errors
/// [`DatabaseError`]
pub fn insert_returning(
    sql: &dyn Sql,
    head: &str,
    rows: Vec<Vec<Datum>>,
    tail: &str,
) -> Result<Vec<Row>, DatabaseError> {
    let mut returned = Vec::with_capacity(rows.len());
    in_parts(head, rows, tail, &mut |text, data| {
        returned.extend(self::rows(sql, text, data)?);
        Ok(())
    })?;
    Ok(returned)
}

/// Runs a statement with what is bound to it.
type Run<'a> = &'a mut dyn FnMut(&str, &[Datum]) -> Result<(), DatabaseError>;

fn in_parts(head: &str, rows: Vec<Vec<Datum>>, tail: &str, run: Run<'_>) -> Result<(), DatabaseError> {
    /// Few sizes, so that few statements are kept prepared, and any number is few of them.
    const SIZES: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];
    /// Values that are bound to one statement, at most, if it has more than one row: both databases take more.
    const MOST: usize = 4096;
    let columns = rows.first().map_or(0, Vec::len);
    let mut rest = rows.into_iter();
    for size in SIZES {
        while rest.len() >= size && (size == 1 || size * columns <= MOST) {
            let data: Vec<Datum> = rest.by_ref().take(size).flatten().collect();
            let row = |row: usize| {
                let places: Vec<String> = (1..=columns)
                    .map(|column| format!("?{}", row * columns + column))
                    .collect();
                format!("({})", places.join(", "))
            };
            let values: Vec<String> = (0..size).map(row).collect();
            run(&format!("{head} VALUES {}{tail}", values.join(", ")), &data)?;
        }
    }
    Ok(())
}

/// Does a part of a transaction, all of it or nothing: if `work` fails, what it did is taken back, and the transaction
/// goes on.
///
/// # Errors
/// What `work` answers, or a database that fails at that.
pub fn attempt<T, E: From<DatabaseError>>(sql: &dyn Sql, work: impl FnOnce(&dyn Sql) -> Result<T, E>) -> Result<T, E> {
    sql.execute("SAVEPOINT part", &[])?;
    let done = work(sql);
    if done.is_err() {
        sql.execute("ROLLBACK TO SAVEPOINT part", &[])?;
    }
    sql.execute("RELEASE SAVEPOINT part", &[])?;
    done
}

/// What runs transactions. Its methods block.
pub trait Backend: Send + Sync {
    /// Which database it is.
    fn dialect(&self) -> Dialect;

    /// Runs `work` once on a state of one moment; it changes nothing.
    ///
    /// # Errors
    /// The transaction cannot begin or end.
    fn read(&self, work: &mut dyn FnMut(&dyn Sql)) -> Result<(), DatabaseError>;

    /// Runs `work` alone among writers. If it answers true, what it did is on disk when this returns; else nothing was
    /// done. It may be run again where the database asks for that.
    ///
    /// # Errors
    /// The transaction cannot begin or end: nothing was done, as far as anybody can tell.
    fn write(&self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError>;

    /// As [`Backend::write`], but a power cut may take back the latest of these changes, whole.
    ///
    /// # Errors
    /// As for [`Backend::write`].
    fn write_lightly(&self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError>;

    /// Whether it can be written to at this moment.
    fn is_ready(&self) -> bool;
}

/// A database.
#[derive(Clone)]
pub struct Database(Arc<dyn Backend>);

impl Database {
    /// Behind which `backend` is.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self(Arc::new(backend))
    }

    /// Which it is.
    pub fn dialect(&self) -> Dialect {
        self.0.dialect()
    }

    /// Whether it can be written to at this moment.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Reads a state of one moment.
    ///
    /// # Errors
    /// What `work` answers, or a database that fails.
    pub fn read<T, E: From<DatabaseError>>(&self, work: impl FnOnce(&dyn Sql) -> Result<T, E>) -> Result<T, E> {
        let mut work = Some(work);
        let mut done = None;
        self.0.read(&mut |sql| {
            if let Some(work) = work.take() {
                done = Some(work(sql));
            }
        })?;
        done.unwrap_or_else(|| Err(DatabaseError::Closed.into()))
    }

    /// Changes, all or nothing: what is answered is on disk. `work` may be run again.
    ///
    /// # Errors
    /// What `work` answers (then nothing is changed), or a database that fails.
    pub fn write<T, E: From<DatabaseError>>(&self, work: impl FnMut(&dyn Sql) -> Result<T, E>) -> Result<T, E> {
        self.write_as(work, |work| self.0.write(work))
    }

    /// As [`Database::write`], but a power cut may take back the latest of these changes, whole: for what is found out
    /// again.
    ///
    /// # Errors
    /// As for [`Database::write`].
    pub fn write_lightly<T, E: From<DatabaseError>>(&self, work: impl FnMut(&dyn Sql) -> Result<T, E>) -> Result<T, E> {
        self.write_as(work, |work| self.0.write_lightly(work))
    }

    fn write_as<T, E: From<DatabaseError>>(
        &self,
        mut work: impl FnMut(&dyn Sql) -> Result<T, E>,
        write: impl FnOnce(&mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError>,
    ) -> Result<T, E> {
        let mut done = None;
        let written = write(&mut |sql| {
            let answer = work(sql);
            let keep = answer.is_ok();
            done = Some(answer);
            keep
        });
        match (written, done) {
            // What the work itself found wrong says more than the end of its transaction.
            (_, Some(Err(error))) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(DatabaseError::Closed.into()),
        }
    }
}
