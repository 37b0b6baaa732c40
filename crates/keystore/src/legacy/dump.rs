//! Reads what mysqldump wrote of an original Hydra's database: the rows of the six tables that matter, and nothing else
//! (`docs/src/operating.md`).
//!
//! Not a reader of SQL: statements that only set up the session or the tables are passed over, `INSERT` and `REPLACE`
//! are read value by value, and whatever else would change what rows mean is refused. It reads a file of any size in
//! one pass; a literal and the number of rows are bounded. Shares are wiped from every buffer that they go through.

use std::collections::HashMap;
use std::io::Read;

use zeroize::Zeroizing;

/// The longest literal in a table that matters; the schema's longest column has 250 characters.
const MOST_LITERAL_BYTES: usize = 64 << 10;
/// The most columns of a table.
const MOST_COLUMNS: usize = 64;
/// The most rows of one table.
const MOST_ROWS: usize = 20_000_000;

/// Why a dump cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The disk.
    #[error("cannot read the dump")]
    Read(#[source] std::io::Error),
    /// Not the SQL of a dump.
    #[error("line {line}: {what}")]
    Syntax {
        /// From 1.
        line: u64,
        /// What is wrong there; no value is quoted.
        what: &'static str,
    },
    /// It might change the rows.
    #[error("line {line}: a statement `{word}` does not belong in a dump")]
    Statement {
        /// From 1.
        line: u64,
        /// Its first word.
        word: String,
    },
    /// Rows without names for their columns.
    #[error("line {line}: the columns of `{table}` are not named: dump it with its structure")]
    Columns {
        /// From 1.
        line: u64,
        /// Which table.
        table: &'static str,
    },
    /// A column that must be there.
    #[error("`{table}` has no column `{column}`")]
    NoColumn {
        /// Of which table.
        table: &'static str,
        /// Which.
        column: &'static str,
    },
    /// More than one database.
    #[error("line {line}: `{table}` comes a second time: dump each database into a file of its own")]
    Twice {
        /// From 1.
        line: u64,
        /// Which table.
        table: &'static str,
    },
    /// A key that should be unique.
    #[error("two rows of `{table}` have the id {id}")]
    Duplicate {
        /// Which table.
        table: &'static str,
        /// Which id.
        id: i64,
    },
    /// A table that must be there.
    #[error("there is no table `{0}`: not the dump of a Hydra database")]
    NoTable(&'static str),
    /// A schema that is not known.
    #[error("schema {major}.{minor} is not known: the original had 1.0, 1.1 and 1.2")]
    Version {
        /// As it says.
        major: i64,
        /// As it says.
        minor: i64,
    },
}

/// The tables that matter.
const TABLES: [&str; 6] = ["t_meta_vers", "t_schema", "t_principal", "t_entry", "t_acl", "eds"];

/// A row of `t_entry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// Its id in this database.
    pub id: i64,
    /// The key id, in bytes.
    pub name: Vec<u8>,
    /// Of `t_principal`.
    pub owner: Option<i64>,
    /// Of `t_principal`.
    pub group: Option<i64>,
    /// Bits of owner, group and other, as the database has them.
    pub permissions: [i64; 3],
    /// Of `t_schema`.
    pub schema: Option<i64>,
    /// As it stands there.
    pub created: Option<String>,
}

/// A row of `t_acl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRow {
    /// Of `t_entry`.
    pub entry: i64,
    /// Of `t_principal`.
    pub principal: i64,
    /// Bits, as the database has them.
    pub permissions: i64,
}

/// A row of `eds`.
pub struct KeyRow {
    /// Of `t_entry`.
    pub entry: i64,
    /// OpenSSL's name.
    pub cipher: String,
    /// Share, or, where `place` is none, the whole key; hex digits. None where the column is empty.
    pub share: Option<Zeroizing<Vec<u8>>>,
    /// Hex digits as they stand there; empty for NULL.
    pub iv: String,
    /// Bits, in decimal, as they stand there; empty for NULL.
    pub bits: String,
    /// How many shares join, and which this is, from 0; none where the schema has no such columns.
    pub place: Option<(i64, i64)>,
}

/// What one database held.
#[derive(Default)]
pub struct Dump {
    /// Names of principals.
    pub principals: HashMap<i64, Vec<u8>>,
    /// Names of schemas.
    pub schemas: HashMap<i64, Vec<u8>>,
    /// By id.
    pub entries: HashMap<i64, EntryRow>,
    /// In the order of the dump.
    pub acl: Vec<AclRow>,
    /// By the id of their entry.
    pub keys: HashMap<i64, KeyRow>,
}

