//! What is asked for, durably: one row for each name, however many ask. Daemons lease whole series of it, so that a
//! series is fetched at once and by one of them; a lease that is not renewed falls back. What becomes of a request is
//! decided by [`decide`], which does no I/O; times are given, never looked up.
//!
//! Who leases holds the database's one lock of writers for a moment, in SQLite and in PostgreSQL. Rows that are passed
//! over where others have locked them (`SKIP LOCKED`) would not do: a series has many rows, of which two daemons would
//! each get some, and the numbers of changes, which the storage element follows, must become seen in their order.
//!
//! What is asked for, cancelled or given up by somebody is on disk before that is said. What a daemon notes of its own
//! work need not be: whatever a power cut takes back is done once more, and found to be in its place.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mdm_catalog::database::{Datum, Row, Sql};

use crate::database::{Database, DatabaseError, all, first, is_so, next_change, number, random_id, signed, texts};
use crate::line::Reason;

const KIND: &str = "requests";
const COLUMNS: &str = "name, study, series, priority, state, reason, tries, attempts, next_try_at, created_at, \
                       changed_at, change";
const CANCEL: &str = "UPDATE requests SET state = 'cancelled', reason = 'cancelled', lease_owner = NULL,
                      lease_until = NULL, changed_at = ?2, change = ?3
                      WHERE name = ?1 AND state IN ('queued', 'running', 'waiting')";
/// The highest priority.
pub const HIGHEST_PRIORITY: u8 = 3;

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// Somebody works on it.
    Running,
    /// It did not succeed, and will be tried again.
    Waiting,
    /// It is in its place.
    Placed,
    /// It will not be tried again unless asked for.
    Failed,
    /// Nobody wants it any more.
    Cancelled,
}

impl State {
    const NAMES: [(&str, Self); 6] = [
        ("queued", Self::Queued),
        ("running", Self::Running),
        ("waiting", Self::Waiting),
        ("placed", Self::Placed),
        ("failed", Self::Failed),
        ("cancelled", Self::Cancelled),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, state)| *state == self);
        named.map_or("", |(word, _)| word)
    }

    fn of(word: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == word);
        named.map(|(_, state)| *state)
    }

    /// Whether something is still to happen.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Waiting)
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of the sealed file.
    pub name: String,
    /// Its study, by the original identifier.
    pub study: String,
    /// Its series, by the original identifier.
    pub series: String,
    /// From 0, not urgent, to [`HIGHEST_PRIORITY`].
    pub priority: u8,
    /// How far it is.
    pub state: State,
    /// Why it did not succeed the last time.
    pub reason: Option<Reason>,
    /// What kind of refusal it was, where it was refused: it names no patient.
    pub refusal: Option<String>,
    /// How often it was tried.
    pub tries: u32,
    /// How many of those failed because of itself.
    pub attempts: u32,
    /// When it is due, in milliseconds since 1970, as all times here.
    pub next_try_at: i64,
    /// When it was asked for.
    pub created_at: i64,
    /// When it last changed.
    pub changed_at: i64,
    /// The number of that change.
    pub change: i64,
}

/// How long and how often is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How often an instance may fail because of itself.
    pub attempts: u32,
    /// How long is waited after a first failure.
    pub first_wait_ms: i64,
    /// And at most.
    pub longest_wait_ms: i64,
    /// How long after it was asked for it is given up, whatever the reason.
    pub deadline_ms: i64,
    /// How long a lease holds that is not renewed.
    pub lease_ms: i64,
    /// How long requests that are done are remembered.
    pub keep_ms: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait_ms: 5_000,
            longest_wait_ms: 600_000,
            deadline_ms: 86_400_000,
            lease_ms: 60_000,
            keep_ms: 7 * 86_400_000,
        }
    }
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in its place.
    Placed,
    /// It failed because of itself, and may succeed the next time.
    Again(Reason),
    /// It failed because of something that concerns others too: that is not counted against it.
    Trouble(Reason),
    /// It failed, and would fail again.
    Failed(Reason),
    /// De-identification refused it, and would again, by this name of a refusal.
    Refused(&'static str),
    /// It was not tried.
    Untried,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How far it is then.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// What kind of refusal it was, where it was refused.
    pub refusal: Option<&'static str>,
    /// How often it was tried.
    pub tries: u32,
    /// How many of those failed because of itself.
    pub attempts: u32,
    /// When it is due.
    pub next_try_at: i64,
}

