//! `cargo bench-report`: the project and its rivals in turn, in the same run, as ratios. Nothing passes or fails by
//! time.
//!
//! Every round runs every contestant once, so that a noisy minute hits all of them; medians are compared. A rival that
//! is not installed is named, never skipped in silence.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::chore::{ChoreError, on, on_path, shown, succeed};
use crate::scene::environment;
use crate::workspace::Workspace;

/// Clock ticks of /proc/PID/stat in a second: the same on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;
/// The key of the fetch bench.
const KEY_ID: &str = "/bench/key";
/// The largest file of the report.
const LARGEST_MIB: u64 = 10 * 1024;

/// What to measure with.
#[derive(Debug, Clone, Args)]
pub struct Sizes {
    /// Size of the large file
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub large_mib: u64,
    /// How often each contestant runs on large files and series
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Measure these parts alone
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Measure the programs in this folder, such as `cargo dist` lays out, not those of daily builds
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// A large file in memory
    Large,
    /// A large file on disk
    Disk,
    /// A large file through pipes
    Pipes,
    /// Parts of a file
    Ranges,
    /// Small files
    Small,
    /// Keys from three stores
    Keys,
    /// A series out of a PACS
    Recall,
    /// The key store by itself
    Store,
}

/// Measures and prints.
pub fn run(workspace: &Workspace, sizes: &Sizes) -> Result<(), ChoreError> {
    let elsewhere = sizes
        .programs
        .as_deref()
        .map(|folder| Workspace::at(&workspace.root, folder));
    if elsewhere.is_none() {
        workspace.build()?;
    }
    let built = elsewhere.as_ref().unwrap_or(workspace);
    let programs = Programs {
        seal: built.program("eds-encrypt")?,
        open: built.program("eds-decrypt")?,
        cat: built.program("eds-cat")?,
        register: built.program("eds-key-register")?,
        recall: built.program("dicom-recall")?,
        testgrid: built.program("testgrid")?,
    };
    let is_wanted = |part: Part| sizes.only.is_empty() || sizes.only.contains(&part);
    let memory = folder_in(Path::new("/dev/shm"))?;
    let disk = folder_in(&workspace.target())?;
    println!(
        "Ratios of medians of {} rounds; every round runs every line once.",
        sizes.rounds
    );
    if is_wanted(Part::Large) {
        large(&programs, memory.path(), sizes, "page cache (tmpfs)")?;
    }
    if is_wanted(Part::Disk) {
        on_disk(&programs, disk.path(), sizes)?;
    }
    if is_wanted(Part::Pipes) {
        pipes(&programs, memory.path(), sizes)?;
    }
    if is_wanted(Part::Ranges) {
        ranges(&programs, memory.path())?;
    }
    if is_wanted(Part::Small) {
        small(&programs, memory.path())?;
    }
    if is_wanted(Part::Keys) {
        fetch(&programs, memory.path())?;
    }
    if is_wanted(Part::Recall) {
        crate::bench_recall::run(&programs, disk.path(), sizes.rounds)?;
    }
    if is_wanted(Part::Store) {
        crate::bench_store::run(workspace)?;
    }
    Ok(())
}

pub(crate) struct Programs {
    seal: PathBuf,
    open: PathBuf,
    cat: PathBuf,
    register: PathBuf,
    pub(crate) recall: PathBuf,
    pub(crate) testgrid: PathBuf,
}

fn folder_in(parent: &Path) -> Result<TempDir, ChoreError> {
    let folder = tempfile::Builder::new().prefix("hydra-bench-").tempdir_in(parent);
    folder.map_err(on("make a folder in", parent))
}

/// What one run of a program took.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    wall: Duration,
    cpu_seconds: f64,
    peak_kib: u64,
}

/// Runs a program to its end, which must be a success. Processor time is read from the ended process before it is
/// reaped, memory while it runs (its high-water mark, so that looking late costs nothing but the last moments).
fn measure(command: &mut Command) -> Result<Cost, ChoreError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().map_err(|source| ChoreError::Start {
        program: shown(command),
        source,
    })?;
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let mut peak_kib = 0;
    let (wall, cpu_seconds) = loop {
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let (state, ticks) = state_and_ticks(&stat);
        if state == 'Z' {
            break (start.elapsed(), ticks / TICKS_PER_SECOND);
        }
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        peak_kib = peak_kib.max(high_water_kib(&status));
        // Short programs are timed finely, long ones are left alone.
        let pause = (start.elapsed() / 50).clamp(Duration::from_micros(100), Duration::from_millis(5));
        std::thread::sleep(pause);
    };
    let status = child.wait().map_err(on("wait for", &folder))?;
    if !status.success() {
        return Err(ChoreError::NotAsPromised(format!(
            "`{}` ended with {status}",
            shown(command)
        )));
    }
    Ok(Cost {
        wall,
        cpu_seconds,
        peak_kib,
    })
}

