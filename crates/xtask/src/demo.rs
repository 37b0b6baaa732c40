//! `cargo demo`: the main job from beginning to end, in plain words, on a grid that lives as long as the demo.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::chore::{ChoreError, ended, on, output, shown, succeed};
use crate::dicom::{INVENTED, ct_slice};
use crate::workspace::Workspace;

/// The key of the demo.
const KEY_ID: &str = "/demo/thorax/47";
/// The store that gets killed.
const VICTIM: &str = "2";
/// What `eds-decrypt` exits with when its user may not have the key.
const NOT_ALLOWED: i32 = 77;

/// Tells the story. Whatever happens, the stores are stopped and the folder is removed, unless it is to be kept.
pub fn run(workspace: &Workspace, file: Option<&Path>, keep: bool) -> Result<(), ChoreError> {
    let original = match file {
        Some(path) => Original::named(path)?,
        None => Original::invented(),
    };
    workspace.build()?;
    let start = Instant::now();
    let mut story = Story::begin(workspace, keep)?;
    story.tell(&original)?;
    drop(story);
    say("");
    say(&format!(
        "All of it held, in {}. Next: README.md, or `cargo verify`.",
        time(start.elapsed())
    ));
    Ok(())
}

/// What gets sealed.
enum Original {
    Invented,
    Named(PathBuf),
}

impl Original {
    fn invented() -> Self {
        Self::Invented
    }

    fn named(path: &Path) -> Result<Self, ChoreError> {
        // Commands run in the demo's own folder, so the path must not depend on ours.
        path.canonicalize().map(Self::Named).map_err(on("read", path))
    }
}

struct Story {
    testgrid: PathBuf,
    grid: PathBuf,
    folder: TempDir,
    environment: BTreeMap<String, String>,
    stop: Arc<AtomicBool>,
}

impl Drop for Story {
    fn drop(&mut self) {
        // The folder's own drop comes after this one, when nothing writes into it any more.
        if let Err(error) = succeed(Command::new(&self.testgrid).arg("down").arg(&self.grid)) {
            say(&format!("the stores may still run: {error}"));
        }
    }
}

