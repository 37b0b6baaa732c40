//! `cargo demo --story`: the whole way of an image, from a PACS to a researcher and out of the world again: registered
//! without being copied, found by what it shows, recalled when somebody wants it, refused to whoever has no right,
//! traced back to its patient by the hospital, and withdrawn.

use std::process::Command;
use std::time::Instant;

use crate::chore::{ChoreError, on, output};
use crate::demo::occurs;
use crate::demo_pacs::{Ports, Story, needed};
use crate::dicom::INVENTED;
use crate::scene::{chapter, say, time};
use crate::workspace::Workspace;

/// What our commands exit with where their user may not.
const NOT_ALLOWED: i32 = 77;
/// The collection.
const IMAGES: &str = "/myvo/images";
/// What the researcher looks for.
const QUERY: &str = "modality = 'CT' AND body_part = 'CHEST' AND age_group = '65-69' ORDER BY instance_uid";
/// Slices of the study.
const SLICES: u128 = 3;
const PROGRAMS: &[&str] = &["hydra-keystore", "mdm-catalog", "mdm", "dicom-recall", "eds-decrypt"];

/// Tells the story, with programs that were built now.
///
/// # Errors
/// What did not go as promised.
pub fn run(workspace: &Workspace, keep: bool) -> Result<(), ChoreError> {
    needed()?;
    workspace.build()?;
    tell(workspace, keep)
}

/// Tells the story with the programs that are there.
///
/// # Errors
/// What did not go as promised.
pub fn tell(workspace: &Workspace, keep: bool) -> Result<(), ChoreError> {
    let start = Instant::now();
    let mut story = Story::begin(workspace, PROGRAMS, SLICES, keep)?;
    story.whole()?;
    drop(story);
    say("");
    say(&format!(
        "All of it held, in {}. Next: docs/src/tutorial-story.md.",
        time(start.elapsed())
    ));
    Ok(())
}