/// What becomes of `request` after `outcome`; `dice` is any number, so that not all come back at once.
pub fn decide(rules: &Rules, request: &Request, outcome: Outcome, now: i64, dice: u64) -> Decision {
    let mut decision = Decision {
        state: State::Queued,
        reason: request.reason,
        refusal: None,
        tries: request.tries,
        attempts: request.attempts,
        next_try_at: now,
    };
    let (reason, is_own) = match outcome {
        Outcome::Placed => {
            (decision.state, decision.reason) = (State::Placed, None);
            return decision;
        }
        Outcome::Failed(reason) => {
            (decision.state, decision.reason) = (State::Failed, Some(reason));
            decision.tries = request.tries.saturating_add(1);
            return decision;
        }
        Outcome::Refused(name) => {
            let failed = decide(rules, request, Outcome::Failed(Reason::Refused), now, dice);
            return Decision {
                refusal: Some(name),
                ..failed
            };
        }
        Outcome::Untried => return decision,
        Outcome::Again(reason) => (reason, true),
        Outcome::Trouble(reason) => (reason, false),
    };
    decision.tries = request.tries.saturating_add(1);
    decision.attempts = request.attempts.saturating_add(u32::from(is_own));
    decision.reason = Some(reason);
    let next = now.saturating_add(wait_ms(rules, decision.tries, dice));
    let is_late = next.saturating_sub(request.created_at) > rules.deadline_ms;
    if decision.attempts >= rules.attempts || is_late {
        decision.state = State::Failed;
    } else {
        decision.state = State::Waiting;
        decision.next_try_at = next;
    }
    decision
}

/// How long is waited after so many tries: twice as long each time, and up to a quarter of it more or less.
fn wait_ms(rules: &Rules, tries: u32, dice: u64) -> i64 {
    let doublings = tries.saturating_sub(1).min(40);
    let wait = rules.first_wait_ms.saturating_mul(1 << doublings);
    let wait = wait.clamp(1, rules.longest_wait_ms.max(1));
    let spread = u64::try_from(wait / 2).unwrap_or(0);
    let off = i64::try_from(dice % (spread + 1)).unwrap_or(0);
    (wait - wait / 4).saturating_add(off).max(1)
}

/// What became of an attempt to ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is asked for now.
    Queued,
    /// It was asked for already.
    Open(State),
    /// Nothing of that name is registered.
    Unknown,
}

/// A series that was leased.
pub struct Job {
    /// The study.
    pub study: String,
    /// The series.
    pub series: String,
    /// All that is due of it.
    pub requests: Vec<Request>,
}

/// The queue in a database of ours.
pub struct Queue {
    database: Arc<Database>,
    /// How long and how often is tried.
    pub rules: Rules,
}

impl Queue {
    /// The queue in `database`.
    pub fn new(database: Arc<Database>, rules: Rules) -> Self {
        Self { database, rules }
    }

    /// Asks for names. Whatever is asked for already stays as it is, only more urgent where that is asked; what had
    /// failed, or waits for its next try, is tried at once.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing asked for.
    pub fn ask(&self, names: &[String], priority: u8, now: i64) -> Result<Vec<Asked>, DatabaseError> {
        self.ask_from(names, priority, now, false)
    }

    /// [`Self::ask`] by somebody in the hospital: the storage element cannot cancel it.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing asked for.
    pub fn ask_here(&self, names: &[String], priority: u8, now: i64) -> Result<Vec<Asked>, DatabaseError> {
        self.ask_from(names, priority, now, true)
    }

    /// The time that all who share the queue go by.
    pub fn now_ms(&self) -> i64 {
        self.database.now_ms()
    }

    fn ask_from(&self, names: &[String], priority: u8, now: i64, here: bool) -> Result<Vec<Asked>, DatabaseError> {
        let priority = priority.min(HIGHEST_PRIORITY);
        self.database.change(|sql| {
            let ask = |name: &String| ask(sql, name, priority, now, here);
            names.iter().map(ask).collect()
        })
    }

