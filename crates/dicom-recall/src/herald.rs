//! Tells the catalogue of the daemon's work: how large a sealed file is, its digest, and whether it is at the storage
//! element. What is to be told waits in the outbox ([`crate::catalogued`]) for as long as the catalogue is away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hydra_core::keystore::wire::{Problem, ProblemKind};
use mdm_catalog::client::{CatalogClient, CatalogError};
use mdm_catalog::wire::{Answer, Change, Entry, Status};

use crate::catalogued::{Catalogued, News};
use crate::database::{DatabaseError, now_ms};
use crate::errors::chain;

/// How often the outbox is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For how long a client is held: whoever renews the credential is noticed then.
const CLIENT_FOR: Duration = Duration::from_secs(600);
/// Pauses after the catalogue gave no answer.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// How much is told at once.
const AT_ONCE: usize = 500;

/// Where news go.
pub(crate) trait Told {
    /// An answer for each.
    fn tell(&mut self, changes: &[Change]) -> Result<Vec<Answer<Entry>>, CatalogError>;
}

/// A catalogue at an address, asked with the daemon's own credential.
pub(crate) struct Catalog {
    url: String,
    client: Option<(Instant, CatalogClient)>,
}

impl Catalog {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            client: None,
        }
    }
}

impl Told for Catalog {
    fn tell(&mut self, changes: &[Change]) -> Result<Vec<Answer<Entry>>, CatalogError> {
        let held = self.client.take().filter(|(since, _)| since.elapsed() < CLIENT_FOR);
        let (since, client) = match held {
            Some(held) => held,
            None => (Instant::now(), CatalogClient::open(Some(&self.url))?),
        };
        // one that failed is not held: the credential may have been renewed since
        let answers = client.change(changes)?;
        self.client = Some((since, client));
        Ok(answers)
    }
}