impl Story {
    fn whole(&mut self) -> Result<(), ChoreError> {
        let ports = Ports::free()?;
        chapter("A hospital: a PACS (Orthanc) with a CT series of a patient who does not exist.");
        self.orthanc(&ports)?;
        let study = self.study(&ports)?;
        chapter("Three key stores, any two of which give a key back, and a catalogue. Alice is the hospital's.");
        self.scene.up()?;
        self.configure(&ports)?;
        self.configure_catalog(&ports)?;
        self.collection()?;

        chapter("Alice registers the study: headers are read, names, halves and a key are made. Nothing is copied.");
        let config = self.scene.path("recall.toml").to_string_lossy().into_owned();
        let register = ["--config", &config, "--into", IMAGES, &study];
        self.scene.show(&mut self.mdm("mdm-register", &register))?;
        chapter("Registering it again changes nothing: the same names, the same key.");
        let again = self.scene.show(&mut self.mdm("mdm-register", &register))?;
        promised(
            again.contains("registered 0 images"),
            "registering again made something new",
        )?;
        self.scene
            .show(&mut self.mdm("mdm-register", &["--config", &config, "--list"]))?;

        chapter("Beside the storage element (XRootD): an agent without a key, and a line to the hospital's daemon.");
        self.start_recall()?;
        self.xrootd(&ports)?;
        let names = self.names()?;
        self.wait_until_listed(&names, &ports)?;
        self.is_empty(&names)?;

        chapter("Bob is a researcher of the VO. Nobody gave him anything yet.");
        let find = [
            "--columns",
            "name,modality,body_part,age_group,study_year",
            IMAGES,
            QUERY,
        ];
        self.scene
            .refused("BOB_PROXY", &mut self.mdm("mdm-find", &find), NOT_ALLOWED)?;
        chapter("Alice gives his group names, anonymous halves and keys, in one go. The identifying halves stay hers.");
        let grant = ["-R", "-m", "/myvo/researchers:lrg", IMAGES];
        self.scene.show(&mut self.mdm("mdm-setacl", &grant))?;
        chapter("Bob finds images by what they show.");
        let found = self.scene.show_as("BOB_PROXY", &mut self.mdm("mdm-find", &find))?;
        let paths = paths(&found);
        promised(paths.len() == names.len(), "bob did not find every image")?;
        self.asks_for_the_patient(&paths[0])?;

        chapter("Bob gets the first image. It is fetched, de-identified, sealed, placed and opened meanwhile.");
        let first = self.timed_get("first", &paths[0])?;
        chapter("And once more: now it is on the storage element's disk.");
        let second = self.timed_get("second", &paths[0])?;
        say(&format!("    {} then, {} now", time(first), time(second)));
        self.is_told_online(&paths[0])?;
        chapter("And all of them, by the query.");
        let get = ["--query", QUERY, "--from", IMAGES, "all"];
        self.scene.show_as("BOB_PROXY", &mut self.mdm("mdm-get", &get))?;
        self.is_nobodys("first")?;

        chapter("Carol is no member of the VO: refused by the catalogue, and by the key stores.");
        self.carol(&paths[0], &names[0], &ports)?;

        chapter("The hospital may know whose image it is.");
        let told = self.scene.show(&mut self.mdm("mdm-show", &["--identify", &paths[0]]))?;
        promised(
            told.contains(INVENTED.name) && told.contains(INVENTED.id),
            "the patient is not told",
        )?;

        chapter("The patient withdraws. First what would go, then all of it.");
        let withdraw = ["--from", IMAGES, "--config", &config, INVENTED.id];
        let dry: Vec<&str> = ["--dry-run"].into_iter().chain(withdraw).collect();
        self.scene.show(&mut self.mdm("mdm-withdraw", &dry))?;
        let yes: Vec<&str> = ["--yes"].into_iter().chain(withdraw).collect();
        self.scene.show(&mut self.mdm("mdm-withdraw", &yes))?;
        chapter("Bob finds nothing any more, and the sealed copy that Carol has opens to nobody.");
        let left = self
            .scene
            .show_as("BOB_PROXY", &mut self.mdm("mdm-find", &["--count", IMAGES]))?;
        promised(left.trim() == "0", "something is found still")?;
        let mut open = self.scene.own("eds-decrypt", &["carols.eds", "late.dcm"]);
        self.scene.refused("BOB_PROXY", &mut open, NOT_ALLOWED)?;
        self.wait("the bytes to go", |story| {
            Ok(names
                .iter()
                .all(|name| !story.scene.path("se").join(&name[1..]).exists()))
        })?;
        say("    and the storage element's disk has none of it");
        chapter("What storage element, agent and catalogue have on disk, looked through for the patient.");
        self.names_nobody_beside(&[self.scene.grid.join("catalog")])
    }

    /// One of the catalogue's commands.
    fn mdm(&self, name: &str, arguments: &[&str]) -> Command {
        self.scene.own(name, arguments)
    }

    fn configure_catalog(&self, ports: &Ports) -> Result<(), ChoreError> {
        let path = self.scene.path("recall.toml");
        let text = std::fs::read_to_string(&path).map_err(on("read", &path))?;
        let url = self.scene.variable("MDM_CATALOG");
        let door = format!("root://localhost:{}", ports.root);
        let text = format!("{text}[catalog]\nurl = \"{url}\"\ndoors = [\"{door}\"]\n");
        std::fs::write(&path, text).map_err(on("write", &path))
    }

    fn collection(&self) -> Result<(), ChoreError> {
        self.scene.show(&mut self.mdm("mdm-mkdir", &["--parents", IMAGES]))?;
        self.scene
            .show(&mut self.mdm("mdm-schema", &["--images", IMAGES]))
            .map(drop)
    }

    /// Nothing was copied.
    fn is_empty(&self, names: &[String]) -> Result<(), ChoreError> {
        let is_there = |name: &String| self.scene.path("se").join(&name[1..]).exists();
        promised(
            !names.iter().any(is_there),
            "an image is on the storage element already",
        )?;
        say(&format!("    {} files are known there, and none is there", names.len()));
        Ok(())
    }