    /// Leases all that is due of one series to `owner`: the most urgent, then the oldest. A series that somebody works
    /// on is left alone until that is done.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn lease(&self, owner: &str, now: i64) -> Result<Option<Job>, DatabaseError> {
        // most of the time there is nothing, and a look does not hinder others
        if !self.is_anything_due(now)? {
            return Ok(None);
        }
        self.database.change_lightly(|sql| self.lease_in(sql, owner, now))
    }

    fn is_anything_due(&self, now: i64) -> Result<bool, DatabaseError> {
        let query = "SELECT EXISTS (SELECT 1 FROM requests WHERE
                         (state IN ('queued', 'waiting') AND (next_try_at <= ?1 OR next_try_at > ?2))
                         OR (state = 'running' AND (lease_until <= ?1 OR lease_until > ?3)))";
        let times = [now.into(), self.farthest(now).into(), self.longest_lease(now).into()];
        self.database.read(|sql| is_so(sql, query, &times))
    }

    /// No honest clock makes anything due later than this.
    fn farthest(&self, now: i64) -> i64 {
        now.saturating_add(self.rules.longest_wait_ms.saturating_mul(2))
    }

    fn longest_lease(&self, now: i64) -> i64 {
        now.saturating_add(self.rules.lease_ms.saturating_mul(2))
    }

    fn lease_in(&self, sql: &dyn Sql, owner: &str, now: i64) -> Result<Option<Job>, DatabaseError> {
        let fallen = "UPDATE requests SET state = 'queued', lease_owner = NULL, lease_until = NULL, next_try_at = ?1
                      WHERE state = 'running' AND (lease_until <= ?1 OR lease_until > ?2)";
        sql.execute(fallen, &[now.into(), self.longest_lease(now).into()])?;
        let due = "state IN ('queued', 'waiting') AND (next_try_at <= ?1 OR next_try_at > ?2)";
        let next = format!(
            "SELECT study, series FROM requests AS due WHERE {due} AND NOT EXISTS
                 (SELECT 1 FROM requests AS other WHERE other.study = due.study AND other.series = due.series
                  AND other.state = 'running')
             ORDER BY priority DESC, created_at, name LIMIT 1"
        );
        let far = self.farthest(now);
        let next = first(sql, &next, &[now.into(), far.into()], |row| {
            Ok((row.text(0)?, row.text(1)?))
        })?;
        let Some((study, series)) = next else { return Ok(None) };
        let query = format!("SELECT {COLUMNS} FROM requests WHERE {due} AND study = ?3 AND series = ?4 ORDER BY name");
        let of = [now.into(), far.into(), study.as_str().into(), series.as_str().into()];
        let mut requests: Vec<Request> = all(sql, &query, &of, request)?;
        let until = now.saturating_add(self.rules.lease_ms);
        let take = "UPDATE requests SET state = 'running', lease_owner = ?2, lease_until = ?3, changed_at = ?4,
                    change = ?5 WHERE name = ?1";
        for request in &mut requests {
            let change = next_change(sql, KIND)?;
            let name = request.name.as_str();
            sql.execute(
                take,
                &[name.into(), owner.into(), until.into(), now.into(), change.into()],
            )?;
            request.state = State::Running;
        }
        Ok(Some(Job {
            study,
            series,
            requests,
        }))
    }

    /// Renews all leases of `owner`; answers which requests it still has.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn renew(&self, owner: &str, now: i64) -> Result<Vec<String>, DatabaseError> {
        let until = now.saturating_add(self.rules.lease_ms);
        let renew = "UPDATE requests SET lease_until = ?2 WHERE lease_owner = ?1 AND state = 'running' RETURNING name";
        self.database
            .change_lightly(|sql| texts(sql, renew, &[owner.into(), until.into()]))
    }

    /// Says what came of requests that `owner` had leased. What is in its place is so whoever had it.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing settled.
    pub fn settle(&self, owner: &str, outcomes: &[(String, Outcome)], now: i64) -> Result<(), DatabaseError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        self.database.change_lightly(|sql| {
            for (name, outcome) in outcomes {
                self.settle_one(sql, owner, name, *outcome, now)?;
            }
            Ok(())
        })
    }

    fn settle_one(
        &self,
        sql: &dyn Sql,
        owner: &str,
        name: &str,
        outcome: Outcome,
        now: i64,
    ) -> Result<(), DatabaseError> {
        let query = format!("SELECT {COLUMNS}, lease_owner FROM requests WHERE name = ?1");
        let found = first(sql, &query, &[name.into()], |row| {
            Ok((request(row)?, row.optional_text(12)?))
        })?;
        let Some((found, leased_by)) = found else { return Ok(()) };
        let is_ours = found.state == State::Running && leased_by.as_deref() == Some(owner);
        let is_there = outcome == Outcome::Placed && found.state.is_open();
        if !is_ours && !is_there {
            return Ok(());
        }
        let dice = u64::from_str_radix(&random_id::<7>()?, 16).unwrap_or(0);
        let decision = decide(&self.rules, &found, outcome, now, dice);
        let update = "UPDATE requests SET state = ?2, reason = ?3, tries = ?4, attempts = ?5, next_try_at = ?6,
                      lease_owner = NULL, lease_until = NULL, changed_at = ?7, change = ?8 WHERE name = ?1";
        let values = [
            name.into(),
            decision.state.word().into(),
            decision
                .reason
                .map(|reason| reason_text(reason, decision.refusal))
                .into(),
            i64::from(decision.tries).into(),
            i64::from(decision.attempts).into(),
            decision.next_try_at.into(),
            now.into(),
            next_change(sql, KIND)?.into(),
        ];
        sql.execute(update, &values)?;
        Ok(())
    }

    /// Gives back all leases of `owner`, untried.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn give_back(&self, owner: &str, now: i64) -> Result<usize, DatabaseError> {
        let update = "UPDATE requests SET state = 'queued', lease_owner = NULL, lease_until = NULL, next_try_at = ?2,
                      changed_at = ?2 WHERE lease_owner = ?1 AND state = 'running'";
        self.database
            .change_lightly(|sql| Ok(count(sql.execute(update, &[owner.into(), now.into()])?)))
    }

    /// Whoever leases something now.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn owners(&self) -> Result<Vec<String>, DatabaseError> {
        let query = "SELECT DISTINCT lease_owner FROM requests WHERE state = 'running' AND lease_owner IS NOT NULL";
        self.database.read(|sql| texts(sql, query, &[]))
    }

    /// Says of all that is due that it waits, and why; it stays due.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn hold(&self, reason: Reason, now: i64) -> Result<(), DatabaseError> {
        let due = "state = 'queued' AND next_try_at <= ?1";
        let is_any = format!("SELECT EXISTS (SELECT 1 FROM requests WHERE {due})");
        if !self.database.read(|sql| is_so(sql, &is_any, &[now.into()]))? {
            return Ok(());
        }
        let query = format!("SELECT name FROM requests WHERE {due}");
        let update = "UPDATE requests SET state = 'waiting', reason = ?2, changed_at = ?3, change = ?4 WHERE name = ?1";
        self.database.change_lightly(|sql| {
            let names: Vec<String> = texts(sql, &query, &[now.into()])?;
            for name in names {
                let change = next_change(sql, KIND)?;
                sql.execute(update, &[name.into(), reason.word().into(), now.into(), change.into()])?;
            }
            Ok(())
        })
    }

    /// Cancels what is open of these; answers how many that were.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing cancelled.
    pub fn cancel(&self, names: &[String], now: i64) -> Result<usize, DatabaseError> {
        self.update_each(names, CANCEL, now)
    }

    /// Cancels those of these that nobody asked for but the storage element; answers how many that were.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing cancelled.
    pub fn unwant(&self, names: &[String], now: i64) -> Result<usize, DatabaseError> {
        self.update_each(names, &format!("{CANCEL} AND here = 0"), now)
    }

    /// Revives what failed or was cancelled of these, with all its attempts; answers how many that were.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing revived.
    pub fn retry(&self, names: &[String], now: i64) -> Result<usize, DatabaseError> {
        let update = "UPDATE requests SET state = 'queued', reason = NULL, tries = 0, attempts = 0, next_try_at = ?2,
                      created_at = ?2, changed_at = ?2, change = ?3
                      WHERE name = ?1 AND state IN ('failed', 'cancelled', 'waiting')";
        self.update_each(names, update, now)
    }

    fn update_each(&self, names: &[String], update: &str, now: i64) -> Result<usize, DatabaseError> {
        self.database.change(|sql| {
            let mut updated = 0;
            for name in names {
                let change = next_change(sql, KIND)?;
                updated += count(sql.execute(update, &[name.as_str().into(), now.into(), change.into()])?);
            }
            Ok(updated)
        })
    }

    /// Requests, the most urgent first, then the oldest: of one state, or of any.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn list(&self, state: Option<State>, limit: usize) -> Result<Vec<Request>, DatabaseError> {
        let order = "ORDER BY priority DESC, created_at, name LIMIT ?1";
        let limit = signed(limit).into();
        match state {
            None => self.select(&format!("SELECT {COLUMNS} FROM requests {order}"), &[limit]),
            Some(state) => self.select(
                &format!("SELECT {COLUMNS} FROM requests WHERE state = ?2 {order}"),
                &[limit, state.word().into()],
            ),
        }
    }

    /// The names of all that something is still to happen to.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open_names(&self) -> Result<HashSet<String>, DatabaseError> {
        let query = "SELECT name FROM requests WHERE state IN ('queued', 'running', 'waiting')";
        self.database.read(|sql| texts(sql, query, &[]))
    }

    /// The requests of these names.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn of(&self, names: &[String]) -> Result<Vec<Request>, DatabaseError> {
        let query = format!("SELECT {COLUMNS} FROM requests WHERE name = ?1");
        self.database.read(|sql| {
            let mut found = Vec::new();
            for name in names {
                found.extend(first(sql, &query, &[name.as_str().into()], request)?);
            }
            Ok(found)
        })
    }

    /// What changed behind the change of that number, in order.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn changes(&self, after: i64, limit: usize) -> Result<Vec<Request>, DatabaseError> {
        let query = format!("SELECT {COLUMNS} FROM requests WHERE change > ?1 ORDER BY change LIMIT ?2");
        self.select(&query, &[after.into(), signed(limit).into()])
    }

    /// The number of the last change.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn last_change(&self) -> Result<i64, DatabaseError> {
        self.database
            .read(|sql| number(sql, "SELECT last FROM changes WHERE kind = 'requests'", &[]))
    }

    /// How many requests there are in each state.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn counts(&self) -> Result<Vec<(State, u64)>, DatabaseError> {
        self.database.read(|sql| {
            let mut counts = Vec::new();
            for (word, state) in State::NAMES {
                let count = number(sql, "SELECT count(*) FROM requests WHERE state = ?1", &[word.into()])?;
                counts.push((state, count.unsigned_abs()));
            }
            Ok(counts)
        })
    }

    /// Forgets what was done long ago, and gives up what is waiting for too long.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn tidy(&self, now: i64) -> Result<(), DatabaseError> {
        let (old, late) = (
            now.saturating_sub(self.rules.keep_ms),
            now.saturating_sub(self.rules.deadline_ms),
        );
        let overdue =
            format!("SELECT {COLUMNS} FROM requests WHERE state IN ('queued', 'waiting') AND created_at < ?1");
        let overdue = self.select(&overdue, &[late.into()])?;
        let done = "state IN ('placed', 'failed', 'cancelled') AND changed_at < ?1";
        let is_old = format!("SELECT EXISTS (SELECT 1 FROM requests WHERE {done})");
        // whoever looks often does not hinder others
        if overdue.is_empty() && !self.database.read(|sql| is_so(sql, &is_old, &[old.into()]))? {
            return Ok(());
        }
        self.database.change(|sql| {
            for request in &overdue {
                let update = "UPDATE requests SET state = 'failed', reason = ?2, changed_at = ?3, change = ?4
                              WHERE name = ?1 AND state IN ('queued', 'waiting')";
                let reason = request.reason.unwrap_or(Reason::Deadline);
                let (name, change) = (request.name.as_str(), next_change(sql, KIND)?);
                sql.execute(update, &[name.into(), reason.word().into(), now.into(), change.into()])?;
            }
            sql.execute(&format!("DELETE FROM requests WHERE {done}"), &[old.into()])?;
            Ok(())
        })
    }

    fn select(&self, query: &str, data: &[Datum]) -> Result<Vec<Request>, DatabaseError> {
        self.database.read(|sql| all(sql, query, data, request))
    }
}

