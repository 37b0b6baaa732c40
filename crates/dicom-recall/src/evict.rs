//! Taking files away again from a folder that the daemon itself fills: what was not read for long, and the least
//! recently read where there is too much. They can be recalled at any time, with the same bytes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::config::Evict;
use crate::database::{DatabaseError, now_ms};
use crate::destination::Folder;
use crate::queue::{Queue, State};
use crate::registry::Registry;

/// How many files are taken away after another look.
const LOOKED_AT_AGAIN: usize = 16;

/// A file that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    name: String,
    bytes: u64,
    /// When it was last read or written, in seconds since 1970.
    used_at: i64,
}

/// Which of these go, by the rules.
fn choose(mut candidates: Vec<Candidate>, rules: Evict, now: i64) -> Vec<Candidate> {
    candidates.sort_by(|one, other| (one.used_at, &one.name).cmp(&(other.used_at, &other.name)));
    let mut left: u64 = candidates.iter().map(|one| one.bytes).sum();
    let mut goes = |one: &Candidate| {
        let idle = u64::try_from(now.saturating_sub(one.used_at)).unwrap_or(0);
        let is_old = rules.after_s.is_some_and(|after| idle > after);
        let is_over = rules.most_bytes.is_some_and(|most| left > most);
        if is_old || is_over {
            left = left.saturating_sub(one.bytes);
        }
        is_old || is_over
    };
    candidates.retain(|one| goes(one));
    candidates
}

/// Takes away what the rules say. What somebody waits for stays.
///
/// # Errors
/// [`DatabaseError`]
pub fn by_rules(folder: &Folder, registry: &dyn Registry, queue: &Queue, rules: Evict) -> Result<(), DatabaseError> {
    if rules == Evict::default() {
        return Ok(());
    }
    let wanted = queue.open_names()?;
    let idle = registry.on_disk()?.into_iter().filter(|name| !wanted.contains(name));
    let candidate = |name: String| {
        let metadata = std::fs::symlink_metadata(folder.path(&name)).ok()?;
        Some(Candidate {
            name,
            bytes: metadata.len(),
            used_at: metadata.atime().max(metadata.mtime()),
        })
    };
    let candidates: Vec<Candidate> = idle.filter_map(candidate).collect();
    for some in choose(candidates, rules, now_ms() / 1000).chunks(LOOKED_AT_AGAIN) {
        // looking at all of a slow folder takes its time: what was asked for or read since stays
        let wanted = queue.open_names()?;
        let is_idle = |one: &&Candidate| {
            let now = std::fs::symlink_metadata(folder.path(&one.name));
            !wanted.contains(&one.name) && now.is_ok_and(|now| now.atime().max(now.mtime()) <= one.used_at)
        };
        let names: Vec<String> = some.iter().filter(is_idle).map(|one| one.name.clone()).collect();
        take_away(folder, registry, &names)?;
    }
    Ok(())
}

/// Takes these away, whoever wants them; answers which were there.
///
/// # Errors
/// [`DatabaseError`]
pub fn take_away(folder: &Folder, registry: &dyn Registry, names: &[String]) -> Result<Vec<String>, DatabaseError> {
    let mut gone = Vec::new();
    for name in names {
        let path = folder.path(name);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            _ => continue,
        }
        match std::fs::remove_file(&path) {
            Ok(()) => gone.push(name.clone()),
            Err(error) => tracing::warn!(name, reason = %error, "cannot be taken away"),
        }
    }
    registry.set_on_disk(&gone, false)?;
    for name in &gone {
        tracing::info!(name, "evicted");
    }
    metrics::counter!("recall_evicted_total").increment(gone.len() as u64);
    Ok(gone)
}

/// Removes what a dead process left of files that never got their names, on file systems that know no files without
/// names: whatever nobody wrote to for so long. Answers how many that were.
pub fn remove_leftovers(root: &Path, older_than: Duration) -> usize {
    let mut removed = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if is_leftover(&entry.file_name().to_string_lossy()) {
                let idle = metadata.modified().ok().and_then(|at| at.elapsed().ok());
                let is_old = idle.is_some_and(|idle| idle > older_than);
                removed += usize::from(is_old && std::fs::remove_file(entry.path()).is_ok());
            }
        }
    }
    removed
}

/// Whether a name is one that unfinished files have.
fn is_leftover(name: &str) -> bool {
    let drawn = name.strip_prefix(".eds-").and_then(|rest| rest.strip_suffix(".part"));
    drawn.is_some_and(|drawn| drawn.len() == 16 && drawn.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The names among these for which somebody waits.
pub(crate) fn in_use(queue: &Queue, names: &[String]) -> Result<Vec<String>, DatabaseError> {
    let requests = queue.of(names)?;
    let running = requests.into_iter().filter(|one| one.state == State::Running);
    Ok(running.map(|one| one.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(after_s: Option<u64>, most_bytes: Option<u64>) -> String {
        chosen_at(100, after_s, most_bytes)
    }

    fn chosen_at(now: i64, after_s: Option<u64>, most_bytes: Option<u64>) -> String {
        let candidate = |name: &str, bytes, used_at| Candidate {
            name: name.to_owned(),
            bytes,
            used_at,
        };
        let all = vec![
            candidate("new", 10, 90),
            candidate("old", 10, 10),
            candidate("middle", 10, 50),
        ];
        let chosen = choose(all, Evict { after_s, most_bytes }, now);
        chosen.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn leftovers_go_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("eds/1");
        std::fs::create_dir_all(&inner).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(1000);
        let make = |name: &str, is_old: bool| {
            let file = std::fs::File::create(inner.join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        };
        make(".eds-0123456789abcdef.part", true);
        make(".eds-0123456789abcde0.part", false);
        make(".eds-x.part", true);
        make("image.dcm.eds", true);
        assert_eq!(remove_leftovers(folder.path(), Duration::from_secs(500)), 1);
        assert!(!inner.join(".eds-0123456789abcdef.part").exists());
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 3);
    }

    #[test]
    fn the_least_recently_read_go_first_and_no_more_than_must() {
        assert_eq!(chosen(None, None), "");
        assert_eq!(chosen(Some(60), None), "old");
        assert_eq!(chosen(Some(0), None), "old middle new");
        assert_eq!(chosen(None, Some(30)), "");
        assert_eq!(chosen(None, Some(29)), "old");
        assert_eq!(chosen(Some(60), Some(15)), "old middle");
        assert_eq!(chosen(None, Some(0)), "old middle new");
        // a clock that was put back makes nothing old
        assert_eq!(chosen_at(20, Some(5), None), "old");
        assert_eq!(chosen_at(-1000, Some(5), None), "");
    }
}