/// Reads a whole dump.
///
/// # Errors
/// [`DumpError`]
pub fn read(source: impl Read) -> Result<Dump, DumpError> {
    let mut reader = Reader {
        lexer: Lexer::new(source),
        columns: HashMap::new(),
        filled: [0; TABLES.len()],
        dump: Dump::default(),
        version: None,
    };
    while reader.statement()? {}
    reader.finish()
}

struct Reader<R> {
    lexer: Lexer<R>,
    columns: HashMap<&'static str, Vec<String>>,
    /// Rows of each table.
    filled: [usize; TABLES.len()],
    dump: Dump,
    version: Option<(i64, i64)>,
}

impl<R: Read> Reader<R> {
    /// One statement; false at the end.
    fn statement(&mut self) -> Result<bool, DumpError> {
        let word = match self.lexer.next(true)? {
            None => return Ok(false),
            Some(Token::Symbol(b';')) => return Ok(true),
            Some(Token::Word(word)) => word.to_ascii_uppercase(),
            Some(_) => return Err(self.lexer.syntax("a statement begins with a word")),
        };
        match word.as_str() {
            "INSERT" | "REPLACE" => self.insert()?,
            "CREATE" => self.create()?,
            "USE" => {
                if let Some(place) = self.filled.iter().position(|rows| *rows > 0) {
                    return Err(self.twice(TABLES[place]));
                }
                self.skip()?;
            }
            // Of the session, or of tables whose rows come after.
            "SET" | "DROP" | "LOCK" | "UNLOCK" | "ALTER" | "COMMIT" | "START" | "BEGIN" | "FLUSH" => self.skip()?,
            _ => {
                let line = self.lexer.line;
                return Err(DumpError::Statement { line, word });
            }
        }
        Ok(true)
    }

    fn twice(&self, table: &'static str) -> DumpError {
        let line = self.lexer.line;
        DumpError::Twice { line, table }
    }

    /// To the end of the statement.
    fn skip(&mut self) -> Result<(), DumpError> {
        while let Some(token) = self.lexer.next(false)? {
            if matches!(token, Token::Symbol(b';')) {
                break;
            }
        }
        Ok(())
    }

    fn create(&mut self) -> Result<(), DumpError> {
        match self.lexer.next(true)? {
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("TABLE") => {}
            Some(Token::Symbol(b';')) => return Ok(()),
            _ => return self.skip(),
        }
        let mut token = self.lexer.next(true)?;
        for expected in ["IF", "NOT", "EXISTS"] {
            match &token {
                Some(Token::Word(word)) if word.eq_ignore_ascii_case(expected) => token = self.lexer.next(true)?,
                _ => break,
            }
        }
        let (name, after) = self.name(token)?;
        let Some(table) = known(&name) else {
            return if is_end(after.as_ref()) { Ok(()) } else { self.skip() };
        };
        if self.columns.contains_key(table) || self.filled_of(table) > 0 {
            return Err(self.twice(table));
        }
        if !matches!(after, Some(Token::Symbol(b'('))) {
            return Err(self.lexer.syntax("a table has columns in parentheses"));
        }
        let columns = self.column_definitions()?;
        self.columns.insert(table, columns);
        self.skip()
    }

    /// The names in front of the definitions; keys and constraints have none.
    fn column_definitions(&mut self) -> Result<Vec<String>, DumpError> {
        const NO_COLUMN: [&str; 8] = [
            "PRIMARY",
            "KEY",
            "UNIQUE",
            "CONSTRAINT",
            "INDEX",
            "FULLTEXT",
            "FOREIGN",
            "CHECK",
        ];
        let mut columns = Vec::new();
        let (mut depth, mut first) = (1_u32, true);
        while depth > 0 {
            let token = self.lexer.next(true)?;
            let token = token.ok_or_else(|| self.lexer.syntax("it ends inside of a table's columns"))?;
            match token {
                Token::Quoted(name) if first => columns.push(name),
                Token::Word(name) if first && !NO_COLUMN.iter().any(|word| name.eq_ignore_ascii_case(word)) => {
                    columns.push(name);
                }
                Token::Symbol(b'(') => depth = depth.saturating_add(1),
                Token::Symbol(b')') => depth -= 1,
                Token::Symbol(b',') if depth == 1 => {
                    first = true;
                    continue;
                }
                _ => {}
            }
            first = false;
            if columns.len() > MOST_COLUMNS {
                return Err(self.lexer.syntax("too many columns"));
            }
        }
        Ok(columns)
    }

