//! Runs decisions against the database: one thread writes, many commits in one flush; a pool of connections reads.
//! An answer to what changes anything is given only after its commit is on disk, with its line in the audit log.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hydra_core::key_id::KeyId;
use hydra_core::keystore::store::{self, Context, Effect, Held, Message, Outcome, Reply, StoredEntry};
use hydra_core::keystore::wire::{Changed, ItemResult, List, ListAnswer, ListedEntry, Problem, ProblemKind, Status};
use hydra_core::permissions::{Caller, Permission, Permissions, granted};
use hydra_core::secret::Key;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::audit::{self, SignedHead};
use crate::config::Rules;
use crate::database::{self, AuditHead, AuditLine, DatabaseError, Lock, Range};
use crate::rest::DataKeys;

/// Jobs waiting for the writer; more are told to come again.
const QUEUE: usize = 1024;
/// Items of one commit: enough to make the flush cheap, few enough to answer soon.
const COMMIT_ITEMS: usize = 1000;
/// Connections that read.
const READERS: usize = 4;
/// How often the head of the audit log is signed, if there is a new one.
const SIGN_EVERY: Duration = Duration::from_secs(60);
/// How long lines of the audit log wait for a commit that somebody else needs.
const LINES_WAIT: Duration = Duration::from_millis(100);
/// How long they wait for the next try, where there was no room for them.
const LINES_RETRY: Duration = Duration::from_secs(1);
/// Lines that wait; who reads on when there are so many is told to come again.
const LINES: usize = 100_000;
/// Refusals of one identity in a minute that are written out; further ones are counted.
const REFUSALS_WRITTEN: u64 = 100;

/// A store: rules, keys and database.
pub struct Engine {
    rules: Rules,
    keys: Arc<DataKeys>,
    queue: Mutex<Option<SyncSender<Job>>>,
    lines: Arc<Mutex<Vec<WaitingLine>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Readers,
    _lock: Lock,
}

enum Job {
    Decide {
        caller: Caller,
        messages: Vec<Message>,
        answer: oneshot::Sender<Vec<Reply>>,
    },
    /// Lines of the audit log wait: told with the first of them only, so that a read wakes no other thread.
    Lines,
}

/// A line that waits for the next commit, and whose it is.
struct WaitingLine {
    dn: String,
    line: ReadLine,
}

impl WaitingLine {
    fn is_refusal(&self) -> bool {
        self.line.outcome != "ok"
    }
}

/// A line of the audit log about something that changed nothing.
struct ReadLine {
    at: u64,
    operation: &'static str,
    key_id: String,
    outcome: Cow<'static, str>,
}

impl ReadLine {
    /// None where nothing is said of it: who described an entry that is theirs.
    fn of(
        keys: &DataKeys,
        at: u64,
        operation: &'static str,
        key_id: &KeyId,
        held: &Held,
        reply: &Reply,
    ) -> Option<Self> {
        let outcome = match reply {
            Reply::Read(outcome) if matches!(&outcome.result, ItemResult::Done(_)) => "ok",
            reply => refusal(reply)?,
        };
        // What is not there stands as a keyed hash: a log must not become the oracle.
        let there = held.entry.is_some() || !held.tombstones.is_empty();
        let key_id = if there {
            key_id.as_str().to_owned()
        } else {
            format!("#{}", keys.key_id_hash(key_id))
        };
        Some(Self {
            at,
            operation,
            key_id,
            outcome: outcome.into(),
        })
    }
}

impl Job {
    fn items(&self) -> usize {
        match self {
            Self::Decide { messages, .. } => messages.len().max(1),
            Self::Lines => 0,
        }
    }
}