fn ask(sql: &dyn Sql, name: &str, priority: u8, now: i64, here: bool) -> Result<Asked, DatabaseError> {
    let registered = "SELECT study, series FROM instances WHERE name = ?1 AND gone = 0";
    let registered = first(sql, registered, &[name.into()], |row| Ok((row.text(0)?, row.text(1)?)))?;
    let Some((study, series)) = registered else {
        return Ok(Asked::Unknown);
    };
    // whoever wants it anew comes after whoever wanted it away
    sql.execute("DELETE FROM evictions WHERE name = ?1", &[name.into()])?;
    let query = format!("SELECT {COLUMNS} FROM requests WHERE name = ?1");
    let known = first(sql, &query, &[name.into()], request)?;
    let change = next_change(sql, KIND)?;
    let priority = i64::from(priority);
    if let Some(known) = &known {
        if known.state.is_open() {
            let hurry = "UPDATE requests SET change = ?4,
                         priority = CASE WHEN priority < ?2 THEN ?2 ELSE priority END,
                         here = CASE WHEN here < ?5 THEN ?5 ELSE here END,
                         next_try_at = CASE WHEN state = 'waiting' AND next_try_at > ?3 THEN ?3 ELSE next_try_at END
                         WHERE name = ?1";
            sql.execute(
                hurry,
                &[name.into(), priority.into(), now.into(), change.into(), here.into()],
            )?;
            return Ok(Asked::Open(known.state));
        }
        sql.execute("DELETE FROM requests WHERE name = ?1", &[name.into()])?;
    }
    let insert = "INSERT INTO requests(name, study, series, priority, state, reason, tries, attempts,
                  next_try_at, created_at, changed_at, change, here)
                  VALUES (?1, ?2, ?3, ?4, 'queued', NULL, 0, 0, ?5, ?5, ?5, ?6, ?7)";
    let values = [
        name.into(),
        study.into(),
        series.into(),
        priority.into(),
        now.into(),
        change.into(),
        here.into(),
    ];
    sql.execute(insert, &values)?;
    Ok(Asked::Queued)
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