    /// A name, perhaps behind that of its database; and what follows it.
    fn name(&mut self, token: Option<Token>) -> Result<(String, Option<Token>), DumpError> {
        let mut name = self.identifier(token)?;
        let mut after = self.lexer.next(true)?;
        if matches!(after, Some(Token::Symbol(b'.'))) {
            let token = self.lexer.next(true)?;
            name = self.identifier(token)?;
            after = self.lexer.next(true)?;
        }
        Ok((name, after))
    }

    fn identifier(&self, token: Option<Token>) -> Result<String, DumpError> {
        match token {
            Some(Token::Word(name) | Token::Quoted(name)) => Ok(name),
            _ => Err(self.lexer.syntax("a name is missing")),
        }
    }

    fn insert(&mut self) -> Result<(), DumpError> {
        const BEFORE: [&str; 5] = ["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"];
        let mut token = self.lexer.next(true)?;
        while let Some(Token::Word(word)) = &token
            && BEFORE.iter().any(|known| word.eq_ignore_ascii_case(known))
        {
            token = self.lexer.next(true)?;
        }
        let (name, mut after) = self.name(token)?;
        let Some(table) = known(&name) else {
            return if is_end(after.as_ref()) { Ok(()) } else { self.skip() };
        };
        let listed = if matches!(after, Some(Token::Symbol(b'('))) {
            let columns = self.column_list()?;
            after = self.lexer.next(true)?;
            Some(columns)
        } else {
            None
        };
        match after {
            Some(Token::Word(word)) if ["VALUES", "VALUE"].iter().any(|known| word.eq_ignore_ascii_case(known)) => {}
            _ => return Err(self.lexer.syntax("rows are inserted as VALUES")),
        }
        let line = self.lexer.line;
        let columns = match listed {
            Some(columns) => columns,
            None => self
                .columns
                .get(table)
                .cloned()
                .ok_or(DumpError::Columns { line, table })?,
        };
        let places = Places::of(table, &columns)?;
        self.rows(table, columns.len(), &places)
    }

    fn column_list(&mut self) -> Result<Vec<String>, DumpError> {
        let mut columns = Vec::new();
        loop {
            let token = self.lexer.next(true)?;
            columns.push(self.identifier(token)?);
            match self.lexer.next(true)? {
                Some(Token::Symbol(b',')) if columns.len() < MOST_COLUMNS => {}
                Some(Token::Symbol(b')')) => return Ok(columns),
                _ => return Err(self.lexer.syntax("a list of columns does not read")),
            }
        }
    }

    fn rows(&mut self, table: &'static str, width: usize, places: &Places) -> Result<(), DumpError> {
        loop {
            if !matches!(self.lexer.next(true)?, Some(Token::Symbol(b'('))) {
                return Err(self.lexer.syntax("a row begins with a parenthesis"));
            }
            let mut values = Vec::with_capacity(width);
            loop {
                values.push(self.value()?);
                match self.lexer.next(true)? {
                    Some(Token::Symbol(b',')) if values.len() < width => {}
                    Some(Token::Symbol(b')')) if values.len() == width => break,
                    _ => {
                        return Err(self
                            .lexer
                            .syntax("a row has not as many values as the table has columns"));
                    }
                }
            }
            self.row(table, places, &mut values)?;
            match self.lexer.next(true)? {
                Some(Token::Symbol(b',')) => {}
                None | Some(Token::Symbol(b';')) => return Ok(()),
                _ => return Err(self.lexer.syntax("something follows the rows")),
            }
        }
    }

    fn value(&mut self) -> Result<Value, DumpError> {
        let mut token = self.lexer.next(true)?;
        if matches!(&token, Some(Token::Word(word)) if word.starts_with('_')) {
            // A character set in front of a text: the bytes are kept as they are.
            token = self.lexer.next(true)?;
            if !matches!(token, Some(Token::Text(_))) {
                return Err(self.lexer.syntax("a character set stands before a text"));
            }
        }
        match token {
            Some(Token::Text(text)) => Ok(Value::Text(text)),
            Some(Token::Number(number)) => Ok(Value::Number(number)),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("NULL") => Ok(Value::Null),
            Some(Token::Symbol(b'-')) => match self.lexer.next(true)? {
                Some(Token::Number(number)) => Ok(Value::Number(format!("-{number}"))),
                _ => Err(self.lexer.syntax("a number is missing behind its sign")),
            },
            _ => Err(self.lexer.syntax("a value is a text, a number or NULL")),
        }
    }