/// State, and user and system time in ticks, of a line of /proc/PID/stat (proc(5)). The name in it may hold anything.
fn state_and_ticks(stat: &str) -> (char, f64) {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let state = fields.first().and_then(|field| field.chars().next()).unwrap_or('Z');
    let ticks = |number: usize| {
        fields
            .get(number)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (state, ticks(11) + ticks(12))
}

fn high_water_kib(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Contestants by name; the first is what the others are compared with.
pub(crate) struct Race<'a> {
    title: String,
    contestants: Vec<(String, Box<dyn Fn() -> Command + 'a>)>,
    absent: Vec<&'static str>,
    output: Option<PathBuf>,
}

impl<'a> Race<'a> {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            contestants: Vec::new(),
            absent: Vec::new(),
            output: None,
        }
    }

    /// What all of them write, removed before each begins: replacing a file costs as much as its bytes do, and one that
    /// writes anew and renames needs room for both, which a virtual machine may first have to ask its host for.
    fn writing(mut self, output: PathBuf) -> Self {
        self.output = Some(output);
        self
    }

    pub(crate) fn with(mut self, name: impl Into<String>, command: impl Fn() -> Command + 'a) -> Self {
        self.contestants.push((name.into(), Box::new(command)));
        self
    }

    /// A rival, if it is installed.
    fn rival(mut self, program: &'static str, name: &str, command: impl Fn() -> Command + 'a) -> Self {
        if on_path(program) {
            return self.with(name, command);
        }
        self.absent.push(program);
        self
    }

    pub(crate) fn run(self, rounds: usize, bytes: Option<u64>) -> Result<(), ChoreError> {
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); self.contestants.len()];
        for _ in 0..rounds {
            for ((_, command), costs) in self.contestants.iter().zip(&mut costs) {
                let mut command = command();
                if let Some(output) = self.output.as_deref().filter(|output| output.exists()) {
                    std::fs::remove_file(output).map_err(on("remove", output))?;
                }
                costs.push(measure(&mut command)?);
            }
        }
        println!("\n{}", self.title);
        println!(
            "  {:<44} {:>9} {:>7} {:>11} {:>8}",
            "", "wall", "ratio", "CPU s/GiB", "RSS MiB"
        );
        let reference = median(&costs[0], |cost| cost.wall.as_secs_f64());
        for ((name, _), costs) in self.contestants.iter().zip(&costs) {
            let wall = median(costs, |cost| cost.wall.as_secs_f64());
            let per_gib = bytes.map_or("-".to_owned(), |bytes| {
                let cpu = median(costs, |cost| cost.cpu_seconds);
                format!("{:.2}", cpu * (1u64 << 30) as f64 / bytes as f64)
            });
            let peak = median(costs, |cost| cost.peak_kib as f64) / 1024.0;
            println!(
                "  {name:<44} {:>6.1} ms {:>7.2} {per_gib:>11} {peak:>8.1}",
                wall * 1e3,
                wall / reference
            );
        }
        for program in self.absent {
            println!("  {program}: not installed, not measured");
        }
        Ok(())
    }
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(program: impl AsRef<std::ffi::OsStr>, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A command line for `sh`, run in `folder`.
fn shell(folder: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder);
    command
}

/// Bytes that no file system and no cipher can make shorter.
fn noise(path: &Path, bytes: u64) -> Result<(), ChoreError> {
    let mut file = File::create(path).map_err(on("make", path))?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let now = left.min(piece.len() as u64) as usize;
        file.write_all(&piece[..now]).map_err(on("write", path))?;
        left -= now as u64;
    }
    Ok(())
}

fn new_key(programs: &Programs, folder: &Path) -> Result<(), ChoreError> {
    let empty = folder.join("empty");
    noise(&empty, 0)?;
    let mut make = command(
        &programs.seal,
        &["--key-file", "key", "--new-key", "empty", "empty.eds"],
    );
    succeed(make.current_dir(folder)).map(drop)
}

/// Our sealing of `input` under a key file, in `folder`.
fn seal_line<'a>(
    programs: &'a Programs,
    folder: &'a Path,
    input: &'a str,
    output: &'a str,
) -> impl Fn() -> Command + 'a {
    move || {
        let mut seal = command(&programs.seal, &["-q", "--force", "--key-file", "key", input, output]);
        seal.current_dir(folder);
        seal
    }
}

/// The same on one processor, where it uses one thread.
fn on_one(folder: &Path, program: &Path, arguments: &[&str]) -> Command {
    let mut one = command("taskset", &["-c", "0"]);
    one.arg(program).args(arguments).current_dir(folder);
    one
}

