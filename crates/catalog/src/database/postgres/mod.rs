//! PostgreSQL behind [`Sql`]: a small pool of connections, each statement prepared once for each of them, and a
//! deadline on everything (`docs/src/operating-catalogue.md`).
//!
//! Writers take turns by an advisory lock, so that they see what a writer of SQLite sees: everything before them, and
//! nobody beside them; those of one process share commits. Readers see the state of one moment. What the server says of
//! a failure is kept short: its details quote values.

mod tls;

#[cfg(test)]
#[allow(dead_code, reason = "other tests and benches use more of it")]
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::future::Future;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::runtime::{Handle, Runtime};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, RowStream, Statement};
use zeroize::Zeroizing;

use super::group::{self, Failed, Part, Writers};
use super::{Backend, DatabaseError, Datum, Dialect, Each, Product, Row, Sql, row, schema};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a writer waits for the one before, and anybody for a connection.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one statement may take at the server.
const STATEMENT: Duration = Duration::from_secs(60);
/// How long it may take seen from here: the server itself may be gone.
const ANSWER: Duration = Duration::from_secs(75);
/// The most connections.
const CONNECTIONS: usize = 16;
/// Statements that are kept prepared for each connection.
const STATEMENTS: usize = 256;

/// Why a connection cannot be set up as the settings say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// It does not read.
    #[error("the address of the database is no `postgres://` URL")]
    Url,
    /// Configurations are read by many.
    #[error("the address of the database has a password: it belongs into a file of its own")]
    Password,
    /// No user, so that the system's would be taken.
    #[error("the address of the database names no user")]
    User,
    /// More than one server, of which the first to answer would be taken.
    #[error("the address of the database names more than one server")]
    Hosts,
    /// The file of the password does not read.
    #[error("cannot read the database's password in `{}`", path.display())]
    PasswordFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner may read it.
    #[error("the database's password in `{}` is readable by others", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
    },
}

/// Where the database is. Its password is in memory that is wiped.
pub struct Settings {
    config: Config,
    password: Option<Zeroizing<String>>,
    authorities: Option<PathBuf>,
    patience: Duration,
}

impl Settings {
    /// Of a URL, `postgres://catalog@db.example.org/catalog` or `postgres://catalog@%2Frun%2Fpostgresql/catalog`. A
    /// server that is reached over a network must show a certificate for its name, but where `sslmode=disable` says
    /// otherwise.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn new(url: &str) -> Result<Self, SettingsError> {
        let mut config: Config = url.parse().map_err(|_| SettingsError::Url)?;
        if config.get_password().is_some() {
            return Err(SettingsError::Password);
        }
        if config.get_user().is_none() {
            return Err(SettingsError::User);
        }
        let [host] = config.get_hosts() else {
            return Err(SettingsError::Hosts);
        };
        let is_local = matches!(host, Host::Unix(_));
        if is_local {
            config.ssl_mode(SslMode::Disable);
        } else if config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Require);
        }
        config.connect_timeout(CONNECT);
        Ok(Self {
            config,
            password: None,
            authorities: None,
            patience: PATIENCE,
        })
    }

    /// The same with the files that it may need.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn of(url: &str, password_file: Option<&Path>, authorities: Option<&Path>) -> Result<Self, SettingsError> {
        let mut settings = Self::new(url)?;
        if let Some(path) = password_file {
            settings = settings.password_file(path)?;
        }
        Ok(match authorities {
            Some(path) => settings.authorities(path.to_owned()),
            None => settings,
        })
    }

    /// With the password in a file that nobody else may read; a line end at its end does not count.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn password_file(mut self, path: &Path) -> Result<Self, SettingsError> {
        let failed = |source| SettingsError::PasswordFile {
            path: path.to_owned(),
            source,
        };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(SettingsError::Readable { path: path.to_owned() });
        }
        // Room for all of it at once, so that no copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(4096));
        file.by_ref().take(4096).read_to_string(&mut text).map_err(failed)?;
        let length = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(length);
        self.password = Some(text);
        Ok(self)
    }

    /// With the authorities that may sign the server's certificate, in PEM.
    #[must_use]
    pub fn authorities(mut self, path: PathBuf) -> Self {
        self.authorities = Some(path);
        self
    }

    fn needs_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// What PostgreSQL says of a failure: without the details, which quote values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL: {message}")]