fn request(row: &mut Row) -> Result<Request, DatabaseError> {
    let unread = || DatabaseError::Row { table: "requests" };
    let small = |number: i64| u32::try_from(number).map_err(|_| unread());
    let (reason, refusal) = match row.optional_text(5)? {
        Some(text) => reason_of(&text),
        None => (None, None),
    };
    Ok(Request {
        name: row.text(0)?,
        study: row.text(1)?,
        series: row.text(2)?,
        priority: u8::try_from(row.integer(3)?).map_err(|_| unread())?,
        state: State::of(&row.text(4)?).ok_or_else(unread)?,
        reason,
        refusal,
        tries: small(row.integer(6)?)?,
        attempts: small(row.integer(7)?)?,
        next_try_at: row.integer(8)?,
        created_at: row.integer(9)?,
        changed_at: row.integer(10)?,
        change: row.integer(11)?,
    })
}

/// A reason as it stands in the database.
fn reason_text(reason: Reason, refusal: Option<&str>) -> String {
    match refusal {
        Some(refusal) => format!("{}: {refusal}", reason.word()),
        None => reason.word().to_owned(),
    }
}

/// What [`reason_text`] wrote.
fn reason_of(text: &str) -> (Option<Reason>, Option<String>) {
    let (word, refusal) = match text.split_once(": ") {
        Some((word, refusal)) => (word, Some(refusal.to_owned())),
        None => (text, None),
    };
    let reason = serde_json::from_value(serde_json::Value::String(word.to_owned()));
    (Some(reason.unwrap_or(Reason::Other)), refusal)
}

/// A daemon's mark beside the database's file, locked while it lives: whoever can lock it knows that the daemon does
/// not, and need not wait for its leases to fall back. Beside PostgreSQL there is none: leases fall back by time alone.
pub struct Owner {
    /// The daemon's name in leases.
    pub id: String,
    mark: Option<(PathBuf, std::fs::File)>,
}

impl Owner {
    /// The mark of a daemon for the database in the file at `database`.
    ///
    /// # Errors
    /// Where the mark cannot be made.
    pub fn new(database: Option<&Path>) -> Result<Self, DatabaseError> {
        let id = random_id::<8>()?;
        let Some(database) = database else {
            return Ok(Self { id, mark: None });
        };
        let path = mark(database, &id);
        let make = || {
            let file = std::fs::File::create_new(&path)?;
            file.try_lock().map_err(std::io::Error::other)?;
            Ok(file)
        };
        let lock = make().map_err(|source| DatabaseError::Make {
            path: path.clone(),
            source,
        })?;
        let mark = Some((path, lock));
        Ok(Self { id, mark })
    }