fn large(programs: &Programs, folder: &Path, sizes: &Sizes, place: &str) -> Result<(), ChoreError> {
    let bytes = sizes.large_mib << 20;
    noise(&folder.join("large"), bytes)?;
    new_key(programs, folder)?;
    succeed(&mut seal_line(programs, folder, "large", "large.eds")())?;
    std::fs::write(folder.join("age.key"), "").map_err(on("write", folder))?;
    if on_path("age-keygen") {
        succeed(&mut shell(
            folder,
            "rm -f age.key; age-keygen -o age.key; age-keygen -y age.key > age.pub",
        ))?;
    }
    let arguments = ["-q", "--force", "--key-file", "key", "large", "large.out"];
    let sealing = Race::new(format!("Sealing {} MiB, {place}; ratio to cp", sizes.large_mib))
        .writing(folder.join("large.out"))
        .with("cp", || shell(folder, "exec cp large large.out"))
        .with("eds-encrypt", seal_line(programs, folder, "large", "large.out"))
        .with("eds-encrypt, one processor", || {
            on_one(folder, &programs.seal, &arguments)
        })
        .rival("openssl", "openssl enc -aes-256-ctr (no authentication)", || {
            shell(
                folder,
                "exec openssl enc -aes-256-ctr -K 00 -iv 00 -in large -out large.out",
            )
        })
        .rival("age", "age -r", || {
            shell(folder, "exec age -r \"$(cat age.pub)\" -o large.out large")
        })
        .rival("gpg", "gpg -c (AES-256)", || {
            shell(
                folder,
                "exec gpg --homedir . --batch --yes --passphrase x --pinentry-mode loopback --compress-algo none \
                 --cipher-algo AES256 -o large.out -c large",
            )
        });
    sealing.run(sizes.rounds, Some(bytes))?;
    let arguments = ["-q", "--force", "--key-file", "key", "large.eds", "large.out"];
    let opening = Race::new(format!("Opening {} MiB, {place}; ratio to cp", sizes.large_mib))
        .writing(folder.join("large.out"))
        .with("cp", || shell(folder, "exec cp large large.out"))
        .with("eds-decrypt", || {
            let mut open = command(&programs.open, &arguments);
            open.current_dir(folder);
            open
        })
        .with("eds-decrypt, one processor", || {
            on_one(folder, &programs.open, &arguments)
        });
    opening.run(sizes.rounds, Some(bytes))
}

fn on_disk(programs: &Programs, folder: &Path, sizes: &Sizes) -> Result<(), ChoreError> {
    let bytes = sizes.large_mib << 20;
    noise(&folder.join("large"), bytes)?;
    new_key(programs, folder)?;
    Race::new(format!(
        "Sealing {} MiB to disk, flushed; ratio to cp and sync",
        sizes.large_mib
    ))
    .writing(folder.join("large.out"))
    .with("cp, then sync of that file", || {
        shell(folder, "cp large large.out && exec sync large.out")
    })
    .with("eds-encrypt", seal_line(programs, folder, "large", "large.out"))
    .run(sizes.rounds, Some(bytes))
}

fn pipes(programs: &Programs, folder: &Path, sizes: &Sizes) -> Result<(), ChoreError> {
    let seal = programs.seal.display();
    Race::new(format!("Sealing {} MiB through pipes; ratio to files", sizes.large_mib))
        .writing(folder.join("large.out"))
        .with("eds-encrypt, files", seal_line(programs, folder, "large", "large.out"))
        .with("cat | eds-encrypt - - | cat", || {
            shell(
                folder,
                &format!("cat large | '{seal}' -q --key-file key - - | cat > large.out"),
            )
        })
        .with("cat | cat", || shell(folder, "cat large | cat > large.out"))
        .run(sizes.rounds, None)
}

/// A piece in the middle of a small and of a very large file.
fn ranges(programs: &Programs, folder: &Path) -> Result<(), ChoreError> {
    const MIB: u64 = 1 << 20;
    let sealed = |name: &str, bytes: u64| {
        let plain = folder.join("sparse");
        let file = File::create(&plain).map_err(on("make", &plain))?;
        file.set_len(bytes).map_err(on("make", &plain))?;
        succeed(&mut seal_line(programs, folder, "sparse", name)())
    };
    sealed("few.eds", 2 * MIB)?;
    sealed("many.eds", LARGEST_MIB * MIB)?;
    let of = |name: &'static str, first: u64| {
        move || {
            let range = format!("{first}-{}", first + MIB - 1);
            let mut cat = command(&programs.cat, &["--key-file", "key", "--range", &range, name]);
            cat.current_dir(folder);
            cat
        }
    };
    Race::new("Reading 1 MiB in the middle; ratio to a small file")
        .with("eds-cat --range, file of 2 MiB", of("few.eds", MIB / 2))
        .with(
            format!("eds-cat --range, file of {} GiB", LARGEST_MIB / 1024),
            of("many.eds", LARGEST_MIB / 2 * MIB),
        )
        .run(31, None)?;
    let many = folder.join("many.eds");
    std::fs::remove_file(&many).map_err(on("remove", &many))
}