pub struct PostgresError {
    /// Its five letters, if the server itself refused.
    pub state: Option<String>,
    /// In its words.
    pub message: String,
    /// What would help.
    pub remedy: Remedy,
}

/// What would help against a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// To wait: there is no way to the server, or it has no time or no connection left.
    Time,
    /// Another address, password or certificate.
    Settings,
    /// Nothing that is known here.
    None,
}

impl PostgresError {
    fn plain(message: &str) -> Self {
        Self {
            state: None,
            message: message.to_owned(),
            remedy: Remedy::None,
        }
    }

    /// Nobody answers.
    fn silent(message: &str) -> Self {
        Self {
            remedy: Remedy::Time,
            ..Self::plain(message)
        }
    }

    /// It cannot be reached as the settings say.
    fn settings(message: &str) -> Self {
        Self {
            remedy: Remedy::Settings,
            ..Self::plain(message)
        }
    }

    fn has_state(&self, states: &[&str]) -> bool {
        self.state.as_deref().is_some_and(|state| states.contains(&state))
    }

    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        self.has_state(&["53100"])
    }

    /// Whether the same work may well be done now: it lost against another, or the server ended its connection.
    fn asks_again(&self) -> bool {
        // serialization_failure, deadlock_detected, and a server that stops
        self.has_state(&["40001", "40P01", "57P01", "57P02", "57P03"])
    }
}

/// By the class of the server's five letters, and some of them.
fn remedy_of(state: &str) -> Remedy {
    match (state.get(..2), state) {
        // connections; too many of them, no memory; waited too long for a lock; it stops or starts
        (Some("08"), _) | (_, "53200" | "53300" | "55P03" | "57P01" | "57P02" | "57P03") => Remedy::Time,
        // it lost against others again and again
        (_, "40001" | "40P01") => Remedy::Time,
        // who it is; no such database, no right to it
        (Some("28"), _) | (_, "3D000" | "42501") => Remedy::Settings,
        _ => Remedy::None,
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(refusal) = error.as_db_error() {
            let state = refusal.code().code().to_owned();
            return Self {
                remedy: remedy_of(&state),
                state: Some(state),
                message: refusal.message().to_owned(),
            };
        }
        let cause = error.source();
        let message = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        let input = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let is_tls = |error: &std::io::Error| error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        match input {
            Some(error) if is_tls(error) => Self::settings(&message),
            Some(_) => Self::silent(&message),
            None if error.is_closed() => Self::silent(&message),
            // TLS where there is none, a password where none is configured
            None => Self::settings(&message),
        }
    }
}

fn failed(error: tokio_postgres::Error) -> DatabaseError {
    DatabaseError::Postgres(error.into())
}

/// A PostgreSQL database. Its methods block.
pub struct Postgres {
    core: Arc<Core>,
    writers: Writers<Pen>,
}

/// Its connections.
struct Core {
    product: &'static Product,
    settings: Settings,
    tls: Option<tls::Tls>,
    /// Drives the connections. Taken when this is dropped, which may be where nothing may block.
    runtime: Option<Runtime>,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Idle or not.
    open: usize,
}

struct Connection {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Postgres {
    /// Makes the tables of a catalogue in a database (of `createdb`, UTF-8) that has none.
    ///
    /// # Errors
    /// [`DatabaseError`]; tables that are there already are one.
    pub fn create(settings: Settings) -> Result<Self, DatabaseError> {
        let database = Self::vacant(settings)?;
        database.bring_up()?;
        Ok(database)
    }

    /// Whether [`Self::create`] would find a database without tables of ours.
    ///
    /// # Errors
    /// [`DatabaseError`]; tables that are there already are one.
    pub fn look(settings: Settings) -> Result<(), DatabaseError> {
        Self::vacant(settings).map(drop)
    }

    /// A database in which a catalogue can be made.
    fn vacant(settings: Settings) -> Result<Self, DatabaseError> {
        let database = Self::connect(&schema::CATALOG, settings)?;
        if database.owner()?.is_some() {
            return Err(DatabaseError::Exists);
        }
        Ok(database)
    }