impl Engine {
    /// Opens the store of `rules.store` at `path`.
    ///
    /// # Errors
    /// [`DatabaseError`]: in use, of a later version, of another store, or not opened by this store key.
    pub fn open(path: &Path, store_key: &Key, rules: Rules, max_bytes: u64) -> Result<Self, DatabaseError> {
        let lock = Lock::take(path)?;
        let connection = database::open_writer(path, &rules.store, max_bytes)?;
        let keys = Arc::new(database::data_keys(&connection, store_key)?);
        let head = database::audit_head(&connection)?;
        let readers = (0..READERS)
            .map(|_| database::open_reader(path))
            .collect::<Result<_, _>>()?;
        let (queue, jobs) = sync_channel(QUEUE);
        let signed = audit::last_signed(&connection)?;
        let lines = Arc::default();
        let writer = Writer {
            lines: Arc::clone(&lines),
            in_commit: Vec::new(),
            lines_failed: false,
            signed,
            refusals: HashMap::new(),
            connection,
            keys: Arc::clone(&keys),
            rules: rules.clone(),
            head,
            others: None,
            brought: HashMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || writer.run(&jobs));
        let thread = thread.map_err(|source| DatabaseError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            rules,
            keys,
            queue: Mutex::new(Some(queue)),
            lines,
            writer: Mutex::new(Some(thread)),
            readers: Readers::new(readers),
            _lock: lock,
        })
    }

    /// Who may what.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether the database answers and the writer lives.
    pub fn is_ready(&self) -> bool {
        let alive = lock(&self.writer).as_ref().is_some_and(|thread| !thread.is_finished());
        let answers = |connection: &Connection| connection.query_row("SELECT 1", [], |_| Ok(())).is_ok();
        alive && self.readers.with(answers)
    }

    /// Finishes what is queued and closes.
    pub fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(thread) = lock(&self.writer).take() {
            let _ = thread.join();
        }
    }

    /// Decides messages that may change something, in order; answers once all of it is on disk.
    pub async fn write(&self, caller: &Caller, messages: Vec<Message>) -> Result<Vec<Reply>, Problem> {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Decide {
            caller: caller.clone(),
            messages,
            answer,
        })?;
        answered.await.map_err(|_| Problem::new(ProblemKind::Internal))
    }

    /// Writes down that somebody's groups and roles were not believed, with the next commit.
    pub fn note_refused_attributes(&self, caller: &Caller, reason: &str) {
        /// Names of certificates may be long.
        const MOST_CHARACTERS: usize = 500;
        let reason: String = reason.chars().take(MOST_CHARACTERS).collect();
        let line = ReadLine {
            at: now(),
            operation: "voms",
            key_id: String::new(),
            outcome: format!("attribute certificate refused: {reason}").into(),
        };
        let sent = self.note(caller, vec![line]);
        if let Err(problem) = sent {
            tracing::error!(reason = problem.title, "a refusal is not in the audit log");
        }
    }

    fn send(&self, job: Job) -> Result<(), Problem> {
        let busy = || Problem::new(ProblemKind::Busy).retry_after(1);
        let queue = lock(&self.queue).clone().ok_or_else(busy)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => Problem::new(ProblemKind::Internal),
        })
    }

    /// Leaves lines for the next commit.
    fn note(&self, caller: &Caller, new: Vec<ReadLine>) -> Result<(), Problem> {
        let mut lines = lock(&self.lines);
        if lines.len() >= LINES {
            return Err(Problem::new(ProblemKind::Busy).retry_after(1));
        }
        let first = lines.is_empty();
        lines.extend(new.into_iter().map(|line| WaitingLine {
            dn: caller.dn.clone(),
            line,
        }));
        drop(lines);
        if !first {
            return Ok(());
        }
        match self.send(Job::Lines) {
            // of a full queue the next commit is near, and takes them along
            Err(problem) if problem.kind != ProblemKind::Busy => Err(problem),
            _ => Ok(()),
        }
    }

    /// Decides messages that change nothing. Blocks on the database: not for the threads of the network.
    pub fn read(&self, caller: &Caller, messages: Vec<Message>) -> Result<Vec<Reply>, Problem> {
        let now = now();
        let mut lines = Vec::new();
        let replies = self.readers.with(|connection| {
            let decide = |message: Message| {
                let (reply, line) = self.decide_read(connection, caller, message, now);
                lines.extend(line);
                reply
            };
            messages.into_iter().map(decide).collect()
        });
        if !lines.is_empty() {
            self.note(caller, lines)?;
        }
        Ok(replies)
    }

    fn decide_read(
        &self,
        connection: &Connection,
        caller: &Caller,
        message: Message,
        now: u64,
    ) -> (Reply, Option<ReadLine>) {
        let context = self.rules.context(caller, message.key_id(), now);
        match load(connection, &self.keys, &context, message.key_id()) {
            Ok(mut held) => {
                let key_id = message.key_id().clone();
                let operation = message.operation().name();
                let reply = store::apply(&mut held, &context, message);
                log_denial(&self.keys, &context, operation, &key_id, &held, &reply);
                let line = ReadLine::of(&self.keys, now, operation, &key_id, &held, &reply);
                (reply, line)
            }
            Err(error) => (failed(&message, &error), None),
        }
    }

    /// One page of what the caller may list. Blocks on the database.
    pub fn list(&self, caller: &Caller, request: &List) -> ItemResult<ListAnswer> {
        match self.readers.with(|connection| self.page(connection, caller, request)) {
            Ok(answer) => ItemResult::Done(answer),
            Err(problem) => ItemResult::Problem { problem },
        }
    }

    fn page(&self, connection: &Connection, caller: &Caller, request: &List) -> Result<ListAnswer, Problem> {
        const PAGE: usize = 100;
        /// Rows looked at for one page, so that nobody's list keeps a connection for long. All are the caller's to
        /// know.
        const ROWS: usize = 2000;
        let invalid = |detail: &str| Problem::new(ProblemKind::Invalid).detail(detail);
        if request.prefix.is_some() && request.last_component.is_some() {
            return Err(invalid("a list goes by prefix or by last component, not by both"));
        }
        let mut after = match &request.page_token {
            None => None,
            Some(token) => {
                let opened = self.keys.open_page_token(&caller.dn, token);
                Some(opened.ok_or_else(|| invalid("not a page token of yours"))?)
            }
        };
        let range = match (&request.last_component, &request.prefix) {
            (Some(last), _) => Range::LastComponent(last),
            (None, None) if request.owned_by_me => Range::Owner(&caller.dn),
            (None, prefix) => Range::Prefix(prefix.as_deref().unwrap_or_default()),
        };
        let principals: Vec<&str> = [caller.dn.as_str(), ""]
            .into_iter()
            .chain(caller.fqans.iter().map(String::as_str))
            .collect();
        let principals = (!caller.administrator).then_some(&principals[..]);
        let internal = |error: DatabaseError| problem_of(&error);
        let moment = connection
            .unchecked_transaction()
            .map_err(|error| internal(error.into()))?;
        let mut entries = Vec::new();
        let mut rows = 0;
        let more = loop {
            let found = database::list(&moment, range, principals, after.as_ref(), PAGE + 1).map_err(internal)?;
            let last_of_all = found.len() <= PAGE;
            rows += found.len();
            let mut found = found.into_iter();
            while entries.len() < PAGE
                && let Some(row) = found.next()
            {
                after = Some(row.key_id.clone());
                let context = self.rules.context(caller, &row.key_id, 0);
                let owned = !request.owned_by_me || row.entry.record.owner == caller.dn;
                if owned && row.entry.grants(&context, Permission::List) {
                    entries.push(ListedEntry {
                        key_id: row.key_id,
                        registration_id: row.entry.constants.registration_id,
                        state: row.entry.state,
                        owner: row.entry.record.owner,
                    });
                }
            }
            if last_of_all && found.len() == 0 {
                break false;
            }
            if entries.len() == PAGE || rows >= ROWS {
                break true;
            }
        };
        let token = |last: KeyId| self.keys.page_token(&caller.dn, &last);
        let next = match (more, after) {
            (true, Some(last)) => Some(token(last).map_err(|_| Problem::new(ProblemKind::Internal))?),
            _ => None,
        };
        Ok(ListAnswer {
            status: Status::Ok,
            entries,
            next_page_token: next,
        })
    }

    /// Whether any entry is in quarantine.
    pub fn restored(&self) -> bool {
        let asked = self.readers.with(database::any_restored);
        // Whoever cannot tell is not to be relied upon: that is what the answer is for.
        asked.unwrap_or(true)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn load(connection: &Connection, keys: &DataKeys, context: &Context, key_id: &KeyId) -> Result<Held, DatabaseError> {
    let transaction = connection.unchecked_transaction()?;
    let held = database::load(&transaction, keys, key_id, |entry| concerns(entry, context))?;
    transaction.commit()?;
    Ok(held)
}

/// Whether the caller has any right to an entry. For anybody else its sharings make no difference to any answer.
fn concerns(entry: &StoredEntry, context: &Context) -> bool {
    entry.record.owner == context.caller.dn
        || granted(&entry.record, &context.caller, context.recovery) != Permissions::NONE
}

struct Readers {
    free: Mutex<Vec<Connection>>,
    returned: Condvar,
}

impl Readers {
    fn new(connections: Vec<Connection>) -> Self {
        Self {
            free: Mutex::new(connections),
            returned: Condvar::new(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        let mut free = lock(&self.free);
        let connection = loop {
            if let Some(connection) = free.pop() {
                break connection;
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        };
        drop(free);
        // A panic would lose the connection for good, and with it a reader: it is given back first.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&connection)));
        lock(&self.free).push(connection);
        self.returned.notify_one();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Writer {
    lines: Arc<Mutex<Vec<WaitingLine>>>,
    /// Those that the commit under way has taken.
    in_commit: Vec<WaitingLine>,
    /// Whether the last ones could not be written.
    lines_failed: bool,
    connection: Connection,
    keys: Arc<DataKeys>,
    rules: Rules,
    head: AuditHead,
    /// SQLite's number of the changes by others, when `head` and `brought` were read; none: they are to be read again.
    others: Option<i64>,
    /// The last line whose head is signed.
    signed: i64,
    /// The refusals of each identity since the head was last signed.
    refusals: HashMap<String, u64>,
    /// What identities have brought so far: counted once, then kept.
    brought: HashMap<String, u64>,
}

impl Writer {
    /// Commits when somebody waits for it. What only leaves lines in the audit log waits for the next commit, or a
    /// moment: a flush for each read would cost more than the reads.
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut sign_at = Instant::now() + SIGN_EVERY;
        let mut lines_until = None;
        loop {
            let until = lines_until.map_or(sign_at, |until| sign_at.min(until));
            match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Job::Lines) => {
                    lines_until.get_or_insert_with(|| Instant::now() + LINES_WAIT);
                    continue;
                }
                Ok(job) => {
                    let mut items = job.items();
                    let mut batch = vec![job];
                    while items < COMMIT_ITEMS {
                        let Ok(job) = jobs.try_recv() else { break };
                        items += job.items();
                        batch.push(job);
                    }
                    self.commit(batch);
                    lines_until = self.lines_wait();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if lines_until.is_some_and(|until| until <= Instant::now()) {
                        self.commit(Vec::new());
                        lines_until = self.lines_wait();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    if !lock(&self.lines).is_empty() {
                        self.commit(Vec::new());
                    }
                    return self.sign();
                }
            }
            if Instant::now() >= sign_at {
                self.sign();
                sign_at = Instant::now() + SIGN_EVERY;
            }
        }
    }

    /// Until when the lines wait that came after a commit, or that it could not take.
    fn lines_wait(&self) -> Option<Instant> {
        let wait = if self.lines_failed { LINES_RETRY } else { LINES_WAIT };
        (!lock(&self.lines).is_empty()).then(|| Instant::now() + wait)
    }

    /// Writes down the refusals that were only counted, and signs the head of the audit log if it is a new one.
    fn sign(&mut self) {
        if let Err(error) = self.try_sign() {
            tracing::error!(reason = %error, cause = ?error, "the head of the audit log is not signed");
            let _ = self.connection.execute_batch("ROLLBACK");
            self.others = None;
        }
    }

    /// An administrator's command may have changed the database beside this process: then the audit log goes on from
    /// its line.
    fn catch_up(&mut self) -> Result<(), DatabaseError> {
        let others = {
            let mut statement = self.connection.prepare_cached("PRAGMA data_version")?;
            statement.query_row([], |row| row.get::<_, i64>(0))?
        };
        if self.others != Some(others) {
            self.head = database::audit_head(&self.connection)?;
            self.brought.clear();
            self.others = Some(others);
        }
        Ok(())
    }

    fn try_sign(&mut self) -> Result<(), DatabaseError> {
        let counted = self.refusals.iter().filter(|(_, count)| **count > REFUSALS_WRITTEN);
        let counted: Vec<_> = counted.map(|(dn, count)| (dn.clone(), *count)).collect();
        self.catch_up()?;
        if self.head.sequence == self.signed && counted.is_empty() {
            self.refusals.clear();
            return Ok(());
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.catch_up()?;
        let at = now();
        for (dn, count) in counted {
            let outcome = format!("{} more refusals", count - REFUSALS_WRITTEN);
            self.line(&dn, "refusals", "", &outcome, at)?;
        }
        let signed = SignedHead::sign(&self.keys, &self.rules.store, &self.head, at);
        signed.save(&self.connection)?;
        self.connection.execute_batch("COMMIT")?;
        // not before: what could not be written is still to be counted
        self.refusals.clear();
        self.signed = self.head.sequence;
        tracing::info!(head = %signed, "audit log signed");
        Ok(())
    }

    /// All jobs of a batch in one transaction, flushed once; answered after that.
    fn commit(&mut self, batch: Vec<Job>) {
        let mut answers = Vec::new();
        let done = self.transaction(batch, &mut answers);
        metrics::counter!("commits_total").increment(1);
        match done {
            Ok(()) => {
                self.in_commit.clear();
                for (answer, replies) in answers {
                    let _ = answer.send(replies);
                }
            }
            Err(error) => {
                tracing::error!(reason = %error, cause = ?error, "nothing of a commit is on disk");
                let _ = self.connection.execute_batch("ROLLBACK");
                self.others = None;
                self.put_lines_back(usize::MAX);
                for (answer, replies) in answers {
                    let refuse = |reply| match reply {
                        // What was refused without a change stays refused.
                        Reply::Changed(outcome) if outcome.effects.is_empty() => Reply::Changed(outcome),
                        _ => problem_reply(problem_of(&error)),
                    };
                    let _ = answer.send(replies.into_iter().map(refuse).collect());
                }
            }
        }
    }

    fn transaction(
        &mut self,
        batch: Vec<Job>,
        answers: &mut Vec<(oneshot::Sender<Vec<Reply>>, Vec<Reply>)>,
    ) -> Result<(), DatabaseError> {
        // Without a transaction each item below fails, and says so.
        let mut first_error = self.begin_with_lines().err();
        for job in batch {
            let Job::Decide {
                caller,
                messages,
                answer,
            } = job
            else {
                continue;
            };
            let mut replies = Vec::with_capacity(messages.len());
            for message in messages {
                if let Some(error) = &first_error {
                    replies.push(failed(&message, error));
                    continue;
                }
                let (reply, error) = self.item(&caller, message);
                replies.push(reply);
                // SQLite ends the whole transaction by itself on some errors: then nothing of it may be answered as
                // done.
                first_error = error.filter(|_| self.connection.is_autocommit());
            }
            answers.push((answer, replies));
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    /// Begins a transaction with the lines that wait: before the batch, as who read and then asked for a change finds
    /// them in this order. Where there is no room for them it begins without: a removal may make some.
    fn begin_with_lines(&mut self) -> Result<(), DatabaseError> {
        self.begin()?;
        self.in_commit = std::mem::take(&mut *lock(&self.lines));
        let (counted, written) = self.write_lines();
        let Err(error) = written else {
            self.lines_failed = false;
            return Ok(());
        };
        tracing::error!(reason = %error, cause = ?error, "lines of the audit log wait: they could not be written");
        self.put_lines_back(counted);
        // SQLite may have ended the transaction by itself: whatever was written in it is undone, and the head is its
        // own
        let _ = self.connection.execute_batch("ROLLBACK");
        self.others = None;
        self.begin()
    }

    fn begin(&mut self) -> Result<(), DatabaseError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.catch_up()
    }

    /// Writes the lines of a commit, up to one that fails; how many that were.
    fn write_lines(&mut self) -> (usize, Result<(), DatabaseError>) {
        let lines = std::mem::take(&mut self.in_commit);
        let mut tried = 0;
        let written = lines.iter().try_for_each(|waiting| {
            tried += 1;
            self.read_line(&waiting.dn, &waiting.line)
        });
        self.in_commit = lines;
        (tried, written)
    }

    /// What a commit has taken and not written waits again, before what came since. The first `counted` will be counted
    /// among the refusals a second time.
    fn put_lines_back(&mut self, counted: usize) {
        let mut back = std::mem::take(&mut self.in_commit);
        self.lines_failed = !back.is_empty();
        for refused in back.iter().take(counted).filter(|waiting| waiting.is_refusal()) {
            if let Some(count) = self.refusals.get_mut(&refused.dn) {
                *count = count.saturating_sub(1);
            }
        }
        let mut lines = lock(&self.lines);
        back.append(&mut lines);
        *lines = back;
    }

    /// One message under a savepoint: where its rows cannot be written, the others' still are.
    fn item(&mut self, caller: &Caller, message: Message) -> (Reply, Option<DatabaseError>) {
        let before = self.head.clone();
        if let Err(error) = self.connection.execute_batch("SAVEPOINT item") {
            let error = error.into();
            return (failed(&message, &error), Some(error));
        }
        match self.decide(caller, message) {
            Ok(reply) => match self.connection.execute_batch("RELEASE item") {
                Ok(()) => (reply, None),
                Err(error) => {
                    let error = error.into();
                    (problem_reply(problem_of(&error)), Some(error))
                }
            },
            Err(error) => {
                let _ = self.connection.execute_batch("ROLLBACK TO item; RELEASE item");
                self.head = before;
                self.brought.clear();
                tracing::error!(reason = %error, cause = ?error, "a change could not be written");
                (problem_reply(problem_of(&error)), Some(error))
            }
        }
    }

    fn decide(&mut self, caller: &Caller, message: Message) -> Result<Reply, DatabaseError> {
        let now = now();
        let key_id = message.key_id().clone();
        let operation = message.operation().name();
        let mut context = self.rules.context(caller, &key_id, now);
        let concerned = |entry: &StoredEntry| concerns(entry, &context);
        let mut held = database::load(&self.connection, &self.keys, &key_id, concerned)?;
        context.at_limit = self.brought_by(&caller.dn)? >= self.rules.entries.per_owner;
        let placed_by = held.entry.as_ref().map(|entry| entry.placed_by.clone());
        let reply = store::apply(&mut held, &context, message);
        log_denial(&self.keys, &context, operation, &key_id, &held, &reply);
        let Reply::Changed(outcome) = &reply else {
            return Ok(reply);
        };
        if outcome.effects.is_empty() {
            if let Some(line) = ReadLine::of(&self.keys, now, operation, &key_id, &held, &reply) {
                self.read_line(&caller.dn, &line)?;
            }
            return Ok(reply);
        }
        let by = (caller.dn.as_str(), now);
        database::save(&self.connection, &self.keys, &key_id, &held, &outcome.effects, by)?;
        self.count(&outcome.effects, &caller.dn, placed_by.as_deref());
        let words = audit_words(outcome);
        self.line(&caller.dn, operation, key_id.as_str(), &words, now)?;
        Ok(reply)
    }

    /// Refusals of one identity are written out up to a number each minute: asking for nothing must not fill the disk.
    fn read_line(&mut self, dn: &str, line: &ReadLine) -> Result<(), DatabaseError> {
        if line.outcome != "ok" {
            let count = self.refusals.entry(dn.to_owned()).or_default();
            *count += 1;
            if *count > REFUSALS_WRITTEN {
                return Ok(());
            }
        }
        self.line(dn, line.operation, &line.key_id, &line.outcome, line.at)
    }

    fn line(&mut self, dn: &str, operation: &str, key_id: &str, outcome: &str, at: u64) -> Result<(), DatabaseError> {
        let line = AuditLine {
            at,
            dn,
            operation,
            key_id,
            outcome,
        };
        self.head = database::audit(&self.connection, &self.head, &line)?;
        Ok(())
    }

    fn brought_by(&mut self, dn: &str) -> Result<u64, DatabaseError> {
        if let Some(count) = self.brought.get(dn) {
            return Ok(*count);
        }
        let count = database::brought_by(&self.connection, dn)?;
        self.brought.insert(dn.to_owned(), count);
        Ok(count)
    }

    fn count(&mut self, effects: &[Effect], caller: &str, placed_by: Option<&str>) {
        for effect in effects {
            match effect {
                Effect::NewEntry | Effect::Tombstone(_) | Effect::StopMark(_) => {
                    if let Some(count) = self.brought.get_mut(caller) {
                        *count += 1;
                    }
                }
                Effect::EntryGone(_) => {
                    if let Some(count) = placed_by.and_then(|dn| self.brought.get_mut(dn)) {
                        *count = count.saturating_sub(1);
                    }
                }
                // Whose mark it was is not at hand: everybody is counted anew.
                Effect::StopMarkGone(_) => self.brought.clear(),
                Effect::Entry | Effect::Sharing(_) | Effect::SharingState(_) | Effect::SharingGone(_) => {}
            }
        }
    }
}

/// What the audit log says of a change: the status, and what became different.
fn audit_words(outcome: &Outcome<Changed>) -> String {
    let status = match &outcome.result {
        ItemResult::Done(answer) => format!("{:?}", answer.status).to_lowercase(),
        ItemResult::Problem { problem } => problem.title.clone(),
    };
    let effects = outcome.effects.iter().map(|effect| match effect {
        Effect::NewEntry => "entry made".to_owned(),
        Effect::Entry => "entry changed".to_owned(),
        Effect::EntryGone(registration) => format!("entry {registration} deleted"),
        Effect::Sharing((generation, _)) => format!("sharing of generation {generation} written"),
        Effect::SharingState((generation, _)) => format!("sharing of generation {generation} confirmed"),
        Effect::SharingGone((generation, _)) => format!("sharing of generation {generation} deleted"),
        Effect::Tombstone(registration) => format!("tombstone of {registration}"),
        Effect::StopMark(registration) => format!("stop mark of {registration}"),
        Effect::StopMarkGone(registration) => format!("stop mark of {registration} lifted"),
    });
    [status].into_iter().chain(effects).collect::<Vec<_>>().join(", ")
}

/// Denials are logged with the identity; a key id that does not exist only as a keyed hash.
fn log_denial(keys: &DataKeys, context: &Context, operation: &str, key_id: &KeyId, held: &Held, reply: &Reply) {
    let denied = match reply {
        Reply::Changed(outcome) => outcome.denied,
        Reply::Read(outcome) => outcome.denied,
        Reply::Describe(outcome) => outcome.denied,
        Reply::Permissions(outcome) => outcome.denied,
    };
    if denied {
        let key_id_hash = keys.key_id_hash(key_id);
        let exists = held.entry.is_some();
        tracing::warn!(dn = context.caller.dn, operation, key_id_hash, exists, "denied");
        metrics::counter!("denials_total").increment(1);
    }
}

/// What the audit log says of an answer to somebody who found nothing or lacked a right.
fn refusal(reply: &Reply) -> Option<&'static str> {
    fn of<T>(outcome: &Outcome<T>, unknown: bool) -> Option<&'static str> {
        let not_found =
            matches!(&outcome.result, ItemResult::Problem { problem } if problem.kind == ProblemKind::NotFound);
        let refused = if outcome.denied { "denied" } else { "not found" };
        (outcome.denied || unknown || not_found).then_some(refused)
    }
    match reply {
        Reply::Changed(outcome) => {
            let unknown = matches!(&outcome.result, ItemResult::Done(answer) if answer.status == Status::Unknown);
            of(outcome, unknown)
        }
        Reply::Read(outcome) => of(outcome, false),
        Reply::Describe(outcome) => of(outcome, false),
        Reply::Permissions(outcome) => of(outcome, false),
    }
}

fn problem_of(error: &DatabaseError) -> Problem {
    Problem::new(if error.is_full() {
        ProblemKind::StorageFull
    } else {
        ProblemKind::Internal
    })
}

fn failed(message: &Message, error: &DatabaseError) -> Reply {
    tracing::error!(operation = message.operation().name(), reason = %error, cause = ?error, "failed");
    problem_reply(problem_of(error))
}

fn problem_reply(problem: Problem) -> Reply {
    Reply::Changed(Outcome {
        result: ItemResult::Problem { problem },
        effects: Vec::new(),
        denied: false,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