fn small(programs: &Programs, folder: &Path) -> Result<(), ChoreError> {
    noise(&folder.join("slice"), 512 << 10)?;
    Race::new("A process for each file of 512 KiB; ratio to cp")
        .with("cp", || shell(folder, "exec cp slice slice.out"))
        .with("true", || shell(folder, "exec true"))
        .with("eds-encrypt", seal_line(programs, folder, "slice", "slice.out"))
        .rival("openssl", "openssl enc -aes-256-ctr", || {
            shell(
                folder,
                "exec openssl enc -aes-256-ctr -K 00 -iv 00 -in slice -out slice.out",
            )
        })
        .rival("age", "age -r", || {
            shell(folder, "exec age -r \"$(cat age.pub)\" -o slice.out slice")
        })
        .run(31, None)?;
    let slices = folder.join("slices");
    std::fs::create_dir(&slices).map_err(on("make", &slices))?;
    for number in 0..200 {
        let slice = slices.join(format!("slice{number}"));
        std::fs::copy(folder.join("slice"), &slice).map_err(on("write", &slice))?;
    }
    let seal = programs.seal.display();
    Race::new("200 files of 512 KiB in one process (divide by 200 for a file); ratio to cp")
        .with("cp -r", || shell(folder, "rm -rf out; exec cp -r slices out"))
        .with("eds-encrypt --out-dir", || {
            shell(
                folder,
                &format!("rm -rf out; mkdir out; exec '{seal}' -q --key-file key --out-dir out slices/*"),
            )
        })
        .rival("age", "tar | age -r", || {
            shell(
                folder,
                "rm -rf out; tar c slices | age -r \"$(cat age.pub)\" -o slice.out",
            )
        })
        .run(7, None)
}

fn fetch(programs: &Programs, folder: &Path) -> Result<(), ChoreError> {
    let grid = folder.join("grid");
    succeed(command(&programs.testgrid, &["up"]).arg(&grid))?;
    let measured = fetch_on(programs, folder, &grid);
    succeed(command(&programs.testgrid, &["down"]).arg(&grid))?;
    measured
}

fn fetch_on(programs: &Programs, folder: &Path, grid: &Path) -> Result<(), ChoreError> {
    let variables: BTreeMap<String, String> = environment(&grid.join("env"))?;
    let ours = |program: &Path, arguments: &[&str]| {
        let mut command = command(program, arguments);
        command.envs(&variables).current_dir(folder);
        command
    };
    noise(&folder.join("note"), 4096)?;
    succeed(&mut ours(&programs.register, &["-q", KEY_ID]))?;
    succeed(&mut ours(&programs.seal, &["-q", KEY_ID, "note", "note.eds"]))?;
    let open = || ours(&programs.open, &["-q", "--force", KEY_ID, "note.eds", "note.out"]);
    let store = |verb: &str| {
        let mut store = command(&programs.testgrid, &[verb]);
        succeed(store.arg(grid).arg("2")).map(drop)
    };
    let race = |title: &str| {
        Race::new(title.to_owned())
            .with("sh -c true", || shell(folder, "exec true"))
            .with("eds-decrypt, whole process", open)
            .run(31, None)
    };
    race("Opening 4 KiB with a registered key, 3 stores up, 2 needed")?;
    store("stop")?;
    race("The same, store 2 hangs (SIGSTOP)")?;
    store("cont")?;
    store("kill")?;
    race("The same, store 2 refuses connections (SIGKILL)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_lines_are_read_behind_the_name() {
        let stat = "7 (a ) S x) Z 1 7 7 0 -1 4194316 90 0 0 0 12 30 0 0 20 0 1 0 100 0 0";
        assert_eq!(state_and_ticks(stat), ('Z', 42.0));
        assert_eq!(state_and_ticks(""), ('Z', 0.0));
        assert_eq!(high_water_kib("Name:\tx\nVmHWM:\t    3072 kB\n"), 3072);
    }

    #[test]
    fn the_median_is_the_middle() {
        let cost = |cpu_seconds| Cost {
            cpu_seconds,
            ..Cost::default()
        };
        assert!((median(&[cost(3.0), cost(1.0), cost(2.0)], |cost| cost.cpu_seconds) - 2.0).abs() < 1e-9);
    }
}