    /// Opens the database of a catalogue, brought to this version's schema.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open(settings: Settings) -> Result<Self, DatabaseError> {
        let database = Self::connect(&schema::CATALOG, settings)?;
        if database.owner()?.is_none() {
            let program = schema::CATALOG.program;
            return Err(DatabaseError::NotOurs { program });
        }
        database.bring_up()?;
        Ok(database)
    }

    /// Opens a database, which may be empty, for what has tables of its own.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open_for(product: &'static Product, settings: Settings) -> Result<Self, DatabaseError> {
        let database = Self::connect(product, settings)?;
        database.bring_up()?;
        Ok(database)
    }

    fn connect(product: &'static Product, settings: Settings) -> Result<Self, DatabaseError> {
        let core = Arc::new(Core::connect(product, settings)?);
        let pen = Pen {
            core: Arc::clone(&core),
            connection: None,
            unsent: String::new(),
        };
        Ok(Self {
            core,
            writers: Writers::new(pen),
        })
    }

    /// Whose tables are where new ones would be made.
    fn owner(&self) -> Result<Option<String>, DatabaseError> {
        let mut found = Ok(None);
        self.read(&mut |sql| found = owner(sql))?;
        found
    }

    fn bring_up(&self) -> Result<(), DatabaseError> {
        let product = self.core.product;
        let mut brought = Ok(());
        self.write(&mut |sql| {
            brought = owner(sql).and_then(|owner| {
                if owner.is_some_and(|owner| owner != product.program) {
                    let program = product.program;
                    return Err(DatabaseError::NotOurs { program });
                }
                product.bring_up(sql)?;
                schema::set_meta(sql, APPLICATION, product.program)
            });
            brought.is_ok()
        })?;
        brought
    }
}

impl Core {
    fn connect(product: &'static Product, mut settings: Settings) -> Result<Self, DatabaseError> {
        settings.config.application_name(product.program);
        let plain = |error: std::io::Error| DatabaseError::Postgres(PostgresError::plain(&error.to_string()));
        let tls = if settings.needs_tls() {
            Some(tls::Tls::new(settings.authorities.as_deref())?)
        } else {
            None
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(plain)?;
        let database = Self {
            product,
            settings,
            tls,
            runtime: Some(runtime),
            pool: Mutex::default(),
            returned: Condvar::new(),
        };
        let connection = database.take()?;
        let encoding = database.wait(async {
            let row = connection.client.query_one("SHOW server_encoding", &[]).await;
            row.and_then(|row| row.try_get::<_, String>(0)).map_err(failed)
        });
        database.give(connection);
        match encoding?.as_str() {
            "UTF8" => Ok(database),
            other => Err(DatabaseError::Postgres(PostgresError::settings(&format!(
                "the database has the encoding {other} and not UTF8"
            )))),
        }
    }

    fn handle(&self) -> Result<&Handle, DatabaseError> {
        let runtime = self.runtime.as_ref();
        runtime.map(Runtime::handle).ok_or(DatabaseError::Closed)
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
        wait(self.handle()?, work)
    }

    /// A connection, an idle one if there is one.
    fn take(&self) -> Result<Connection, DatabaseError> {
        let end = Instant::now() + self.settings.patience;
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(connection) = pool.idle.pop() {
                if !connection.client.is_closed() {
                    return Ok(connection);
                }
                pool.open -= 1;
            }
            if pool.open < CONNECTIONS {
                break;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = format!("all {CONNECTIONS} connections are in use");
                return Err(DatabaseError::Postgres(PostgresError::silent(&text)));
            }
            let waited = self.returned.wait_timeout(pool, left);
            pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        pool.open += 1;
        drop(pool);
        let opened = self.open_one();
        if opened.is_err() {
            self.lose();
        }
        opened
    }

    /// One connection is no more.
    fn lose(&self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).open -= 1;
        self.returned.notify_one();
    }

    fn give(&self, connection: Connection) {
        if connection.client.is_closed() {
            return self.lose();
        }
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.push(connection);
        self.returned.notify_one();
    }