/// Tells what there is to tell until it is over.
pub(crate) fn run(catalogued: &Catalogued, told: &mut dyn Told, is_over: &AtomicBool) {
    let (mut next, mut pause) = (Instant::now(), FIRST_PAUSE);
    while !is_over.load(Ordering::Acquire) {
        if Instant::now() >= next {
            match once(catalogued, told, now_ms()) {
                Ok(Outcome::More) => pause = FIRST_PAUSE,
                Ok(Outcome::Nothing) => {
                    pause = FIRST_PAUSE;
                    next = Instant::now() + LOOK;
                }
                Ok(Outcome::Silent) => {
                    next = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    tracing::error!(reason = %chain(&error), "the database cannot be used");
                    next = Instant::now() + LONGEST_PAUSE;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What came of one round.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something was told.
    More,
    /// There was nothing to tell.
    Nothing,
    /// There was no answer.
    Silent,
}

/// Tells as much as goes into one request.
pub(crate) fn once(catalogued: &Catalogued, told: &mut dyn Told, now_ms: i64) -> Result<Outcome, DatabaseError> {
    let news = catalogued.news(now_ms, AT_ONCE)?;
    if news.is_empty() {
        return Ok(Outcome::Nothing);
    }
    let changes: Vec<Change> = news.iter().map(change).collect();
    let answers = match told.tell(&changes) {
        Ok(answers) => answers,
        Err(error) => {
            tracing::warn!(reason = %chain(&error), waiting = news.len(), "the catalogue cannot be told");
            return Ok(Outcome::Silent);
        }
    };
    let (mut done, mut unknown) = (Vec::new(), Vec::new());
    for (one, answer) in news.into_iter().zip(answers) {
        match answer {
            Answer::Done(_) => done.push(one),
            Answer::Problem(problem) => {
                tracing::info!(
                    name = one.name,
                    reason = why(&problem),
                    "the catalogue does not take it"
                );
                unknown.push(one);
            }
        }
    }
    metrics::counter!("recall_catalogued_total").increment(done.len() as u64);
    catalogued.told(&done)?;
    catalogued.unknown(&unknown, now_ms)?;
    Ok(Outcome::More)
}

fn why(problem: &Problem) -> &'static str {
    match problem.kind {
        ProblemKind::NotFound => "not there, or not shown to us",
        ProblemKind::NotAllowed => "not allowed to us",
        _ => "refused",
    }
}

fn change(news: &News) -> Change {
    Change {
        path: news.path.clone(),
        size: news.size,
        sha256: news.sha256.clone(),
        status: Some(if news.on_disk { Status::Online } else { Status::Nearline }),
        ..Change::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hydra_core::ids::ChangeId;
    use hydra_core::permissions::PermissionRecord;
    use mdm_catalog::wire::{Kind, Records};

    use super::*;
    use crate::registry::tests::{Make, on_files, sample};
    use crate::registry::{LocalRegistry, Registry};

    /// A catalogue that is away, or knows some paths.
    #[derive(Default)]
    struct Fake {
        is_away: bool,
        knows: Vec<String>,
        told: Vec<Change>,
    }

    impl Told for Fake {
        fn tell(&mut self, changes: &[Change]) -> Result<Vec<Answer<Entry>>, CatalogError> {
            if self.is_away {
                return Err(CatalogError::Silent {
                    url: "https://catalogue".to_owned(),
                    reason: "gave no answer".to_owned(),
                    credential_refused: false,
                    unsent: true,
                });
            }
            let answer = |change: &Change| match self.knows.contains(&change.path) {
                true => Answer::Done(entry(&change.path)),
                false => Answer::Problem(problem()),
            };
            let answers = changes.iter().map(answer).collect();
            self.told.extend(changes.iter().cloned());
            Ok(answers)
        }
    }

    fn problem() -> Problem {
        Problem {
            kind: ProblemKind::NotFound,
            title: String::new(),
            status: 404,
            detail: None,
            retry_after_seconds: None,
        }
    }

    fn record() -> PermissionRecord {
        PermissionRecord::new("/CN=a", None, ChangeId::random().unwrap())
    }

    fn entry(path: &str) -> Entry {
        Entry {
            path: mdm_catalog::LogicalName::new(path).unwrap(),
            kind: Kind::File,
            guid: "guid:x".to_owned(),
            operation: None,
            size: None,
            adler32: None,
            sha256: None,
            key_id: None,
            status: None,
            replicas: Vec::new(),
            attributes: Default::default(),
            identifying: Vec::new(),
            created_at: String::new(),
            modified_at: String::new(),
            version: 1,
            records: Records {
                name: record(),
                anonymous: record(),
                identifying: None,
            },
        }
    }

    #[test]
    fn what_happened_while_the_catalogue_was_away_is_told_once_when_it_is_back() {
        on_files(told_once);
    }

    fn told_once(make: Make<'_>) {
        let database = make();
        let (registry, catalogued) = (LocalRegistry::new(Arc::clone(&database)), Catalogued::new(database));
        let path = "/myvo/images/11".to_owned();
        catalogued.enter("a", &[(sample(11), path.clone())]).unwrap();
        catalogued
            .enter("a", &[(sample(12), "/myvo/images/12".to_owned())])
            .unwrap();
        let mut fake = Fake {
            is_away: true,
            knows: vec![path.clone()],
            ..Fake::default()
        };
        assert_eq!(once(&catalogued, &mut fake, 0).unwrap(), Outcome::Nothing);
        let file = |number: u32| (sample(number).name, 70, "a".repeat(64));
        registry.record_placed(&[file(11), file(12)]).unwrap();
        assert_eq!(once(&catalogued, &mut fake, 0).unwrap(), Outcome::Silent);
        registry.set_on_disk(&[sample(11).name], false).unwrap();
        assert_eq!(once(&catalogued, &mut fake, 0).unwrap(), Outcome::Silent);
        assert_eq!(catalogued.untold().unwrap(), 2);
        fake.is_away = false;
        assert_eq!(once(&catalogued, &mut fake, 0).unwrap(), Outcome::More);
        let told = fake.told.iter().find(|change| change.path == path).unwrap();
        assert_eq!((told.size, told.status), (Some(70), Some(Status::Nearline)));
        assert_eq!(told.sha256, Some("a".repeat(64)));
        // what it does not know waits
        assert_eq!(catalogued.untold().unwrap(), 1);
        assert_eq!(once(&catalogued, &mut fake, 0).unwrap(), Outcome::Nothing);
    }
}
