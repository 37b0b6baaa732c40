//! `dicom-recall now`: one shot, without a daemon.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dicom_deid::Profile;
use dicom_net::{Found, Uid, Wanted};
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::output::counted;
use hydra_cli::progress::Progress;
use hydra_cli::signals::on_signal;
use hydra_cli::{Code, Failure};
use hydra_core::sealed;
use serde_json::json;

use crate::config::{Config, ConfigError};
use crate::destination::{Expected, Folder};
use crate::engine::{Done, Item, Recall, Series, Settled, Teller, Tools, Waiting, worse};
use crate::errors::chain;
use crate::keys::Keys;
use crate::names::{Ids, Template, key_name};
use crate::pipeline::{InstanceError, Target};
use crate::source::{Source, SourceError};
use crate::{Now, secret};

/// A configuration that cannot be used, as a failure.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub fn config_failure(error: ConfigError) -> Failure {
    Failure::new(Code::Config, error)
}

/// `dicom-recall now`.
///
/// # Errors
/// What was in the way of all, or the worst of what happened to single instances after the others were placed.
pub fn now(args: &Now) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let wanted = wanted(&args.what)?;
    let mut config = Config::read(&args.config).map_err(config_failure)?;
    if let Some(key_per) = args.key_per {
        config.names = Template::parse(&config.name_text, key_per)
            .map_err(|error| Failure::new(Code::Usage, error).advise("`name` under [seal] in the configuration"))?;
        config.key_per = key_per;
    }
    if !args.dir.is_dir() {
        let text = format!("`{}` is no folder to put files into", args.dir.display());
        return Err(Failure::new(Code::CannotCreate, text));
    }
    if args
        .private_out
        .as_ref()
        .is_some_and(|path| dicom_deid::is_inside(path, &args.dir))
    {
        return Err(hydra_cli::command::usage_error(
            "the private half must not be where the sealed files go",
        ));
    }
    let private = args.private_out.as_deref().map(private_file).transpose()?;
    let session = Arc::new(Session::open(&args.stores)?);
    let secret = secret::secret(&session, &config.secret)?;
    let profile = Profile::new(config.deid.clone(), &secret);
    drop(secret);
    let source = Source::open(&config.pacs)?;
    source.listen()?;
    let found = source.find(&wanted)?;
    if found.is_empty() {
        return Err(nothing_found(&source));
    }
    let _cleaning = on_signal(sealed::remove_temporary_files).ok();
    let keys = Keys::lasting(Arc::clone(&session), voice);
    let folder = Folder::new(&args.dir, args.force, false);
    let is_silent = args.manners.verbosity.quiet || args.manners.json;
    let items: Vec<Item> = found
        .iter()
        .map(|found| item(&config, &profile, &wanted, found))
        .collect();
    let told = Told {
        voice,
        folder: &folder,
        private: private.map(Mutex::new),
        names: items.iter().map(|item| item.target.name.clone()).collect(),
        counts: Mutex::default(),
        bar: Progress::count("instances", found.len() as u64, is_silent),
    };
    let (waiting, cancel) = (Waiting::default(), AtomicBool::new(false));
    let tools = Tools {
        profile: &profile,
        keys: &keys,
        destination: &folder,
        waiting: &waiting,
        cancel: &cancel,
    };
    let recall = Recall::new(tools, &told, items);
    if !args.force {
        refuse_existing(&recall, &folder);
    }
    let ran = recall.run(&source, &wanted.study, &series(&wanted, &found), args.attempts);
    drop(recall);
    let all = found.len();
    let counts = told.end();
    let used = keys.used();
    ran?;
    voice.result(&format!(
        "placed {} of {} under {}",
        counts.placed,
        counted(all, "instance"),
        counted(used, "key")
    ))?;
    match counts.worst {
        None => {
            voice.hint("open one with: eds-decrypt FILE OUT");
            Ok(())
        }
        Some(code) => {
            let text = format!("{} of {} not placed", all - counts.placed, counted(all, "instance"));
            Err(Failure::new(code, text))
        }
    }
}

/// What is there already is told before the PACS is asked for it.
fn refuse_existing(recall: &Recall<'_>, folder: &Folder) {
    let there = |item: &Item| std::fs::symlink_metadata(folder.path(&item.target.name)).is_ok();
    let numbered = recall.items().iter().enumerate();
    let existing = numbered.filter(|(_, item)| there(item));
    recall.settle(
        existing
            .map(|(number, _)| (number, Err(InstanceError::Exists)))
            .collect(),
    );
}

fn series(wanted: &Wanted, found: &[Found]) -> Vec<Series> {
    let mut series: BTreeMap<&Uid, Vec<usize>> = BTreeMap::new();
    for (number, one) in found.iter().enumerate() {
        series.entry(&one.series).or_default().push(number);
    }
    let of = |(series, items): (&Uid, Vec<usize>)| Series {
        series: series.clone(),
        items,
        // never more than was asked for
        is_whole: wanted.instances.is_empty(),
    };
    series.into_iter().map(of).collect()
}

/// That the PACS has nothing of what is meant.
pub(crate) fn nothing_found(source: &Source) -> Failure {
    let text = format!("{} has nothing of what was asked for", source.peer());
    Failure::new(Code::Io, text).advise("the identifiers, and whether the PACS lets our title see them")
}