    fn open_one(&self) -> Result<Connection, DatabaseError> {
        let mut config = self.settings.config.clone();
        if let Some(password) = &self.settings.password {
            config.password(password.as_bytes());
        }
        let handle = self.handle()?.clone();
        let client = self.wait(async {
            let client = match &self.tls {
                None => {
                    let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                    handle.spawn(connection);
                    client
                }
                Some(tls) => {
                    let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                    handle.spawn(connection);
                    client
                }
            };
            // Plans are made for the values at hand: what is rare is worth another way than what is common.
            let session = format!(
                "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
                 SET plan_cache_mode = force_custom_plan; SET jit = off; SET synchronous_commit = on; \
                 SET standard_conforming_strings = on; SET timezone = 'UTC'",
                STATEMENT.as_millis(),
                self.settings.patience.as_millis(),
                ANSWER.as_millis(),
            );
            client.batch_execute(&session).await.map_err(failed)?;
            Ok(client)
        });
        Ok(Connection {
            client: client?,
            statements: Mutex::default(),
        })
    }

    /// Begins a transaction, on another connection where one has died in the meantime.
    fn begin(&self, text: &str) -> Result<Connection, DatabaseError> {
        loop {
            let connection = self.take()?;
            let begun = self.wait(async { connection.client.batch_execute(text).await.map_err(failed) });
            let Err(error) = begun else {
                return Ok(connection);
            };
            let is_dead = connection.client.is_closed() || asks_again(&error);
            let was_used = !lock(&connection.statements).is_empty();
            drop(connection);
            self.lose();
            // A new one that fails as well says that there is nobody.
            if !(is_dead && was_used) {
                return Err(error);
            }
        }
    }

    /// Ends a transaction. A connection whose transaction did not end is not used again.
    fn end(&self, connection: Connection, text: &str) -> Result<(), DatabaseError> {
        let ended = self.wait(async { connection.client.batch_execute(text).await.map_err(failed) });
        match ended {
            Ok(()) => self.give(connection),
            Err(_) => {
                drop(connection);
                self.lose();
            }
        }
        ended
    }

    fn statements<'a>(&'a self, connection: &'a Connection) -> Result<Statements<'a>, DatabaseError> {
        Ok(Statements {
            connection,
            handle: self.handle()?,
            asks_again: Mutex::new(false),
            is_broken: Mutex::new(false),
            coming: RefCell::default(),
            unsent: RefCell::default(),
        })
    }
}

/// The row of `meta` by which a database is known as ours.
const APPLICATION: &str = "application";

