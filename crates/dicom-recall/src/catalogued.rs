//! What of the registered instances stands in a catalogue too: under which path, what the catalogue is still to be told
//! of it, and which registrations are not at their end. In the same database as the registry, so that no change of it
//! is forgotten: the outbox is filled by the database itself, whichever process makes the change.

use std::collections::BTreeSet;
use std::sync::Arc;

use mdm_catalog::database::{Datum, Row};

use crate::database::{Database, DatabaseError, all, first, is_so, now_ms, number, signed, texts};
use crate::registry::{Added, Instance, add};

/// What the catalogue does not know is tried again that often: it may be of a registration that is under way.
const TRIES: i64 = 14;
/// The first pause before it is.
const FIRST_PAUSE_MS: i64 = 15_000;
const LONGEST_PAUSE_MS: i64 = 6 * 3_600_000;

/// How far a registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not at its end.
    Open,
    /// All of it is done.
    Done,
    /// All of it is taken back.
    Undone,
}

impl State {
    const NAMES: [(&str, Self); 3] = [("open", Self::Open), ("done", Self::Done), ("undone", Self::Undone)];

    /// Its word.
    pub fn word(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, state)| *state == self);
        found.map_or("", |(word, _)| word)
    }

    fn of(word: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == word);
        found.map(|(_, state)| *state)
    }
}

/// A registration of several instances with a catalogue. It has original identifiers, and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Registration {
    /// 32 hexadecimal digits; the catalogue's operation has the same.
    pub id: String,
    /// What was to be registered, as its command had it.
    pub what: String,
    /// The directory.
    pub into: String,
    /// How far it is.
    pub state: State,
    /// When it began, in seconds since 1970.
    pub began_at: i64,
}

/// A key that a registration made, or wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeKey {
    /// Its name.
    pub key_id: String,
    /// Which registration of it, once it was made.
    pub registration_id: Option<String>,
}

/// What the catalogue is to be told of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Its name here.
    pub name: String,
    /// Its path in the catalogue.
    pub path: String,
    /// Of the sealed file.
    pub size: Option<u64>,
    /// Of the sealed file.
    pub sha256: Option<String>,
    /// Whether it is at the storage element.
    pub on_disk: bool,
    version: i64,
    tries: i64,
}

/// The side of the database that knows of a catalogue.
pub struct Catalogued(Arc<Database>);

impl Catalogued {
    /// In `database`.
    pub fn new(database: Arc<Database>) -> Self {
        Self(database)
    }

    // --- registrations