    /// Whether the daemon called `id` is known to live no more on this machine; its mark is removed then.
    pub fn is_dead(database: &Path, id: &str) -> bool {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        let path = mark(database, id);
        // no mark: it may be on another machine, or its mark was removed by another daemon that looks after its leases
        let Ok(file) = std::fs::File::open(&path) else {
            return false;
        };
        let is_dead = file.try_lock().is_ok();
        if is_dead {
            let _ = std::fs::remove_file(&path);
        }
        is_dead
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.mark {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn mark(database: &Path, id: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".{id}.daemon"));
    PathBuf::from(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::registry::tests::{Make, on_files, sample};
    use crate::registry::{LocalRegistry, Registry};

    const RULES: Rules = Rules {
        attempts: 3,
        first_wait_ms: 100,
        longest_wait_ms: 1000,
        deadline_ms: 10_000,
        lease_ms: 500,
        keep_ms: 100_000,
    };

    fn queue(make: Make<'_>, numbers: &[u32]) -> Queue {
        let database = make();
        let registry = LocalRegistry::new(Arc::clone(&database));
        let all: Vec<_> = numbers.iter().copied().map(sample).collect();
        registry.add(&all).unwrap();
        Queue::new(database, RULES)
    }

    fn name(number: u32) -> String {
        sample(number).name
    }

    fn ask(queue: &Queue, numbers: &[u32], priority: u8, now: i64) -> Vec<Asked> {
        let names: Vec<String> = numbers.iter().copied().map(name).collect();
        queue.ask(&names, priority, now).unwrap()
    }

    fn leased(queue: &Queue, owner: &str, now: i64) -> Vec<String> {
        let job = queue.lease(owner, now).unwrap();
        job.map_or(Vec::new(), |job| job.requests.into_iter().map(|one| one.name).collect())
    }

    fn state(queue: &Queue, number: u32) -> (State, Option<Reason>) {
        let found = queue.of(&[name(number)]).unwrap();
        (found[0].state, found[0].reason)
    }

    fn a_request() -> Request {
        Request {
            name: "/x".into(),
            study: "1".into(),
            series: "2".into(),
            priority: 0,
            state: State::Running,
            reason: None,
            refusal: None,
            tries: 0,
            attempts: 0,
            next_try_at: 0,
            created_at: 0,
            changed_at: 0,
            change: 0,
        }
    }

    #[test]
    fn a_request_that_fails_waits_longer_each_time_until_it_is_given_up() {
        let mut request = a_request();
        let mut now = 0;
        let mut waits = Vec::new();
        loop {
            let decision = decide(&RULES, &request, Outcome::Trouble(Reason::Pacs), now, 0);
            assert_eq!(decision.reason, Some(Reason::Pacs));
            if decision.state == State::Failed {
                break;
            }
            waits.push(decision.next_try_at - now);
            now = decision.next_try_at;
            (request.tries, request.attempts) = (decision.tries, decision.attempts);
        }
        assert!(waits.starts_with(&[75, 150, 300, 600, 750, 750]), "{waits:?}");
        assert!((9_000..=10_000).contains(&now), "{now}");
        assert_eq!(request.attempts, 0, "trouble of others is not counted");
    }

    #[test]
    fn what_fails_by_itself_has_so_many_attempts_and_what_cannot_succeed_has_none() {
        let mut request = a_request();
        for attempt in 1..=RULES.attempts {
            let decision = decide(&RULES, &request, Outcome::Again(Reason::Missing), 0, 7);
            let expected = if attempt == RULES.attempts {
                State::Failed
            } else {
                State::Waiting
            };
            assert_eq!(decision.state, expected);
            (request.tries, request.attempts) = (decision.tries, decision.attempts);
        }
        let decision = decide(&RULES, &a_request(), Outcome::Failed(Reason::Refused), 0, 0);
        assert_eq!(
            (decision.state, decision.reason),
            (State::Failed, Some(Reason::Refused))
        );
        let decision = decide(&RULES, &a_request(), Outcome::Untried, 5, 0);
        assert_eq!(
            (decision.state, decision.tries, decision.next_try_at),
            (State::Queued, 0, 5)
        );
    }

    #[test]
    fn a_series_is_leased_at_once_and_by_one() {
        on_files(leased_at_once);
    }

    pub(crate) fn leased_at_once(make: Make<'_>) {
        let queue = queue(make, &[11, 12, 13, 21]);
        assert_eq!(ask(&queue, &[11, 12], 0, 0), [Asked::Queued, Asked::Queued]);
        assert_eq!(
            ask(&queue, &[11, 99], 0, 1),
            [Asked::Open(State::Queued), Asked::Unknown]
        );
        ask(&queue, &[21], 2, 2);
        assert_eq!(leased(&queue, "a", 3), [name(21)], "the most urgent first");
        assert_eq!(leased(&queue, "b", 3), [name(11), name(12)]);
        // what is asked for meanwhile waits for the series
        ask(&queue, &[13], 3, 4);
        assert!(leased(&queue, "a", 5).is_empty());
        let done = [
            (name(11), Outcome::Placed),
            (name(12), Outcome::Failed(Reason::Refused)),
        ];
        queue.settle("b", &done, 6).unwrap();
        assert_eq!(leased(&queue, "a", 7), [name(13)]);
        assert_eq!(state(&queue, 11), (State::Placed, None));
        assert_eq!(state(&queue, 12), (State::Failed, Some(Reason::Refused)));
        // asked for again it is as new
        assert_eq!(ask(&queue, &[12], 0, 8), [Asked::Queued]);
    }

    #[test]
    fn leases_fall_back_unless_renewed_also_when_clocks_jump() {
        on_files(leases_fall_back);
    }

    pub(crate) fn leases_fall_back(make: Make<'_>) {
        let queue = queue(make, &[11]);
        ask(&queue, &[11], 0, 1000);
        assert_eq!(leased(&queue, "a", 1000).len(), 1);
        assert!(leased(&queue, "b", 1499).is_empty());
        assert_eq!(queue.renew("a", 1499).unwrap(), [name(11)]);
        assert!(leased(&queue, "b", 1501).is_empty());
        assert_eq!(leased(&queue, "b", 2000).len(), 1);
        assert!(queue.renew("a", 2001).unwrap().is_empty());
        // whoever lost the lease has no say any more, unless it is there
        queue
            .settle("a", &[(name(11), Outcome::Failed(Reason::Pacs))], 2001)
            .unwrap();
        assert_eq!(state(&queue, 11).0, State::Running);
        queue.settle("a", &[(name(11), Outcome::Placed)], 2001).unwrap();
        assert_eq!(state(&queue, 11).0, State::Placed);
        // far in the future by a clock that was wrong
        ask(&queue, &[11], 0, 1_000_000);
        assert_eq!(leased(&queue, "a", 10).len(), 1);
        queue.settle("a", &[(name(11), Outcome::Untried)], 1_000_000).unwrap();
        assert_eq!(leased(&queue, "a", 1_000_000).len(), 1);
        assert_eq!(leased(&queue, "b", 10).len(), 1);
        assert_eq!(queue.give_back("b", 11).unwrap(), 1);
        assert_eq!(leased(&queue, "c", 11).len(), 1);
    }

    #[test]
    fn cancelled_held_late_and_old_requests() {
        on_files(cancelled_and_old);
    }

    pub(crate) fn cancelled_and_old(make: Make<'_>) {
        let queue = queue(make, &[11, 12]);
        ask(&queue, &[11, 12], 0, 0);
        assert_eq!(queue.cancel(&[name(11)], 1).unwrap(), 1);
        assert_eq!(queue.cancel(&[name(11)], 1).unwrap(), 0);
        assert_eq!(state(&queue, 11), (State::Cancelled, Some(Reason::Cancelled)));
        // what somebody in the hospital asked for is not the storage element's to cancel
        let both = [name(11), name(12)];
        queue.ask_here(&both[1..], 0, 1).unwrap();
        ask(&queue, &[11], 0, 1);
        assert_eq!(queue.unwant(&both, 1).unwrap(), 1);
        assert_eq!(
            (state(&queue, 11).0, state(&queue, 12).0),
            (State::Cancelled, State::Queued)
        );
        queue.hold(Reason::Storage, 2).unwrap();
        assert_eq!(state(&queue, 12), (State::Waiting, Some(Reason::Storage)));
        assert_eq!(leased(&queue, "a", 3), [name(12)], "held is not put off");
        let again = [(name(12), Outcome::Again(Reason::Missing))];
        queue.settle("a", &again, 4).unwrap();
        assert!(leased(&queue, "a", 5).is_empty());
        assert_eq!(queue.list(Some(State::Waiting), 9).unwrap().len(), 1);
        queue.tidy(20_000).unwrap();
        assert_eq!(state(&queue, 12), (State::Failed, Some(Reason::Missing)));
        assert_eq!(queue.retry(&[name(11), name(12)], 20_001).unwrap(), 2);
        assert_eq!(leased(&queue, "a", 20_002).len(), 2);
        queue.settle("a", &[(name(11), Outcome::Placed)], 20_003).unwrap();
        queue.tidy(200_000).unwrap();
        assert!(queue.of(&[name(11)]).unwrap().is_empty());
        let changed = queue.changes(0, 99).unwrap();
        assert!(changed.is_sorted_by_key(|one| one.change));
        assert!(changed.iter().all(|one| one.change <= queue.last_change().unwrap()));
    }

    #[test]
    fn whoever_is_dead_is_told_from_whoever_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let owner = Owner::new(Some(&path)).unwrap();
        assert!(!Owner::is_dead(&path, &owner.id));
        assert!(!Owner::is_dead(&path, "0123456789abcdef"));
        assert!(!Owner::is_dead(&path, "../x"));
        let dead = mark(&path, "00ff");
        std::fs::write(&dead, "").unwrap();
        assert!(Owner::is_dead(&path, "00ff"));
        assert!(!dead.exists());
        drop(owner);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// What may happen to a queue.
    #[derive(Debug, Clone)]
    enum Event {
        Ask(u32),
        Lease(usize),
        /// A daemon puts what it has leased into its place and dies before it says so.
        PlaceAndDie(usize),
        Place(usize),
        Fail(usize),
        Renew(usize),
        Cancel(u32),
        Pass(i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..6u32).prop_map(Event::Ask),
            (0..2usize).prop_map(Event::Lease),
            (0..2usize).prop_map(Event::PlaceAndDie),
            (0..2usize).prop_map(Event::Place),
            (0..2usize).prop_map(Event::Fail),
            (0..2usize).prop_map(Event::Renew),
            (0..6u32).prop_map(Event::Cancel),
            (0..400i64).prop_map(Event::Pass),
        ]
    }

    /// Two daemons that die at any moment: nothing that was asked for is lost, a series is never leased to both, and in
    /// the end all is in its place or was given up for a reason.
    #[test]
    fn nothing_is_lost_whatever_happens() {
        on_files(nothing_is_lost);
    }

    pub(crate) fn nothing_is_lost(make: Make<'_>) {
        let config = ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let mut runner = TestRunner::new(config);
        let events = prop::collection::vec(event(), 1..40);
        runner
            .run(&events, |events| {
                let numbers: Vec<u32> = (0..6).map(|number| number * 5).collect();
                let queue = queue(make, &numbers);
                let mut now = 0;
                let mut asked = std::collections::BTreeSet::new();
                let mut holds: [Vec<String>; 2] = Default::default();
                let mut placed = std::collections::BTreeSet::new();
                for event in events {
                    match event {
                        Event::Ask(at) => {
                            let number = numbers[at as usize];
                            ask(&queue, &[number], 0, now);
                            asked.insert(name(number));
                        }
                        Event::Lease(daemon) if holds[daemon].is_empty() => {
                            holds[daemon] = leased(&queue, &daemon.to_string(), now);
                            let other: &Vec<String> = &holds[1 - daemon];
                            let live = queue.renew(&(1 - daemon).to_string(), now).unwrap();
                            let both = holds[daemon]
                                .iter()
                                .filter(|name| other.contains(name) && live.contains(name));
                            prop_assert_eq!(both.count(), 0);
                        }
                        Event::PlaceAndDie(daemon) => placed.extend(std::mem::take(&mut holds[daemon])),
                        Event::Place(daemon) => {
                            let names = std::mem::take(&mut holds[daemon]);
                            let done: Vec<_> = names.iter().map(|name| (name.clone(), Outcome::Placed)).collect();
                            queue.settle(&daemon.to_string(), &done, now).unwrap();
                            placed.extend(names);
                        }
                        Event::Fail(daemon) => {
                            let names = std::mem::take(&mut holds[daemon]);
                            let done: Vec<_> = names
                                .into_iter()
                                .map(|name| (name, Outcome::Trouble(Reason::Pacs)))
                                .collect();
                            queue.settle(&daemon.to_string(), &done, now).unwrap();
                        }
                        Event::Renew(daemon) => {
                            let has = queue.renew(&daemon.to_string(), now).unwrap();
                            holds[daemon].retain(|name| has.contains(name));
                        }
                        Event::Cancel(at) => {
                            let number = name(numbers[at as usize]);
                            queue.cancel(std::slice::from_ref(&number), now).unwrap();
                        }
                        Event::Pass(time) => now += time,
                        Event::Lease(_) => {}
                    }
                    for name in &asked {
                        prop_assert_eq!(queue.of(std::slice::from_ref(name)).unwrap().len(), 1);
                    }
                }
                // a third daemon that lives finishes all
                for _ in 0..50 {
                    now += RULES.longest_wait_ms;
                    while let Some(job) = queue.lease("last", now).unwrap() {
                        let done: Vec<_> = job
                            .requests
                            .iter()
                            .map(|one| (one.name.clone(), Outcome::Placed))
                            .collect();
                        queue.settle("last", &done, now).unwrap();
                        placed.extend(job.requests.into_iter().map(|one| one.name));
                    }
                }
                for request in queue.list(None, 99).unwrap() {
                    match request.state {
                        State::Placed => prop_assert!(placed.contains(&request.name)),
                        State::Failed => prop_assert!(request.reason.is_some()),
                        other => prop_assert_eq!(other, State::Cancelled),
                    }
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn daemons_that_lease_at_once_get_different_series() {
        on_files(many_lease_at_once);
    }

    pub(crate) fn many_lease_at_once(make: Make<'_>) {
        let numbers: Vec<u32> = (0..60).collect();
        let queue = queue(make, &numbers);
        ask(&queue, &numbers, 0, 0);
        let leased = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for owner in ["a", "b", "c", "d"] {
                let (queue, leased) = (&queue, &leased);
                scope.spawn(move || {
                    while let Some(job) = queue.lease(owner, 1).unwrap() {
                        assert_eq!(job.requests.len(), 10, "a series as a whole");
                        let names: Vec<String> = job.requests.into_iter().map(|one| one.name).collect();
                        let done: Vec<_> = names.iter().map(|name| (name.clone(), Outcome::Placed)).collect();
                        queue.settle(owner, &done, 2).unwrap();
                        leased.lock().unwrap().extend(names);
                    }
                });
            }
        });
        let mut leased = leased.into_inner().unwrap();
        leased.sort();
        let mut expected: Vec<String> = numbers.into_iter().map(name).collect();
        expected.sort();
        assert_eq!(leased, expected, "each once");
        let changed = queue.changes(0, 999).unwrap();
        assert_eq!(changed.last().unwrap().change, queue.last_change().unwrap());
    }
}