    fn asks_for_the_patient(&self, path: &str) -> Result<(), ChoreError> {
        chapter("He asks for the patient: there is no such attribute, and nobody to be shown.");
        let query = format!("patient_id = '{}'", INVENTED.id);
        let mut find = self.mdm("mdm-find", &[IMAGES, &query]);
        let known = self.failed_as_bob(&mut find)?;
        let mut find = self.mdm("mdm-find", &[IMAGES, "shoe_sizes = '47'"]);
        let unknown = self.failed_as_bob(&mut find)?;
        let same = known.replace("patient_id", "_") == unknown.replace("shoe_sizes", "_");
        promised(
            same,
            "an identifying attribute is refused otherwise than one that there is not",
        )?;
        let mut show = self.mdm("mdm-show", &["--identify", path]);
        self.scene.refused("BOB_PROXY", &mut show, NOT_ALLOWED)
    }

    /// What somebody reads who is refused; without what was typed.
    fn failed_as_bob(&self, command: &mut Command) -> Result<String, ChoreError> {
        command.env("X509_USER_PROXY", self.scene.variable("BOB_PROXY"));
        let output = output(command)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        promised(!output.status.success(), "a question about the patient was answered")?;
        for line in text.lines() {
            say(&format!("      {line}"));
        }
        Ok(text.replace(INVENTED.id, "47"))
    }

    fn timed_get(&self, folder: &str, path: &str) -> Result<std::time::Duration, ChoreError> {
        let start = Instant::now();
        self.scene
            .show_as("BOB_PROXY", &mut self.mdm("mdm-get", &[path, folder]))?;
        Ok(start.elapsed())
    }

    /// The daemon told the catalogue what it made.
    fn is_told_online(&self, path: &str) -> Result<(), ChoreError> {
        self.wait("the catalogue to be told", |story| {
            let told = output(&mut story.mdm("mdm-show", &[path]))?;
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            Ok(told.contains("online") && told.contains("sha256"))
        })?;
        say("    the catalogue says by now: online, with size and digest");
        Ok(())
    }

    /// An image that came is the one in the PACS, and names nobody.
    fn is_nobodys(&self, folder: &str) -> Result<(), ChoreError> {
        let path = self.scene.path(folder);
        let entries = std::fs::read_dir(&path).map_err(on("read", &path))?;
        let files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        promised(files.len() == 1, "not one image came")?;
        let (new, old) = (self.scene.read(&files[0])?, self.scene.read("0.dcm")?);
        let telling = [INVENTED.name, INVENTED.id, INVENTED.institution];
        promised(
            !telling.iter().any(|text| occurs(&new, text.as_bytes())),
            "the patient shows",
        )?;
        let pixels = old.len().saturating_sub(512 * 512 * 2);
        promised(occurs(&new, &old[pixels..]), "the pixels are others")?;
        say("    its pixels are those in the PACS, and it names nobody");
        Ok(())
    }

    fn carol(&self, path: &str, name: &str, ports: &Ports) -> Result<(), ChoreError> {
        let mut find = self.mdm("mdm-find", &[IMAGES, "modality = 'CT'"]);
        self.scene.refused("CAROL_PROXY", &mut find, NOT_ALLOWED)?;
        let mut get = self.mdm("mdm-get", &[path, "carols"]);
        self.scene.refused("CAROL_PROXY", &mut get, NOT_ALLOWED)?;
        let url = format!("root://localhost:{}/{name}", ports.root);
        let mut copy = self.scene.command("xrdcp", &["--silent", &url, "carols.eds"]);
        self.scene.show_as("CAROL_PROXY", copy.env("XRD_LOGLEVEL", "Error"))?;
        let mut open = self.scene.own("eds-decrypt", &["carols.eds", "carols.dcm"]);
        self.scene.refused("CAROL_PROXY", &mut open, NOT_ALLOWED)
    }
}

fn promised(is_so: bool, otherwise: &str) -> Result<(), ChoreError> {
    if is_so {
        Ok(())
    } else {
        Err(ChoreError::NotAsPromised(otherwise.to_owned()))
    }
}

/// The first column of a table, without its head.
fn paths(table: &str) -> Vec<String> {
    let first = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    table.lines().skip(1).map(first).collect()
}
