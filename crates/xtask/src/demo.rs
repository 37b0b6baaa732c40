//! `cargo demo`: the main job from beginning to end, in plain words, on a grid that lives as long as the demo.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::chore::{ChoreError, on};
use crate::dicom::{INVENTED, ct_slice};
use crate::scene::{Scene, chapter, say, time};
use crate::workspace::Workspace;

/// The key of the demo.
const KEY_ID: &str = "/demo/thorax/47";
/// The store that gets killed.
const VICTIM: &str = "2";

/// Tells the story. Whatever happens, the stores are stopped and the folder is removed, unless it is to be kept.
pub fn run(workspace: &Workspace, file: Option<&Path>, keep: bool) -> Result<(), ChoreError> {
    let original = match file {
        Some(path) => Original::named(path)?,
        None => Original::invented(),
    };
    workspace.build()?;
    let start = Instant::now();
    let scene = Scene::begin(
        workspace,
        &["hydra-keystore", "eds-key-register", "eds-encrypt", "eds-decrypt"],
        keep,
    )?;
    let mut story = Story { scene };
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
    scene: Scene,
}

impl Story {
    fn tell(&mut self, original: &Original) -> Result<(), ChoreError> {
        chapter("Three key stores on this machine; any two of them together give a key back, no single one can.");
        self.scene.up()?;

        chapter("Alice registers a key. It is split on her side; each store gets one share, no store gets the key.");
        self.scene.show(&mut self.scene.own("eds-key-register", &[KEY_ID]))?;

        let plain = self.write(original)?;
        let plain = plain.as_str();
        chapter("She seals the image. What comes out can lie anywhere.");
        self.scene
            .show(&mut self.scene.own("eds-encrypt", &[KEY_ID, plain, "scan.eds"]))?;
        self.nothing_shows(Path::new(plain))?;

        chapter("She opens it again, with all three stores up.");
        self.scene
            .show(&mut self.scene.own("eds-decrypt", &[KEY_ID, "scan.eds", "opened.dcm"]))?;
        self.same(plain, "opened.dcm")?;

        chapter(&format!(
            "Store {VICTIM} is killed (SIGKILL, no goodbye). Two are enough."
        ));
        let mut kill = self.scene.testgrid("kill");
        self.scene.show(kill.arg(VICTIM))?;
        self.scene.show(
            &mut self
                .scene
                .own("eds-decrypt", &[KEY_ID, "scan.eds", "opened-with-two.dcm"]),
        )?;
        self.same(plain, "opened-with-two.dcm")?;

        chapter("Bob has a good certificate of the same grid, and the sealed file. The key is not his.");
        self.scene.refused_to_bob(&[KEY_ID, "scan.eds"])
    }

    fn write(&self, original: &Original) -> Result<String, ChoreError> {
        let path = match original {
            Original::Named(path) => {
                chapter(&format!("The image is the file you named: {}", path.display()));
                return Ok(path.to_string_lossy().into_owned());
            }
            Original::Invented => self.scene.path("scan.dcm"),
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
        let plain = self.scene.read(plain)?;
        let sealed = self.scene.read("scan.eds")?;
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
        if self.scene.read(one)? == self.scene.read(other)? {
            say(&format!("    {other} is the original, byte for byte"));
            Ok(())
        } else {
            Err(ChoreError::NotAsPromised(format!("`{other}` is not what was sealed")))
        }
    }
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