/// Whose tables are in the database: of another program's table `meta` nobody's.
fn owner(sql: &dyn Sql) -> Result<Option<String>, DatabaseError> {
    let there = row(sql, "SELECT count(to_regclass('meta'))", &[])?;
    match there.map_or(Ok(0), |row| row.integer(0))? {
        0 => Ok(None),
        _ => schema::meta(sql, APPLICATION),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<T>(handle: &Handle, work: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
    let late = || DatabaseError::Postgres(PostgresError::silent("no answer in time"));
    let _timers = handle.enter();
    let answered = drive(tokio::time::timeout(ANSWER, work));
    answered.unwrap_or_else(|_| Err(late()))
}

/// Waits for a future on this thread, whatever else it drives: the runtime's own way of waiting panics on threads of
/// another runtime.
fn drive<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

fn asks_again(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Postgres(error) if error.asks_again())
}

impl Backend for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn read(&self, work: &mut dyn FnMut(&dyn Sql)) -> Result<(), DatabaseError> {
        let connection = self.core.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        // A connection that is not ended would be missing in the pool for ever.
        let worked = catch_unwind(AssertUnwindSafe(|| {
            work(&self.core.statements(&connection)?);
            Ok(())
        }));
        // Nothing was changed: whatever became of the connection, the answers are right.
        let _ = self.core.end(connection, "ROLLBACK");
        worked.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn write(&self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError> {
        self.write_as(false, work)
    }

    fn write_lightly(&self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError> {
        self.write_as(true, work)
    }

    fn is_ready(&self) -> bool {
        let Ok(connection) = self.core.begin("BEGIN READ WRITE") else {
            return false;
        };
        self.core.end(connection, "ROLLBACK").is_ok()
    }
}

impl Postgres {
    fn write_as(&self, lightly: bool, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError> {
        /// How often a transaction is begun again that lost against another or its connection.
        const TRIES: u32 = 5;
        for _ in 1..TRIES {
            match self.writers.write(lightly, work) {
                Err(Failed::Group(Fault { asks_again: true, .. })) => {}
                ended => return Ok(ended?),
            }
        }
        Ok(self.writers.write(lightly, work)?)
    }
}

/// The connection that writes, from the beginning of a transaction to its end.
struct Pen {
    core: Arc<Core>,
    connection: Option<Connection>,
    /// Goes before the next statement, see [`Statements::unsent`].
    unsent: String,
}

/// Why a transaction is no more.
#[derive(Debug, Clone)]
struct Fault {
    error: PostgresError,
    /// All of it may be done again: nothing of it is there.
    asks_again: bool,
}

impl From<Fault> for DatabaseError {
    fn from(fault: Fault) -> Self {
        Self::Postgres(fault.error)
    }
}

impl Fault {
    fn of(error: DatabaseError, asks_again: bool) -> Self {
        let error = match error {
            DatabaseError::Postgres(error) => error,
            other => PostgresError::silent(&other.to_string()),
        };
        Self { error, asks_again }
    }
}

impl Pen {
    /// The transaction is no more, and its connection not used again.
    fn drop_connection(&mut self) {
        if self.connection.take().is_some() {
            self.core.lose();
        }
    }
}

impl group::Connection for Pen {
    type Fault = Fault;

    fn begin(&mut self, lightly: bool) -> Result<(), DatabaseError> {
        let manner = if lightly {
            "SET LOCAL synchronous_commit = off; "
        } else {
            ""
        };
        let writers = self.core.product.number;
        // Each statement behind the lock sees what the writer before has committed.
        // Here plans are kept: statements find rows by their keys, whatever is bound, and a plan for each time that a
        // foreign key is looked up costs more than the rows.
        let plans = "SET LOCAL plan_cache_mode = auto; ";
        let text = format!("BEGIN; {manner}{plans}SELECT pg_advisory_xact_lock({writers})");
        self.connection = Some(self.core.begin(&text)?);
        self.unsent.clear();
        Ok(())
    }

    fn part(&mut self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<Part, Fault> {
        let closed = |error| Fault::of(error, false);
        let connection = self.connection.as_ref().ok_or_else(|| closed(DatabaseError::Closed))?;
        let statements = self.core.statements(connection).map_err(closed)?;
        // One of that name hides those before: all of them end with the transaction.
        *statements.unsent.borrow_mut() = format!("{}SAVEPOINT writer;", self.unsent);
        let keep = work(&statements);
        let (again, is_broken) = (*lock(&statements.asks_again), *lock(&statements.is_broken));
        if again {
            self.drop_connection();
            let error = PostgresError::silent("the connection was lost, or others were first");
            return Err(Fault {
                error,
                asks_again: true,
            });
        }
        let part = match (keep, is_broken) {
            (true, false) => Part::Kept,
            (true, true) => Part::Failed(DatabaseError::Postgres(PostgresError::plain(
                "a statement failed, so that nothing is kept",
            ))),
            (false, _) => Part::TakenBack,
        };
        if !matches!(part, Part::Kept) {
            let back = statements.execute("ROLLBACK TO SAVEPOINT writer", &[]);
            if let Err(error) = back {
                let again = asks_again(&error);
                self.drop_connection();
                return Err(Fault::of(error, again));
            }
        }
        self.unsent = statements.unsent.take();
        Ok(part)
    }

    fn commit(&mut self) -> Result<(), Fault> {
        let connection = self.connection.take();
        let connection = connection.ok_or_else(|| Fault::of(DatabaseError::Closed, false))?;
        let text = format!("{}COMMIT", self.unsent);
        // An error here may come after the commit: only whoever asked can find out.
        let ended = self.core.end(connection, &text);
        ended.map_err(|error| Fault::of(error, false))
    }

    fn rollback(&mut self) -> Fault {
        if let Some(connection) = self.connection.take() {
            // Whatever comes of it, nothing is kept.
            let _ = self.core.end(connection, "ROLLBACK");
        }
        Fault::of(DatabaseError::Closed, false)
    }
}

/// A connection inside a transaction.
struct Statements<'a> {
    connection: &'a Connection,
    handle: &'a Handle,
    /// Whether a statement failed in a way that asks for the whole transaction again.
    asks_again: Mutex<bool>,
    /// Whether one failed outside of a part of the transaction that was taken back: then nothing of it can be kept, and
    /// a COMMIT would be answered as if all were well.
    is_broken: Mutex<bool>,
    /// Answers that are being shown, the innermost last. All but that one are taken in whole.
    coming: RefCell<Vec<Rc<RefCell<Coming>>>>,
    /// Statements that only move between the parts of a transaction: they go with the next one, and cost no way to the
    /// server and back.
    unsent: RefCell<String>,
}

/// An answer, row by row as the server sends it: it waits until they are wanted.
struct Coming {
    /// None: there is nothing left of it.
    stream: Option<Pin<Box<RowStream>>>,
    /// Rows that had to be taken in before they were wanted.
    early: VecDeque<tokio_postgres::Row>,
    /// That happened, and went wrong.
    broke: Option<DatabaseError>,
}

impl Statements<'_> {
    /// Asks for an answer.
    fn begin(&self, sql: &str, data: &[Datum]) -> Result<Coming, DatabaseError> {
        let statement = self.prepared(sql)?;
        self.settle();
        let data = data.iter().map(|datum| datum as &(dyn ToSql + Sync));
        let stream = self.run(self.behind(self.connection.client.query_raw(&statement, data)))?;
        Ok(Coming {
            stream: Some(Box::pin(stream)),
            early: VecDeque::new(),
            broke: None,
        })
    }

    /// The next row of an answer.
    fn next(&self, coming: &RefCell<Coming>) -> Result<Option<Row>, DatabaseError> {
        let mut coming = coming.borrow_mut();
        if let Some(row) = coming.early.pop_front() {
            return read(&row).map(Some);
        }
        if let Some(error) = coming.broke.take() {
            return Err(error);
        }
        let Some(stream) = &mut coming.stream else {
            return Ok(None);
        };
        let next = self.run(stream.try_next());
        if !matches!(next, Ok(Some(_))) {
            coming.stream = None;
        }
        next?.map(|row| read(&row)).transpose()
    }

    /// Takes in what is left of the answer that is being shown: the server answers a statement only behind it.
    fn settle(&self) {
        let all = self.coming.borrow();
        let Some(mut coming) = all.last().map(|coming| coming.borrow_mut()) else {
            return;
        };
        while let Some(stream) = &mut coming.stream {
            match self.run(stream.try_next()) {
                Ok(Some(row)) => coming.early.push_back(row),
                Ok(None) => coming.stream = None,
                Err(error) => {
                    coming.stream = None;
                    coming.broke = Some(error);
                }
            }
        }
    }

    /// Sends what was not sent before `work`, and waits for both.
    async fn behind<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        let text = self.unsent.take();
        if text.is_empty() {
            return work.await;
        }
        // In this order, as each is sent when it is asked for the first time.
        let moved = self.connection.client.batch_execute(&text);
        let (moved, worked) = futures_util::future::join(moved, work).await;
        moved.and(worked)
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, DatabaseError> {
        let done = wait(self.handle, async { work.await.map_err(failed) });
        if done.as_ref().is_err_and(asks_again) || (done.is_err() && self.connection.client.is_closed()) {
            *lock(&self.asks_again) = true;
        }
        if done.is_err() {
            *lock(&self.is_broken) = true;
        }
        done
    }

    /// Moves between the parts of a transaction.
    fn move_on(&self, sql: &str) -> Result<(), DatabaseError> {
        let mut unsent = self.unsent.take();
        let takes_back = sql.starts_with("ROLLBACK TO ");
        let begin = format!("SAVEPOINT {}", sql.rsplit(' ').next().unwrap_or_default());
        if sql != begin && unsent.trim_end_matches(';').rsplit(';').next() == Some(&begin) {
            // Nothing was asked since the part began: there is nothing to take back or to end.
            if !takes_back {
                unsent.truncate(unsent.len() - begin.len() - 1);
            }
            *self.unsent.borrow_mut() = unsent;
            return Ok(());
        }
        unsent.push_str(sql);
        unsent.push(';');
        if takes_back {
            self.run(self.connection.client.batch_execute(&unsent))?;
            *lock(&self.is_broken) = false;
        } else {
            *self.unsent.borrow_mut() = unsent;
        }
        Ok(())
    }

    fn prepared(&self, sql: &str) -> Result<Statement, DatabaseError> {
        if let Some(known) = lock(&self.connection.statements).get(sql) {
            return Ok(known.clone());
        }
        let text = numbered(sql);
        self.settle();
        let prepared = self.run(self.behind(self.connection.client.prepare(&text)))?;
        let mut statements = lock(&self.connection.statements);
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.to_owned(), prepared.clone());
        Ok(prepared)
    }
}

/// `?1` as PostgreSQL writes it, `$1`. No statement of ours has a question mark in a text.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

/// What only moves between the parts of a transaction is not worth preparing, and must run where one has failed.
fn is_plain(sql: &str) -> bool {
    ["SAVEPOINT ", "ROLLBACK TO ", "RELEASE "]
        .iter()
        .any(|start| sql.starts_with(start))
}

impl Sql for Statements<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn execute(&self, sql: &str, data: &[Datum]) -> Result<u64, DatabaseError> {
        self.settle();
        if is_plain(sql) {
            return self.move_on(sql).map(|()| 0);
        }
        let statement = self.prepared(sql)?;
        let data: Vec<&(dyn ToSql + Sync)> = data.iter().map(|datum| datum as _).collect();
        self.run(self.behind(self.connection.client.execute(&statement, &data)))
    }

    fn query(&self, sql: &str, data: &[Datum], each: Each<'_>) -> Result<(), DatabaseError> {
        let coming = Rc::new(RefCell::new(self.begin(sql, data)?));
        self.coming.borrow_mut().push(Rc::clone(&coming));
        let shown = (|| {
            while let Some(row) = self.next(&coming)? {
                if each(row)? == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        })();
        self.coming.borrow_mut().pop();
        shown
    }

    fn define(&self, sql: &str) -> Result<(), DatabaseError> {
        self.settle();
        self.run(self.behind(self.connection.client.batch_execute(sql)))
    }
}

fn read(found: &tokio_postgres::Row) -> Result<Row, DatabaseError> {
    let datum = |(column, kind): (usize, &tokio_postgres::Column)| {
        let kind = kind.type_();
        let datum = match *kind {
            Type::INT8 => found.try_get::<_, Option<i64>>(column).map(Datum::from),
            Type::INT4 => found
                .try_get::<_, Option<i32>>(column)
                .map(|number| number.map(i64::from).into()),
            Type::BOOL => found
                .try_get::<_, Option<bool>>(column)
                .map(|is_so| is_so.map(i64::from).into()),
            Type::FLOAT8 => found.try_get::<_, Option<f64>>(column).map(Datum::from),
            Type::BYTEA => found.try_get::<_, Option<Vec<u8>>>(column).map(Datum::from),
            _ => found.try_get::<_, Option<String>>(column).map(Datum::from),
        };
        datum.map_err(|_| DatabaseError::Row {
            column,
            expected: "value of a type that is stored",
        })
    };
    let columns = found.columns().iter().enumerate();
    Ok(Row(columns.map(datum).collect::<Result<_, _>>()?))
}

impl ToSql for Datum {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) => match *kind {
                Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
                #[allow(clippy::cast_precision_loss, reason = "as SQL itself compares numbers of both types")]
                Type::FLOAT8 => (*number as f64).to_sql(kind, out),
                _ => number.to_sql_checked(kind, out),
            },
            Self::Real(number) => number.to_sql_checked(kind, out),
            Self::Text(text) => text.to_sql_checked(kind, out),
            Self::Blob(bytes) => bytes.to_sql_checked(kind, out),
            Self::Integers(numbers) => numbers.to_sql_checked(kind, out),
            Self::Texts(texts) => texts.to_sql_checked(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // Each variant is held against the type when it is bound.
        true
    }

    to_sql_checked!();
}