impl Story {
    fn begin(workspace: &Workspace, keep: bool) -> Result<Self, ChoreError> {
        let testgrid = workspace.program("testgrid")?;
        for program in ["hydra-keystore", "eds-key-register", "eds-encrypt", "eds-decrypt"] {
            workspace.program(program)?;
        }
        let mut folder = tempfile::Builder::new()
            .prefix("hydra-demo-")
            .tempdir()
            .map_err(on("make a folder in", &std::env::temp_dir()))?;
        folder.disable_cleanup(keep);
        if keep {
            say(&format!("Everything of this demo stays in {}", folder.path().display()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let registered = signal_hook::flag::register(signal, Arc::clone(&stop));
            registered.map_err(on("watch for signals in", folder.path()))?;
        }
        let grid = folder.path().join("grid");
        Ok(Self {
            testgrid,
            grid,
            folder,
            environment: BTreeMap::new(),
            stop,
        })
    }

    fn tell(&mut self, original: &Original) -> Result<(), ChoreError> {
        chapter("Three key stores on this machine; any two of them together give a key back, no single one can.");
        let mut up = Command::new(&self.testgrid);
        up.arg("up").arg(&self.grid).args(["--stores", "3", "--threshold", "2"]);
        self.show(&mut up)?;
        self.environment = environment(&self.grid.join("env"))?;

        chapter("Alice registers a key. It is split on her side; each store gets one share, no store gets the key.");
        self.show(&mut self.command("eds-key-register", &[KEY_ID]))?;

        let plain = self.write(original)?;
        let plain = plain.as_str();
        chapter("She seals the image. What comes out can lie anywhere.");
        self.show(&mut self.command("eds-encrypt", &[KEY_ID, plain, "scan.eds"]))?;
        self.nothing_shows(Path::new(plain))?;

        chapter("She opens it again, with all three stores up.");
        self.show(&mut self.command("eds-decrypt", &[KEY_ID, "scan.eds", "opened.dcm"]))?;
        self.same(plain, "opened.dcm")?;

        chapter(&format!(
            "Store {VICTIM} is killed (SIGKILL, no goodbye). Two are enough."
        ));
        let mut kill = Command::new(&self.testgrid);
        kill.arg("kill").arg(&self.grid).arg(VICTIM);
        self.show(&mut kill)?;
        self.show(&mut self.command("eds-decrypt", &[KEY_ID, "scan.eds", "opened-with-two.dcm"]))?;
        self.same(plain, "opened-with-two.dcm")?;

        chapter("Bob has a good certificate of the same grid, and the sealed file. The key is not his.");
        self.refused_to_bob()
    }

    fn write(&self, original: &Original) -> Result<String, ChoreError> {
        let path = match original {
            Original::Named(path) => {
                chapter(&format!("The image is the file you named: {}", path.display()));
                return Ok(path.to_string_lossy().into_owned());
            }
            Original::Invented => self.folder.path().join("scan.dcm"),
        };
        let bytes = ct_slice(&INVENTED, random_numbers()?);
        std::fs::write(&path, &bytes).map_err(on("write", &path))?;
        chapter("An image to hide: a CT slice, valid DICOM, of a patient who does not exist.");
        say(&format!(
            "    scan.dcm: {} bytes; patient {}, number {}",
            bytes.len(),
            INVENTED.name,
            INVENTED.id
        ));
        Ok("scan.dcm".to_owned())
    }

    /// Looks for pieces of the plain file in the sealed one.
    fn nothing_shows(&self, plain: &Path) -> Result<(), ChoreError> {
        let read = |path: PathBuf| std::fs::read(&path).map_err(on("read", &path));
        let plain = read(self.folder.path().join(plain))?;
        let sealed = read(self.folder.path().join("scan.eds"))?;
        let mut pieces: Vec<(String, Vec<u8>)> = Vec::new();
        for telling in [INVENTED.name, INVENTED.id, INVENTED.born, INVENTED.institution] {
            if occurs(&plain, telling.as_bytes()) {
                pieces.push((telling.to_owned(), telling.as_bytes().to_vec()));
            }
        }
        for piece in samples(&plain) {
            pieces.push(("a piece of the plain file".to_owned(), piece.to_vec()));
        }
        for (name, piece) in &pieces {
            if occurs(&sealed, piece) {
                return Err(ChoreError::NotAsPromised(format!("{name} shows in the sealed file")));
            }
        }
        say(&format!(
            "    scan.eds: {} bytes, and {} more than the plain file",
            sealed.len(),
            sealed.len() - plain.len()
        ));
        if occurs(&plain, INVENTED.name.as_bytes()) {
            say(&format!(
                "    `{}` is in the plain file: yes; in the sealed file: no",
                INVENTED.name
            ));
        }
        say(&format!(
            "    {} pieces of the plain file searched for in the sealed file: none found",
            pieces.len()
        ));
        Ok(())
    }

    fn same(&self, one: &str, other: &str) -> Result<(), ChoreError> {
        let read = |name: &str| {
            let path = self.folder.path().join(name);
            std::fs::read(&path).map_err(on("read", &path))
        };
        if read(one)? == read(other)? {
            say(&format!("    {other} is the original, byte for byte"));
            Ok(())
        } else {
            Err(ChoreError::NotAsPromised(format!("`{other}` is not what was sealed")))
        }
    }

    fn refused_to_bob(&self) -> Result<(), ChoreError> {
        let mut command = self.command("eds-decrypt", &[KEY_ID, "scan.eds", "bobs.dcm"]);
        let bob = self.environment.get("BOB_PROXY").cloned().unwrap_or_default();
        command.env("X509_USER_PROXY", bob);
        let (output, took) = self.timed(&mut command)?;
        say(&format!(
            "    $ X509_USER_PROXY=$BOB_PROXY {}    {}",
            shown(&command),
            time(took)
        ));
        if output.status.code() != Some(NOT_ALLOWED) {
            return Err(ended(&command, &output));
        }
        indented(&output.stderr);
        if self.folder.path().join("bobs.dcm").exists() {
            return Err(ChoreError::NotAsPromised("Bob was refused, but got a file".to_owned()));
        }
        say(&format!("    refused (exit code {NOT_ALLOWED}), and no file was left"));
        Ok(())
    }

    /// One of our commands, as Alice, in the demo's folder.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.grid.join("bin").join(program));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .envs(&self.environment);
        command
    }

    /// Runs a command that must succeed, and shows it with its output and time.
    fn show(&self, command: &mut Command) -> Result<(), ChoreError> {
        let (output, took) = self.timed(command)?;
        let line = shown(command).replace(&*self.grid.to_string_lossy(), "DIR");
        say(&format!("    $ {line}    {}", time(took)));
        if !output.status.success() {
            return Err(ended(command, &output));
        }
        indented(&output.stdout);
        indented(&output.stderr);
        Ok(())
    }

    fn timed(&self, command: &mut Command) -> Result<(Output, Duration), ChoreError> {
        let start = Instant::now();
        let output = output(command)?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(ChoreError::Interrupted);
        }
        Ok((output, start.elapsed()))
    }
}