    /// Begins a registration; one that is known is open again.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn begin(&self, id: &str, what: &str, into: &str) -> Result<(), DatabaseError> {
        let insert = "INSERT INTO registrations VALUES (?1, ?2, ?3, 'open', ?4)
                      ON CONFLICT(id) DO UPDATE SET state = 'open'";
        let values = [id.into(), what.into(), into.into(), (now_ms() / 1000).into()];
        self.0.change(|sql| Ok(sql.execute(insert, &values).map(|_| ())?))
    }

    /// Says how far a registration is. Of one that is at its end no original identifiers are kept here.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn set_state(&self, id: &str, state: State) -> Result<(), DatabaseError> {
        self.0.change(|sql| {
            let update = "UPDATE registrations SET state = ?2 WHERE id = ?1";
            sql.execute(update, &[id.into(), state.word().into()])?;
            if state != State::Open {
                sql.execute("UPDATE registrations SET what = '' WHERE id = ?1", &[id.into()])?;
            }
            // what was registered at its end goes on needing its keys; of one that was undone each part was forgotten
            // as it was taken back, and what a run of it has made since is not forgotten
            if state == State::Done {
                for table in ["registration_names", "registration_intents"] {
                    sql.execute(&format!("DELETE FROM {table} WHERE id = ?1"), &[id.into()])?;
                }
            }
            Ok(())
        })
    }

    /// A registration.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn registration(&self, id: &str) -> Result<Option<Registration>, DatabaseError> {
        let query = "SELECT id, what, into_path, state, began_at FROM registrations WHERE id = ?1";
        self.0.read(|sql| first(sql, query, &[id.into()], registration))
    }

    /// Those that are not at their end, the oldest first; one that was undone while it ran may have made something
    /// since.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open_registrations(&self) -> Result<Vec<Registration>, DatabaseError> {
        let query = "SELECT id, what, into_path, state, began_at FROM registrations r
                     WHERE state = 'open' OR state = 'undone' AND (
                         EXISTS (SELECT 1 FROM registration_keys k WHERE k.id = r.id)
                         OR EXISTS (SELECT 1 FROM registration_names n WHERE n.id = r.id))
                     ORDER BY began_at, id";
        self.0.read(|sql| all(sql, query, &[], registration))
    }

    /// A registration wants this key, or has made it.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn add_key(&self, id: &str, key_id: &str, registration_id: Option<&str>) -> Result<(), DatabaseError> {
        let insert = "INSERT INTO registration_keys VALUES (?1, ?2, ?3) ON CONFLICT(id, key_id)
                      DO UPDATE SET registration_id =
                          coalesce(excluded.registration_id, registration_keys.registration_id)";
        let values = [id.into(), key_id.into(), registration_id.into()];
        self.0.change(|sql| Ok(sql.execute(insert, &values).map(|_| ())?))
    }

    /// A registration is about to make this key by that registration of it: written down before any key store hears of
    /// it, so that a crash leaves nothing that is not known here.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn intend(&self, id: &str, key_id: &str, registration_id: &str) -> Result<(), DatabaseError> {
        let insert = "INSERT INTO registration_intents VALUES (?1, ?2, ?3)
                      ON CONFLICT (id, key_id, registration_id) DO NOTHING";
        let values = [id, key_id, registration_id].map(Datum::from);
        self.0.change(|sql| Ok(sql.execute(insert, &values).map(|_| ())?))
    }

    /// By which registrations a key was about to be made.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn intents(&self, id: &str, key_id: &str) -> Result<BTreeSet<String>, DatabaseError> {
        let query = "SELECT registration_id FROM registration_intents WHERE id = ?1 AND key_id = ?2";
        let found: Vec<String> = self.0.read(|sql| texts(sql, query, &[id.into(), key_id.into()]))?;
        Ok(found.into_iter().collect())
    }

    /// A registration does not want this key any more, of which no more is known than this.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn forget_key(&self, id: &str, key: &MadeKey, intents: &BTreeSet<String>) -> Result<(), DatabaseError> {
        let delete = "DELETE FROM registration_keys
                      WHERE id = ?1 AND key_id = ?2 AND coalesce(registration_id, '') = ?3";
        let intent = "DELETE FROM registration_intents WHERE id = ?1 AND key_id = ?2 AND registration_id = ?3";
        let of = |registration_id: &str| [id, key.key_id.as_str(), registration_id].map(Datum::from);
        self.0.change(|sql| {
            sql.execute(delete, &of(key.registration_id.as_deref().unwrap_or_default()))?;
            for registration_id in intents {
                sql.execute(intent, &of(registration_id))?;
            }
            Ok(())
        })
    }

    /// A key that a registration made stays, because others want it: those that are open have made it from now on, so
    /// that the last one that is undone takes it back.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn hand_over(&self, id: &str, key_id: &str, registration_id: &str) -> Result<(), DatabaseError> {
        let update = "UPDATE registration_keys SET registration_id = ?3
                      WHERE key_id = ?2 AND id <> ?1 AND registration_id IS NULL
                          AND id IN (SELECT id FROM registrations WHERE state = 'open')";
        let values = [id, key_id, registration_id].map(Datum::from);
        self.0.change(|sql| Ok(sql.execute(update, &values).map(|_| ())?))
    }

    /// Whether anything else than this registration needs a key: another one that is open, what others registered, or
    /// what is sealed under it.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn is_used_elsewhere(&self, id: &str, key_id: &str) -> Result<bool, DatabaseError> {
        let query = "SELECT EXISTS (SELECT 1 FROM registration_keys WHERE key_id = ?2 AND id <> ?1)
                         OR EXISTS (SELECT 1 FROM instances WHERE key_id = ?2 AND gone = 0 AND (sha256 IS NOT NULL
                             OR name NOT IN (SELECT name FROM registration_names WHERE id = ?1)))";
        self.0.read(|sql| is_so(sql, query, &[id.into(), key_id.into()]))
    }

    /// The keys that a registration made, or wants.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn keys(&self, id: &str) -> Result<Vec<MadeKey>, DatabaseError> {
        let query = "SELECT key_id, registration_id FROM registration_keys WHERE id = ?1 ORDER BY key_id";
        let key = |row: &mut Row| {
            Ok(MadeKey {
                key_id: row.text(0)?,
                registration_id: row.optional_text(1)?,
            })
        };
        self.0.read(|sql| all(sql, query, &[id.into()], key))
    }

    /// Registers instances under their paths in the catalogue, in one go; answers for each.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing registered.
    pub fn enter(&self, id: &str, instances: &[(Instance, String)]) -> Result<Vec<Added>, DatabaseError> {
        self.0.change(|sql| {
            let mut all = Vec::with_capacity(instances.len());
            for (instance, path) in instances {
                let added = add(sql, instance)?;
                let name = instance.name.as_str();
                if added == Added::New {
                    let insert = "INSERT INTO registration_names VALUES (?1, ?2) ON CONFLICT (id, name) DO NOTHING";
                    sql.execute(insert, &[id.into(), name.into()])?;
                }
                if added != Added::Taken {
                    let insert = "INSERT INTO catalogued VALUES (?1, ?2)
                                  ON CONFLICT(name) DO UPDATE SET path = excluded.path";
                    sql.execute(insert, &[name.into(), path.as_str().into()])?;
                    // what was there before it had this path is news there
                    let tell = "INSERT INTO outbox SELECT name, 1, 0, 0 FROM instances
                                WHERE name = ?1 AND (size IS NOT NULL OR on_disk = 1)
                                ON CONFLICT(name) DO UPDATE SET version = outbox.version + 1, tries = 0, next_at = 0";
                    sql.execute(tell, &[name.into()])?;
                }
                all.push(added);
            }
            Ok(all)
        })
    }

    /// The names that a registration entered and that were not there before, each with its path; without those that
    /// others rely on by now, because something was sealed under them, or they are catalogued elsewhere.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn names(&self, id: &str) -> Result<Vec<(String, String)>, DatabaseError> {
        let query = "SELECT n.name, coalesce(c.path, '') FROM registration_names n JOIN registrations r ON r.id = n.id
                     LEFT JOIN catalogued c ON c.name = n.name LEFT JOIN instances i ON i.name = n.name
                     WHERE n.id = ?1 AND i.sha256 IS NULL
                         AND (c.path IS NULL OR substr(c.path, 1, length(r.into_path) + 1) = r.into_path || '/')
                     ORDER BY 1";
        self.0
            .read(|sql| all(sql, query, &[id.into()], |row| Ok((row.text(0)?, row.text(1)?))))
    }

    /// All names that a registration entered and that were not there before.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn entered(&self, id: &str) -> Result<Vec<String>, DatabaseError> {
        let query = "SELECT name FROM registration_names WHERE id = ?1 ORDER BY 1";
        self.0.read(|sql| texts(sql, query, &[id.into()]))
    }

    /// A registration has not entered these names after all.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn unname(&self, id: &str, names: &[String]) -> Result<(), DatabaseError> {
        self.0.change(|sql| {
            for name in names {
                let delete = "DELETE FROM registration_names WHERE id = ?1 AND name = ?2";
                sql.execute(delete, &[id.into(), name.as_str().into()])?;
            }
            Ok(())
        })
    }

    /// The name of the file that is catalogued under a path.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn name_at(&self, path: &str) -> Result<Option<String>, DatabaseError> {
        let query = "SELECT name FROM catalogued WHERE path = ?1";
        self.0
            .read(|sql| first(sql, query, &[path.into()], |row| Ok(row.text(0)?)))
    }

    /// The names of all that was registered under a key, catalogued or not.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn names_under(&self, key_id: &str) -> Result<Vec<String>, DatabaseError> {
        let query = "SELECT name FROM instances WHERE key_id = ?1";
        self.0.read(|sql| texts(sql, query, &[key_id.into()]))
    }

    /// These are catalogued no more.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn forget(&self, names: &[String]) -> Result<(), DatabaseError> {
        self.0.change(|sql| {
            for name in names {
                for table in ["catalogued", "outbox"] {
                    sql.execute(&format!("DELETE FROM {table} WHERE name = ?1"), &[name.as_str().into()])?;
                }
            }
            Ok(())
        })
    }

    // --- the outbox

    /// What the catalogue is to be told now: at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn news(&self, now_ms: i64, limit: usize) -> Result<Vec<News>, DatabaseError> {
        let query = "SELECT outbox.name, path, size, sha256, on_disk, version, tries FROM outbox
                     JOIN catalogued USING (name) JOIN instances USING (name)
                     WHERE next_at <= ?1 ORDER BY next_at, outbox.name LIMIT ?2";
        let news = |row: &mut Row| {
            Ok(News {
                name: row.text(0)?,
                path: row.text(1)?,
                size: row.optional_integer(2)?.map(i64::unsigned_abs),
                sha256: row.optional_text(3)?,
                on_disk: row.boolean(4)?,
                version: row.integer(5)?,
                tries: row.integer(6)?,
            })
        };
        let limit = signed(limit);
        self.0.read(|sql| all(sql, query, &[now_ms.into(), limit.into()], news))
    }

    /// How much there is to tell, now or later.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn untold(&self) -> Result<u64, DatabaseError> {
        let count = self.0.read(|sql| number(sql, "SELECT count(*) FROM outbox", &[]))?;
        Ok(count.unsigned_abs())
    }

    /// The catalogue was told of these; what changed meanwhile is told again.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn told(&self, news: &[News]) -> Result<(), DatabaseError> {
        self.each(news, |one| {
            let values = vec![one.name.as_str().into(), one.version.into()];
            ("DELETE FROM outbox WHERE name = ?1 AND version = ?2", values)
        })
    }

    /// The catalogue does not know these: they are told again later, and after some tries no more.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn unknown(&self, news: &[News], now_ms: i64) -> Result<(), DatabaseError> {
        self.each(news, |one| {
            let next_at = now_ms.saturating_add(LONGEST_PAUSE_MS.min(FIRST_PAUSE_MS << one.tries.clamp(0, 20)));
            let update = "UPDATE outbox SET tries = tries + 1, next_at = ?2 WHERE name = ?1";
            (update, vec![one.name.as_str().into(), next_at.into()])
        })?;
        self.0.change(|sql| {
            sql.execute("DELETE FROM outbox WHERE tries >= ?1", &[TRIES.into()])?;
            Ok(())
        })
    }

    fn each(
        &self,
        news: &[News],
        statement: impl Fn(&News) -> (&'static str, Vec<Datum>),
    ) -> Result<(), DatabaseError> {
        if news.is_empty() {
            return Ok(());
        }
        self.0.change(|sql| {
            for one in news {
                let (text, values) = statement(one);
                sql.execute(text, &values)?;
            }
            Ok(())
        })
    }
}