/// Reads `STUDY[/SERIES[/INSTANCE]]`.
pub fn wanted(text: &str) -> Result<Wanted, Failure> {
    let parts: Result<Vec<Uid>, _> = text.split('/').map(Uid::new).collect();
    let usage = |error: String| hydra_cli::command::usage_error(format!("`{text}`: {error}"));
    let mut parts = parts.map_err(|error| usage(error.to_string()))?.into_iter();
    let (study, series, instance) = (parts.next(), parts.next(), parts.next());
    match (study, parts.next()) {
        (Some(study), None) => Ok(Wanted {
            study,
            series,
            instances: instance.into_iter().collect(),
        }),
        _ => Err(usage("not STUDY, STUDY/SERIES or STUDY/SERIES/INSTANCE".to_owned())),
    }
}

/// For nobody but its owner, and never one that is there.
fn private_file(path: &Path) -> Result<File, Failure> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| {
        let text = format!("cannot make `{}`", path.display());
        Failure::new(Code::CannotCreate, eds::failure::Because::new(text, error))
    })
}

fn item(config: &Config, profile: &Profile, wanted: &Wanted, found: &Found) -> Item {
    let original = Ids {
        study: wanted.study.to_string(),
        series: found.series.to_string(),
        instance: found.instance.to_string(),
    };
    let new = Ids {
        study: profile.uid(&original.study),
        series: profile.uid(&original.series),
        instance: profile.uid(&original.instance),
    };
    let name = config.names.name(&new, &original);
    Item {
        instance: found.instance.clone(),
        class: found.class.clone(),
        key: key_name(&name, config.key_per).to_owned(),
        target: Target { name, new },
        expected: Expected::default(),
    }
}

#[derive(Default)]
struct Counts {
    placed: usize,
    failed: usize,
    worst: Option<Code>,
}

/// Tells the user.
struct Told<'a> {
    voice: Voice,
    folder: &'a Folder,
    private: Option<Mutex<File>>,
    names: Vec<String>,
    counts: Mutex<Counts>,
    bar: Progress,
}

impl Teller for Told<'_> {
    fn settled(&self, done: Vec<Settled>) -> Result<(), Failure> {
        for (number, result) in done {
            match result {
                Ok(done) => self.placed(&self.names[number], &done)?,
                Err(error) => self.failed(&self.names[number], &error)?,
            }
        }
        Ok(())
    }

    fn strange(&self, count: usize) {
        self.voice.warning(&format!(
            "the PACS sent {count} instances that nobody asked for; they were refused"
        ));
    }

    fn again(&self, error: &SourceError) {
        self.voice.warning(&format!("{error}, asking again"));
    }

    fn broke(&self, error: SourceError) {
        let failure = Failure::from(error);
        let mut counts = self.counts();
        counts.worst = Some(worse(counts.worst, failure.code));
        drop(counts);
        let _ = hydra_cli::exit(Err(failure));
    }
}

impl Told<'_> {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(self) -> Counts {
        self.counts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts();
        count(&mut counts);
        self.bar.set((counts.placed + counts.failed) as u64);
    }

    fn placed(&self, name: &str, done: &Done) -> Result<(), Failure> {
        if let Some(private) = &self.private {
            let mut line = json!({ "name": name });
            line["private"] = done.deid.to_private_json();
            let mut file = private.lock().unwrap_or_else(PoisonError::into_inner);
            let written = writeln!(file, "{line}");
            written.map_err(|error| {
                Failure::new(
                    Code::Io,
                    eds::failure::Because::new("cannot write the private half", error),
                )
            })?;
        }
        for flag in &done.deid.flags {
            self.voice.warning(&format!("`{name}` should be looked at: {flag}"));
        }
        self.count(|counts| counts.placed += 1);
        self.voice.json(&json!({
            "state": "placed",
            "name": name,
            "file": self.folder.path(name).to_string_lossy(),
            "key_id": done.key.key_id.as_str(),
            "registration_id": done.key.registration_id.to_string(),
            "plaintext_bytes": done.plaintext_bytes,
            "file_bytes": done.file_bytes,
            "deid": done.deid.to_json(),
        }))
    }

    fn failed(&self, name: &str, error: &InstanceError) -> Result<(), Failure> {
        let code = error.code();
        self.count(|counts| {
            counts.failed += 1;
            counts.worst = Some(worse(counts.worst, code));
        });
        let text = chain(error);
        self.voice.warning(&format!("`{name}`: {text}"));
        self.voice.json(&json!({
            "state": "failed",
            "name": name,
            "error": text,
            "code": code as u8,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_one_to_three_identifiers() {
        let uids = |text: &str| wanted(text).map(|wanted| (wanted.series.is_some(), wanted.instances.len()));
        assert_eq!(uids("1.2").unwrap(), (false, 0));
        assert_eq!(uids("1.2/1.3").unwrap(), (true, 0));
        assert_eq!(uids("1.2/1.3/1.4").unwrap(), (true, 1));
        for bad in ["", "/", "1.2/", "1/2/3/4", "../etc", "1.2/..", "1.a"] {
            assert_eq!(uids(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }
}