/// What a shell has after sourcing the grid's file: a shell reads it, so that its quoting is the shell's.
pub(crate) fn environment(file: &Path) -> Result<BTreeMap<String, String>, ChoreError> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "set -a; . \"$0\" && env -0"]).arg(file);
    let text = succeed(&mut shell)?;
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

pub(crate) fn random_numbers() -> Result<[u128; 4], ChoreError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 64];
    let mut file = std::fs::File::open(source).map_err(on("read", source))?;
    file.read_exact(&mut bytes).map_err(on("read", source))?;
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(16)) {
        *number = bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
    }
    Ok(numbers)
}

/// Sixteen pieces of 24 bytes from all over the file; those of few different bytes could occur anywhere by chance.
fn samples(plain: &[u8]) -> Vec<&[u8]> {
    const LENGTH: usize = 24;
    let step = (plain.len() / 16).max(LENGTH);
    let pieces = plain.chunks(step).filter_map(|chunk| chunk.get(..LENGTH));
    let varied = pieces.filter(|piece| {
        let different: std::collections::BTreeSet<u8> = piece.iter().copied().collect();
        different.len() >= 8
    });
    varied.take(16).collect()
}

pub(crate) fn occurs(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else {
        return true;
    };
    let mut starts = haystack.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts.any(|(at, _)| haystack[at + 1..].starts_with(rest))
}

pub(crate) fn chapter(text: &str) {
    say("");
    say(text);
}

pub(crate) fn indented(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        say(&format!("      {line}"));
    }
}

pub(crate) fn say(line: &str) {
    println!("{line}");
}

pub(crate) fn time(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_at_the_start_in_the_middle_and_at_the_end_only_where_they_are() {
        for needle in ["abc", "cde", "fgh", "h"] {
            assert!(occurs(b"abcdefgh", needle.as_bytes()), "{needle}");
        }
        assert!(!occurs(b"abcdefgh", b"ghi"));
        assert!(!occurs(b"", b"a"));
    }

    #[test]
    fn samples_are_varied_pieces_of_the_file() {
        let file = ct_slice(&INVENTED, [1, 2, 3, 4]);
        let pieces = samples(&file);
        assert!(pieces.len() >= 8 && pieces.iter().all(|piece| occurs(&file, piece)));
        assert!(samples(&[0; 100_000]).is_empty());
    }
}