fn registration(row: &mut Row) -> Result<Registration, DatabaseError> {
    Ok(Registration {
        id: row.text(0)?,
        what: row.text(1)?,
        into: row.text(2)?,
        state: State::of(&row.text(3)?).ok_or(DatabaseError::Row { table: "registrations" })?,
        began_at: row.integer(4)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::registry::tests::{Make, on_files, sample};
    use crate::registry::{LocalRegistry, Registry};

    fn entered(numbers: &[u32]) -> Vec<(Instance, String)> {
        let one = |number: &u32| (sample(*number), format!("/myvo/images/{number}"));
        numbers.iter().map(one).collect()
    }

    fn names(news: &[News]) -> Vec<(&str, Option<u64>, bool)> {
        news.iter()
            .map(|one| (one.path.as_str(), one.size, one.on_disk))
            .collect()
    }

    #[test]
    fn the_outbox_has_every_change_until_it_was_told() {
        on_files(every_change_is_told);
    }

    pub(crate) fn every_change_is_told(make: Make<'_>) {
        let database = make();
        let (registry, catalogued) = (LocalRegistry::new(Arc::clone(&database)), Catalogued::new(database));
        catalogued.begin("a", "1.2", "/myvo/images").unwrap();
        let added = catalogued.enter("a", &entered(&[11, 12])).unwrap();
        assert_eq!(added, [Added::New; 2]);
        registry.add(&[sample(13)]).unwrap();
        assert_eq!(catalogued.news(0, 9).unwrap(), []);
        let file = |number: u32| (sample(number).name, 70, "a".repeat(64));
        registry.record_placed(&[file(11), file(13)]).unwrap();
        let news = catalogued.news(0, 9).unwrap();
        assert_eq!(names(&news), [("/myvo/images/11", Some(70), true)]);
        registry.set_on_disk(&[sample(11).name], false).unwrap();
        // what was told is not what holds now
        catalogued.told(&news).unwrap();
        let news = catalogued.news(0, 9).unwrap();
        assert_eq!(names(&news), [("/myvo/images/11", Some(70), false)]);
        catalogued.told(&news).unwrap();
        assert_eq!(catalogued.untold().unwrap(), 0);
        // nothing changed
        registry.set_on_disk(&[sample(11).name], false).unwrap();
        assert_eq!(catalogued.untold().unwrap(), 0);
        // what was recalled before it was catalogued is told too
        catalogued.enter("a", &entered(&[13])).unwrap();
        assert_eq!(
            names(&catalogued.news(0, 9).unwrap()),
            [("/myvo/images/13", Some(70), true)]
        );
        catalogued.forget(&[sample(13).name]).unwrap();
        assert_eq!(catalogued.untold().unwrap(), 0);
    }

    #[test]
    fn another_path_is_told_and_that_a_file_went_after_its_registration() {
        on_files(another_path);
    }

    pub(crate) fn another_path(make: Make<'_>) {
        let database = make();
        let (registry, catalogued) = (LocalRegistry::new(Arc::clone(&database)), Catalogued::new(database));
        catalogued.enter("a", &entered(&[11])).unwrap();
        let file = (sample(11).name, 70, "a".repeat(64));
        registry.record_placed(&[file]).unwrap();
        catalogued.told(&catalogued.news(0, 9).unwrap()).unwrap();
        let elsewhere = vec![(sample(11), "/myvo/more/11".to_owned())];
        assert_eq!(catalogued.enter("b", &elsewhere).unwrap(), [Added::Known]);
        let news = catalogued.news(0, 9).unwrap();
        assert_eq!(names(&news), [("/myvo/more/11", Some(70), true)]);
        catalogued.told(&news).unwrap();
        assert_eq!(catalogued.names_under(&sample(11).key_id).unwrap(), [sample(11).name]);
        registry.remove(&[sample(11).name]).unwrap();
        registry.set_on_disk(&[sample(11).name], false).unwrap();
        let news = catalogued.news(0, 9).unwrap();
        assert_eq!(names(&news), [("/myvo/more/11", Some(70), false)]);
        catalogued.told(&news).unwrap();
        assert_eq!(catalogued.untold().unwrap(), 0);
    }

    #[test]
    fn what_the_catalogue_does_not_know_is_told_some_times_more() {
        on_files(some_times_more);
    }

    pub(crate) fn some_times_more(make: Make<'_>) {
        let database = make();
        let (registry, catalogued) = (LocalRegistry::new(Arc::clone(&database)), Catalogued::new(database));
        catalogued.enter("a", &entered(&[11])).unwrap();
        registry.set_on_disk(&[sample(11).name], true).unwrap();
        let mut now = 0;
        let mut tries = 0;
        while catalogued.untold().unwrap() > 0 {
            let news = catalogued.news(now, 9).unwrap();
            if !news.is_empty() {
                catalogued.unknown(&news, now).unwrap();
                tries += 1;
                assert_eq!(catalogued.news(now, 9).unwrap(), []);
            }
            now += 60_000;
        }
        assert_eq!(tries, TRIES);
        assert!(now > 24 * 3_600_000 / 2, "{now}");
    }

    #[test]
    fn a_registration_is_found_until_its_end_with_what_it_made_alone() {
        on_files(registrations);
    }

    pub(crate) fn registrations(make: Make<'_>) {
        let database = make();
        let catalogued = Catalogued::new(database);
        catalogued.enter("earlier", &entered(&[11])).unwrap();
        catalogued.begin("a", "1.2", "/myvo/images").unwrap();
        catalogued.add_key("a", "/eds/1", None).unwrap();
        catalogued.add_key("a", "/eds/1", Some("r")).unwrap();
        // a second run that finds the key does not forget that the first one made it
        catalogued.add_key("a", "/eds/1", None).unwrap();
        assert!(catalogued.is_used_elsewhere("a", &sample(11).key_id).unwrap());
        assert!(!catalogued.is_used_elsewhere("a", "/eds/1").unwrap());
        let made = MadeKey {
            key_id: "/eds/1".to_owned(),
            registration_id: Some("r".to_owned()),
        };
        assert_eq!(catalogued.keys("a").unwrap(), [made]);
        let added = catalogued.enter("a", &entered(&[11, 12])).unwrap();
        assert_eq!(added, [Added::Known, Added::New]);
        let names = catalogued.names("a").unwrap();
        assert_eq!(names, [(sample(12).name, "/myvo/images/12".to_owned())]);
        assert_eq!(catalogued.name_at("/myvo/images/12").unwrap(), Some(sample(12).name));
        let open = catalogued.open_registrations().unwrap();
        assert!(open.len() == 1 && open[0].id == "a" && open[0].what == "1.2");
        catalogued.set_state("a", State::Done).unwrap();
        assert!(catalogued.open_registrations().unwrap().is_empty());
        let done = catalogued.registration("a").unwrap().unwrap();
        assert!(done.state == State::Done && done.what.is_empty());
        assert!(catalogued.names("a").unwrap().is_empty());
        // what is at its end goes on needing its keys
        catalogued.begin("c", "1.3", "/myvo/images").unwrap();
        catalogued.add_key("c", "/eds/1", Some("r")).unwrap();
        assert!(catalogued.is_used_elsewhere("c", "/eds/1").unwrap());
        assert!(catalogued.registration("b").unwrap().is_none());
    }

    #[test]
    fn what_a_registration_is_about_to_make_is_known_until_its_end_and_handed_over_where_others_want_it() {
        on_files(intents);
    }

    pub(crate) fn intents(make: Make<'_>) {
        let catalogued = Catalogued::new(make());
        for id in ["a", "b"] {
            catalogued.begin(id, "1.2", "/myvo/images").unwrap();
            catalogued.add_key(id, "/eds/1", None).unwrap();
        }
        for registration in ["r", "s", "s"] {
            catalogued.intend("a", "/eds/1", registration).unwrap();
        }
        let both = BTreeSet::from(["r".to_owned(), "s".to_owned()]);
        assert_eq!(catalogued.intents("a", "/eds/1").unwrap(), both);
        assert!(catalogued.intents("b", "/eds/1").unwrap().is_empty());
        catalogued.hand_over("a", "/eds/1", "r").unwrap();
        let made = |id| catalogued.keys(id).unwrap().pop().and_then(|key| key.registration_id);
        assert_eq!((made("a"), made("b")), (None, Some("r".to_owned())));
        // what became known meanwhile is not forgotten
        let known = |registration: Option<&str>| MadeKey {
            key_id: "/eds/1".to_owned(),
            registration_id: registration.map(str::to_owned),
        };
        catalogued.intend("a", "/eds/1", "t").unwrap();
        catalogued.add_key("a", "/eds/1", Some("t")).unwrap();
        catalogued.forget_key("a", &known(None), &both).unwrap();
        assert_eq!(
            catalogued.intents("a", "/eds/1").unwrap(),
            BTreeSet::from(["t".to_owned()])
        );
        catalogued.set_state("a", State::Undone).unwrap();
        assert_eq!(catalogued.open_registrations().unwrap().len(), 2);
        catalogued
            .forget_key("a", &known(Some("t")), &BTreeSet::from(["t".to_owned()]))
            .unwrap();
        assert_eq!(catalogued.open_registrations().unwrap().len(), 1);
        catalogued.forget_key("b", &known(Some("r")), &BTreeSet::new()).unwrap();
        assert!(catalogued.keys("b").unwrap().is_empty());
    }
}