    fn filled_of(&self, table: &str) -> usize {
        let place = TABLES.iter().position(|known| *known == table);
        place.map_or(0, |place| self.filled[place])
    }

    fn row(&mut self, table: &'static str, places: &Places, values: &mut [Value]) -> Result<(), DumpError> {
        let line = self.lexer.line;
        if let Some(place) = TABLES.iter().position(|known| *known == table) {
            self.filled[place] += 1;
            if self.filled[place] > MOST_ROWS {
                return Err(DumpError::Syntax {
                    line,
                    what: "too many rows",
                });
            }
        }
        let mut row = Fields { line, places, values };
        match table {
            "t_meta_vers" => self.version = Some((row.number("major")?, row.number("minor")?)),
            "t_schema" => {
                let (id, name) = (row.number("schema_id")?, row.bytes("schema_name")?);
                unique(table, id, self.dump.schemas.insert(id, name).is_some())?;
            }
            "t_principal" => {
                let (id, name) = (row.number("principal_id")?, row.bytes("principal_name")?);
                unique(table, id, self.dump.principals.insert(id, name).is_some())?;
            }
            "t_entry" => {
                let entry = row.entry()?;
                let id = entry.id;
                unique(table, id, self.dump.entries.insert(id, entry).is_some())?;
            }
            "t_acl" => self.dump.acl.push(AclRow {
                entry: row.number("entry_id")?,
                principal: row.number("principal_id")?,
                permissions: row.number("perm")?,
            }),
            _ => {
                let key = row.key()?;
                let id = key.entry;
                unique(table, id, self.dump.keys.insert(id, key).is_some())?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Dump, DumpError> {
        if let Some((major, minor)) = self.version.filter(|version| !matches!(version, (1, 0..=2))) {
            return Err(DumpError::Version { major, minor });
        }
        for table in ["t_entry", "t_principal", "eds"] {
            if !self.columns.contains_key(table) && self.filled_of(table) == 0 {
                return Err(DumpError::NoTable(table));
            }
        }
        Ok(self.dump)
    }
}

fn known(name: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|table| name.eq_ignore_ascii_case(table))
}

fn is_end(token: Option<&Token>) -> bool {
    matches!(token, None | Some(Token::Symbol(b';')))
}

fn unique(table: &'static str, id: i64, was_there: bool) -> Result<(), DumpError> {
    if was_there {
        return Err(DumpError::Duplicate { table, id });
    }
    Ok(())
}

/// Where the columns that matter stand in a row.
struct Places(HashMap<&'static str, usize>);

impl Places {
    fn of(table: &'static str, columns: &[String]) -> Result<Self, DumpError> {
        let (needed, optional): (&[&str], &[&str]) = match table {
            "t_meta_vers" => (&["major", "minor"], &[]),
            "t_schema" => (&["schema_id", "schema_name"], &[]),
            "t_principal" => (&["principal_id", "principal_name"], &[]),
            "t_entry" => (
                &[
                    "entry_id",
                    "entry_name",
                    "owner_id",
                    "user_perm",
                    "group_perm",
                    "other_perm",
                ],
                &["group_id", "schema_id", "creation_time"],
            ),
            "t_acl" => (&["entry_id", "principal_id", "perm"], &[]),
            _ => (
                &["entry_id", "edscipher", "edskey", "edsiv", "edskeyinfo"],
                &["edskeysneeded", "edskeyindex"],
            ),
        };
        let mut places = HashMap::new();
        for (column, must) in needed
            .iter()
            .map(|name| (*name, true))
            .chain(optional.iter().map(|name| (*name, false)))
        {
            match columns.iter().position(|known| known.eq_ignore_ascii_case(column)) {
                Some(place) => {
                    places.insert(column, place);
                }
                None if must => return Err(DumpError::NoColumn { table, column }),
                None => {}
            }
        }
        Ok(Self(places))
    }
}

enum Value {
    Null,
    Text(Zeroizing<Vec<u8>>),
    Number(String),
}

/// One row, by the names of its columns.
struct Fields<'a> {
    line: u64,
    places: &'a Places,
    values: &'a mut [Value],
}

impl Fields<'_> {
    fn syntax(&self, what: &'static str) -> DumpError {
        DumpError::Syntax { line: self.line, what }
    }

    fn take(&mut self, column: &str) -> Value {
        let value = self.places.0.get(column).and_then(|place| self.values.get_mut(*place));
        value.map_or(Value::Null, |value| std::mem::replace(value, Value::Null))
    }

    fn optional_number(&mut self, column: &str) -> Result<Option<i64>, DumpError> {
        let parsed = match self.take(column) {
            Value::Null => return Ok(None),
            Value::Number(text) => text.parse().ok(),
            Value::Text(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
        };
        parsed.map(Some).ok_or_else(|| self.syntax("a number does not read"))
    }

    fn number(&mut self, column: &str) -> Result<i64, DumpError> {
        let number = self.optional_number(column)?;
        number.ok_or_else(|| self.syntax("NULL stands where a number should"))
    }

    fn optional_bytes(&mut self, column: &str) -> Option<Zeroizing<Vec<u8>>> {
        match self.take(column) {
            Value::Null => None,
            Value::Number(text) => Some(Zeroizing::new(text.into_bytes())),
            Value::Text(text) => Some(text),
        }
    }

    fn bytes(&mut self, column: &str) -> Result<Vec<u8>, DumpError> {
        let bytes = self.optional_bytes(column).map(|bytes| bytes.to_vec());
        bytes.ok_or_else(|| self.syntax("NULL stands where a text should"))
    }

    /// Ciphers, ivs and numbers are ASCII.
    fn ascii(&mut self, column: &str) -> Result<String, DumpError> {
        let bytes = self
            .optional_bytes(column)
            .map(|bytes| bytes.to_vec())
            .unwrap_or_default();
        let text = String::from_utf8(bytes).ok().filter(|text| text.is_ascii());
        text.ok_or_else(|| self.syntax("a text that should be ASCII is not"))
    }

    fn entry(&mut self) -> Result<EntryRow, DumpError> {
        Ok(EntryRow {
            id: self.number("entry_id")?,
            name: self.bytes("entry_name")?,
            owner: self.optional_number("owner_id")?,
            group: self.optional_number("group_id")?,
            permissions: [
                self.number("user_perm")?,
                self.number("group_perm")?,
                self.number("other_perm")?,
            ],
            schema: self.optional_number("schema_id")?,
            created: Some(self.ascii("creation_time")?).filter(|text| !text.is_empty()),
        })
    }

    fn key(&mut self) -> Result<KeyRow, DumpError> {
        let has_place = self.places.0.contains_key("edskeysneeded") && self.places.0.contains_key("edskeyindex");
        let share = self.optional_bytes("edskey").filter(|digits| !digits.is_empty());
        let place = if has_place {
            Some((self.number("edskeysneeded")?, self.number("edskeyindex")?))
        } else {
            None
        };
        Ok(KeyRow {
            entry: self.number("entry_id")?,
            cipher: self.ascii("edscipher")?,
            share,
            iv: self.ascii("edsiv")?,
            bits: self.ascii("edskeyinfo")?,
            place,
        })
    }
}

// --- tokens -----------------------------------------------------------------------------------------------------------

enum Token {
    /// Without quotes: a keyword or a name.
    Word(String),
    /// In backticks: a name.
    Quoted(String),
    Text(Zeroizing<Vec<u8>>),
    Number(String),
    Symbol(u8),
}

struct Lexer<R> {
    source: R,
    buffer: Zeroizing<Vec<u8>>,
    at: usize,
    end: usize,
    line: u64,
}

impl<R: Read> Lexer<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            buffer: Zeroizing::new(vec![0; 64 << 10]),
            at: 0,
            end: 0,
            line: 1,
        }
    }

    fn syntax(&self, what: &'static str) -> DumpError {
        DumpError::Syntax { line: self.line, what }
    }

    fn peek(&mut self) -> Result<Option<u8>, DumpError> {
        while self.at == self.end {
            match self.source.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => (self.at, self.end) = (0, read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DumpError::Read(error)),
            }
        }
        Ok(Some(self.buffer[self.at]))
    }

    fn advance(&mut self) -> Result<Option<u8>, DumpError> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.at += 1;
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }

    /// The next token; texts are not kept, and of any length, unless they are to be.
    fn next(&mut self, keep: bool) -> Result<Option<Token>, DumpError> {
        loop {
            let Some(byte) = self.advance()? else { return Ok(None) };
            return Ok(Some(match byte {
                byte if byte.is_ascii_whitespace() => continue,
                b'#' => {
                    self.rest_of_line()?;
                    continue;
                }
                b'-' if self.peek()? == Some(b'-') => {
                    self.rest_of_line()?;
                    continue;
                }
                b'/' if self.peek()? == Some(b'*') => {
                    self.advance()?;
                    self.comment()?;
                    continue;
                }
                b'\'' | b'"' => Token::Text(self.text(byte, keep)?),
                b'`' => Token::Quoted(self.quoted()?),
                b'0' if matches!(self.peek()?, Some(b'x' | b'X')) => {
                    self.advance()?;
                    let digits = self.run(String::new(), |byte| byte.is_ascii_alphanumeric())?;
                    Token::Text(self.unhex(digits.as_bytes())?)
                }
                byte if byte.is_ascii_digit() => {
                    let first = char::from(byte).to_string();
                    Token::Number(self.run(first, |byte| byte.is_ascii_alphanumeric() || byte == b'.')?)
                }
                byte if byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' => {
                    let first = char::from(byte).to_string();
                    let word = self.run(first, |byte| {
                        byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
                    })?;
                    if word.eq_ignore_ascii_case("x") && self.peek()? == Some(b'\'') {
                        self.advance()?;
                        let digits = self.text(b'\'', true)?;
                        Token::Text(self.unhex(&digits)?)
                    } else {
                        Token::Word(word)
                    }
                }
                byte => Token::Symbol(byte),
            }));
        }
    }

    fn rest_of_line(&mut self) -> Result<(), DumpError> {
        while !matches!(self.advance()?, None | Some(b'\n')) {}
        Ok(())
    }

    /// Also those that MySQL executes: in a dump they set up the session.
    fn comment(&mut self) -> Result<(), DumpError> {
        loop {
            match self.advance()? {
                None => return Err(self.syntax("it ends inside of a comment")),
                Some(b'*') if self.peek()? == Some(b'/') => {
                    self.advance()?;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
    }

    fn run(&mut self, mut word: String, more: impl Fn(u8) -> bool) -> Result<String, DumpError> {
        while let Some(byte) = self.peek()?.filter(|byte| more(*byte)) {
            if word.len() >= MOST_LITERAL_BYTES {
                return Err(self.syntax("a word is too long"));
            }
            word.push(char::from(byte));
            self.advance()?;
        }
        Ok(word)
    }

    fn quoted(&mut self) -> Result<String, DumpError> {
        let mut name = Vec::new();
        loop {
            match self.advance()? {
                None => return Err(self.syntax("it ends inside of a name")),
                Some(b'`') if self.peek()? == Some(b'`') => {
                    self.advance()?;
                    name.push(b'`');
                }
                Some(b'`') => return String::from_utf8(name).map_err(|_| self.syntax("a name is not UTF-8")),
                Some(byte) => name.push(byte),
            }
            if name.len() > MOST_LITERAL_BYTES {
                return Err(self.syntax("a name is too long"));
            }
        }
    }

    /// Behind the opening quote: backslashes escape, and a doubled quote is one.
    fn text(&mut self, quote: u8, keep: bool) -> Result<Zeroizing<Vec<u8>>, DumpError> {
        // Long enough for any share: what grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(if keep { 1024 } else { 0 }));
        loop {
            let byte = match self.advance()? {
                None => return Err(self.syntax("it ends inside of a text")),
                Some(b'\\') => match self.advance()? {
                    None => return Err(self.syntax("it ends inside of a text")),
                    Some(b'0') => 0,
                    Some(b'b') => 8,
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'Z') => 26,
                    // These two keep their backslash: they matter to LIKE alone.
                    Some(wildcard @ (b'%' | b'_')) => {
                        if keep {
                            text.push(b'\\');
                        }
                        wildcard
                    }
                    Some(other) => other,
                },
                Some(byte) if byte == quote => {
                    if self.peek()? != Some(quote) {
                        return Ok(text);
                    }
                    self.advance()?;
                    quote
                }
                Some(byte) => byte,
            };
            if keep {
                text.push(byte);
                if text.len() > MOST_LITERAL_BYTES {
                    return Err(self.syntax("a text is too long"));
                }
            }
        }
    }

    fn unhex(&self, digits: &[u8]) -> Result<Zeroizing<Vec<u8>>, DumpError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits);
        bytes
            .map(Zeroizing::new)
            .map_err(|_| self.syntax("hex digits do not read"))
    }
}
