//! The real programs: every behaviour and every refusal, by what comes out and how they exit.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const SPLIT: &str = env!("CARGO_BIN_EXE_ssss-split");
const JOIN: &str = env!("CARGO_BIN_EXE_ssss-join");

/// Three of a 3-of-5 sharing made by another implementation, and the secret.
const FIVE: [&str; 5] = [
    "ssss1-k5fu55ctfsaugaybe4mzml6ga4mxva373hf76nk7fp2j3vodulfjsjq",
    "ssss1-k5fu55ctfsaugaycoyph7zxf5myhbuivpopdkikwjlzx3tslxgao3cq",
    "ssss1-k5fu55ctfsaugaydtbkyb5eyolo2r6q6shlj3jnlbavamf4s7utysrq",
    "ssss1-k5fu55ctfsaugayek6h2iqnbd5z6fztrrg5tpmafqvgwijdvzbs3rpi",
    "ssss1-k5fu55ctfsaugayfxhcfwu64q2pdvtl2mpzz6nhyy6kb77nmrtbny4i",
];

/// What a program wrote, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Transcript {
    code: i32,
    out: String,
    err: String,
}

fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A], stdin: &[u8]) -> Transcript {
    run_with(Command::new(program).args(arguments), stdin)
}

fn run_with(command: &mut Command, stdin: &[u8]) -> Transcript {
    let command = command.env_remove("GLITE_SSSS_LOG_LEVEL").stdin(Stdio::piped());
    finish(command, stdin)
}

fn finish(command: &mut Command, stdin: &[u8]) -> Transcript {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // a program that refuses its arguments may be gone before it reads
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Transcript {
        code: output.status.code().unwrap(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder with both programs and all links, as an installation has it.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, target) in [("ssss-split", SPLIT), ("ssss-join", JOIN)] {
            symlink(target, folder.path().join(name)).unwrap();
        }
        for (name, program) in ssss::GLITE_NAMES {
            symlink(program, folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, name: &str, operands: &str) -> Transcript {
        run(self.path(name), &operands.split_whitespace().collect::<Vec<_>>(), b"")
    }

    fn shell(&self, line: &str, stdin: &[u8]) -> Transcript {
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        run_with(
            command.args(["-c", line]).env("PATH", path).current_dir(self.0.path()),
            stdin,
        )
    }
}

fn ok(out: impl Into<String>) -> Transcript {
    Transcript {
        code: 0,
        out: out.into(),
        err: String::new(),
    }
}

// --- ssss-split and ssss-join ---

#[test]
fn split_writes_n_lines_and_any_m_join_to_the_exact_bytes() {
    let secret = b"line\n\0\xff no end";
    let split = run(SPLIT, &["-m", "3", "-n", "5"], secret);
    assert_eq!((split.code, split.err.as_str()), (0, ""));
    let lines: Vec<&str> = split.out.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(split.out.ends_with('\n') && lines.iter().all(|line| line.starts_with("ssss1-")));
    for choice in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
        let text = choice.map(|at| lines[at]).join("\n");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let status = Command::new("sh")
            .args(["-c", "printf '%s' \"$1\" | \"$2\" > \"$3\"", "sh", &text, JOIN])
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read(file).unwrap(), secret);
    }
    assert_ne!(run(SPLIT, &["-m", "3", "-n", "5"], secret).out, split.out);
}

#[test]
fn t_means_m_and_a_file_or_a_dash_may_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "from a file").unwrap();
    let split = run(SPLIT, &["-t", "2", "-n", "3", file.to_str().unwrap()], b"");
    assert_eq!(split.out.lines().count(), 3);
    assert_eq!(run(JOIN, &["-"], split.out.as_bytes()), ok("from a file"));
    let shares = folder.path().join("shares");
    std::fs::write(&shares, split.out).unwrap();
    assert_eq!(run(JOIN, &[&shares], b""), ok("from a file"));
    assert_eq!(
        run(SPLIT, &["--threshold", "1", "--shares", "1", "-"], b"x")
            .out
            .lines()
            .count(),
        1
    );
}

#[test]
fn json_holds_the_same_shares_and_secret() {
    let split = run(SPLIT, &["-m", "2", "-n", "3", "--json"], b"secret");
    let value: Value = serde_json::from_str(&split.out).unwrap();
    assert_eq!(
        (value["threshold"].as_u64(), value["total"].as_u64()),
        (Some(2), Some(3))
    );
    assert_eq!(value["set"].as_str().unwrap().len(), 16);
    let shares: Vec<&str> = value["shares"]
        .as_array()
        .unwrap()
        .iter()
        .map(|share| share.as_str().unwrap())
        .collect();
    assert_eq!(
        run(JOIN, &["--json"], shares[1..].join("\n").as_bytes()),
        ok("{\"secret_base64\":\"c2VjcmV0\"}\n")
    );
    assert_eq!(
        run(JOIN, &["--glite-key", "--json"], b"12345678\n"),
        ok("{\"key\":\"12345678\"}\n")
    );
}

#[test]
fn a_secret_of_one_mebibyte_goes_through_and_one_byte_more_does_not() {
    let secret: Vec<u8> = (0..1 << 20).map(|i: u32| b'a' + (i % 23) as u8).collect();
    let split = run(SPLIT, &["-m", "2", "-n", "2"], &secret);
    assert_eq!(run(JOIN, &["-"], split.out.as_bytes()).out.as_bytes(), secret);
    let longer = [secret.as_slice(), b"x"].concat();
    let refused = run(SPLIT, &["-m", "2", "-n", "2"], &longer);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert_eq!(refused.err, "error: standard input holds more than 1048576 bytes\n");
}

#[test]
fn split_refuses_what_makes_no_sense() {
    let refused = |arguments: &[&str], stdin: &[u8]| {
        let transcript = run(SPLIT, arguments, stdin);
        assert_eq!(transcript.out, "", "{arguments:?}");
        (transcript.code, transcript.err)
    };
    let empty = "error: a secret has 1 to 1048576 bytes, this one has 0\n  \
                 try: see whether the command before the pipe failed, or the file is empty\n";
    assert_eq!(refused(&["-m", "2", "-n", "3"], b""), (1, empty.to_owned()));
    let more = "error: 4 shares cannot be needed where only 3 are made\n";
    assert_eq!(refused(&["-m", "4", "-n", "3"], b"x"), (2, more.to_owned()));
    for arguments in [
        &["-m", "0", "-n", "3"][..],
        &["-m", "2", "-n", "256"],
        &["-m", "2"],
        &["-m", "x", "-n", "3"],
    ] {
        let (code, err) = refused(arguments, b"x");
        assert_eq!(code, 2, "{arguments:?}");
        assert!(
            err.starts_with("error: ") && err.ends_with("  try: ssss-split --help\n"),
            "{err}"
        );
    }
    let (code, err) = refused(&["-m", "2", "-n", "3", "/no/such/file"], b"");
    assert_eq!(code, 74);
    assert!(
        err.starts_with("error: cannot read `/no/such/file`\n  cause: "),
        "{err}"
    );
}

#[test]
fn join_names_the_bad_share_and_each_reason_apart() {
    let changed = |at: usize, from: &str, to: &str| {
        let mut shares = FIVE.map(str::to_owned);
        shares[at] = shares[at].replacen(from, to, 1);
        shares
    };
    let three = |shares: &[String]| shares[..3].join("\n");
    let good = FIVE.map(str::to_owned);
    let cases = [
        (
            three(&changed(1, "ctf", "btf")),
            65,
            "error: share 2 is damaged\n  cause: its checksum does not match\n",
        ),
        (
            three(&changed(1, "55", "50")),
            65,
            "error: share 2 is damaged\n  cause: character 6 after `ssss1-` is `0`",
        ),
        (three(&changed(2, "srq", "sr")), 65, "error: share 3 is damaged\n"),
        (
            three(&changed(1, "ssss1-", "ssss2-")),
            65,
            "error: share 2 is of another version (`ssss2-`)",
        ),
        (changed(4, "64q", "64b").join("\n"), 65, "error: share 5 is damaged\n"),
        (
            format!("{}\n{}\n{}", FIVE[0], FIVE[1], FIVE[1]),
            65,
            "error: share 3 repeats share 2: both have index 2\n",
        ),
        (
            format!(
                "{}\nssss1-fjoscv35v5j6oaydiqneworpc47hyo62qof7clnjkxghip65eigdo7y",
                FIVE[0]
            ),
            65,
            "error: share 2 is of another set than share 1\n",
        ),
        (
            format!(
                "{}\nssss1-k5fu55ctfsaugaqdtbkyb5eyolo2r6q6shlj3jnlbavamf4suezgp4q",
                FIVE[0]
            ),
            65,
            "error: share 2 has another threshold or length than share 1, though the same set\n",
        ),
        (
            format!(
                "{}\nssss1-k5fu55ctfsaugayetfkyb5eyolo2r6q6shlj3jnlbavamf4s5fjq66a",
                three(&good)
            ),
            65,
            "error: the shares do not agree",
        ),
        (FIVE[..2].join("\n"), 1, "error: 2 of the 3 shares needed: 1 missing\n"),
        (
            format!("Dear Bob,\n{}", three(&good)),
            65,
            "error: there is text before the first share",
        ),
        (String::new(), 65, "error: no share found"),
        ("nothing here".to_owned(), 65, "error: no share found"),
    ];
    for (text, code, start) in cases {
        let transcript = run(JOIN, &["-"], text.as_bytes());
        assert_eq!((transcript.code, transcript.out.as_str()), (code, ""), "{text}");
        assert!(transcript.err.starts_with(start), "{text}: {}", transcript.err);
        assert!(transcript.err.contains("  try: "), "{text}: {}", transcript.err);
    }
    // all five, upper-cased and wrapped, are fine
    let mangled = FIVE.join("\r\n").to_uppercase().replace("FSAUGAY", "FSA UG-\n\tAY");
    let joined = run(JOIN, &["--json"], mangled.as_bytes());
    assert_eq!(joined, ok("{\"secret_base64\":\"yVJpPbue9KKodDODV7GiaS3mDBo=\"}\n"));
}

#[test]
fn bare_hex_is_refused_with_the_flag_to_add_and_joins_with_it() {
    let shares = b"137c9547aba101ef\nNULL\n1256bcc160eda592\nNULL\n3113be83f203d794\n";
    let refused = run(JOIN, &["-"], shares);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""));
    assert!(
        refused.err.contains("--glite-key") && refused.err.contains("--glite-password"),
        "{}",
        refused.err
    );
    assert_eq!(run(JOIN, &["--glite-password"], shares), ok("secret"));
    assert_eq!(run(JOIN, &["--glite-key"], shares), ok("0006736563726574\n"));
    assert_eq!(run(JOIN, &["--glite-key", "--glite-password"], shares).code, 2);
    let wrong = run(JOIN, &["--glite-password"], &shares[..17]);
    assert_eq!((wrong.code, wrong.out.as_str()), (65, ""));
    let gap = run(JOIN, &["--glite-key"], b"1234\n\n5678\n");
    assert_eq!(
        gap.err,
        "error: line 2 is empty: NULL stands for a share that is missing\n"
    );
    assert_eq!(run(JOIN, &["--glite-key"], b"12\xff4").code, 65);
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
    let mut child = Command::new(SPLIT)
        .args(["-m", "1", "-n", "255"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(&[7; 10_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), b"".as_slice())
    );
    if Path::new("/dev/full").exists() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(SPLIT);
        let child = command
            .args(["-m", "1", "-n", "1"])
            .stdin(Stdio::piped())
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(74));
        assert!(
            output
                .stderr
                .starts_with(b"error: cannot write to standard output\n  cause: ")
        );
    }
}

#[test]
fn help_version_manual_and_completions_are_there() {
    for (program, name) in [(SPLIT, "ssss-split"), (JOIN, "ssss-join")] {
        let help = run(program, &["--help"], b"");
        assert_eq!((help.code, help.err.as_str()), (0, ""));
        for part in ["Usage:", "Examples:", "Exit codes:", "--generate"] {
            assert!(help.out.contains(part), "{part} in {}", help.out);
        }
        assert_eq!(
            run(program, &["--version"], b""),
            ok(format!("{name} {}\n", env!("CARGO_PKG_VERSION")))
        );
        let manual = run(program, &["--generate", "man"], b"");
        assert!(
            manual.out.contains("EXIT STATUS") && manual.out.contains(".TH"),
            "{}",
            manual.out
        );
        for shell in ["bash", "zsh", "fish"] {
            let completions = run(program, &["--generate", shell], b"");
            assert!(completions.code == 0 && completions.out.contains(name), "{shell}");
        }
    }
    assert_eq!(run(SPLIT, &["--generate", "word"], b"").code, 2);
}

#[test]
fn the_examples_of_the_help_run() {
    let installed = Installed::new();
    std::fs::write(installed.path("secret.key"), "key").unwrap();
    let mut count = 0;
    for program in [SPLIT, JOIN] {
        for line in run(program, &["--help"], b"")
            .out
            .lines()
            .filter_map(|line| line.trim().strip_prefix("$ "))
        {
            let shares = if line.contains("--glite-password") {
                "137c9547aba101ef\nNULL\n1256bcc160eda592\nNULL\n3113be83f203d794\n".to_owned()
            } else {
                FIVE.join("\n")
            };
            std::fs::write(installed.path("shares.txt"), &shares).unwrap();
            let transcript = installed.shell(line, shares.as_bytes());
            assert_eq!((transcript.code, transcript.err.as_str()), (0, ""), "{line}");
            count += 1;
        }
    }
    assert_eq!(count, 6);
}

// --- on a terminal ---

/// Runs a command line on a terminal of its own and types each answer once its prompt stands there.
fn on_terminal(installed: &Installed, line: &str, dialogue: &[(&str, &str)]) -> (i32, String) {
    let path = format!("{}:{}", installed.0.path().display(), std::env::var("PATH").unwrap());
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", line, "/dev/null"])
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut seen, mut from) = (String::new(), 0);
    let mut byte = [0];
    for (prompt, answer) in dialogue {
        while !seen[from..].contains(prompt) {
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "no `{prompt}` in {seen}");
            seen.push(char::from(byte[0]));
        }
        from = seen.len();
        keys.write_all(answer.as_bytes()).unwrap();
    }
    let mut rest = Vec::new();
    screen.read_to_end(&mut rest).unwrap();
    seen.push_str(&String::from_utf8_lossy(&rest));
    (child.wait().unwrap().code().unwrap(), seen)
}

#[test]
fn a_terminal_is_asked_twice_and_shows_nothing() {
    let installed = Installed::new();
    let prompts = ["Secret (not shown): ", "Once more: "];
    let typed = [(prompts[0], "hush\n"), (prompts[1], "hush\n")];
    let (code, screen) = on_terminal(&installed, "ssss-split -m 2 -n 2", &typed);
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("hush"), "{screen}");
    let shares: Vec<&str> = screen
        .lines()
        .filter(|line| line.starts_with("ssss1-"))
        .map(str::trim_end)
        .collect();
    assert_eq!(shares.len(), 2, "{screen}");

    let keys: Vec<String> = shares.iter().map(|share| format!("{share}\n")).collect();
    let typed = [
        ("Share 1 (not shown): ", keys[0].as_str()),
        ("Share 2 of 2 (not shown): ", &keys[1]),
    ];
    let (code, screen) = on_terminal(&installed, "ssss-join", &typed);
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("hush") && !screen.contains("ssss1-"), "{screen}");

    let typed = [(prompts[0], "one\n"), (prompts[1], "two\n")];
    let (code, screen) = on_terminal(&installed, "ssss-split -m 2 -n 2", &typed);
    assert!(code == 1 && screen.contains("error: the two inputs differ"), "{screen}");
    let (code, screen) = on_terminal(&installed, "ssss-split -m 2 -n 2", &[(prompts[0], "o\x03")]);
    assert!(code == 1 && screen.contains("error: interrupted"), "{screen}");
}

#[test]
fn a_long_share_can_be_pasted_and_binary_stays_off_the_terminal() {
    let installed = Installed::new();
    let share = run(SPLIT, &["-m", "1", "-n", "1"], &[b'x'; 5000]).out;
    let (code, screen) = on_terminal(&installed, "ssss-join", &[("Share 1 (not shown): ", &share)]);
    assert!(code == 0 && screen.contains(&"x".repeat(5000)), "{screen}");
    let share = run(SPLIT, &["-m", "1", "-n", "1"], b"\x1b[2J").out;
    let (code, screen) = on_terminal(&installed, "ssss-join", &[("Share 1 (not shown): ", &share)]);
    assert!(code == 73 && screen.contains("error: the secret is binary"), "{screen}");
}

#[test]
fn gliteish_shares_and_secrets_are_asked_for_too() {
    let installed = Installed::new();
    let prompt = |number| format!("Share {number} (not shown; NULL for a missing one, nothing to end): ");
    let prompts: Vec<String> = (1..=4).map(prompt).collect();
    let typed = [
        (prompts[0].as_str(), "c86a47f4\n"),
        (&prompts[1], "NULL\n"),
        (&prompts[2], "34f42aec\n"),
        (&prompts[3], "\n"),
    ];
    let (code, screen) = on_terminal(&installed, "ssss-join --glite-key", &typed);
    assert!(code == 0 && screen.contains("12345678"), "{screen}");
    let typed = [("The password (not shown): ", "hush\n")];
    let (code, screen) = on_terminal(&installed, "glite-ssss-split-passwd 2 1 -", &typed);
    assert!(code == 0 && !screen.contains("hush"), "{screen}");
    assert!(screen.contains("1. splitPasswd = 000468757368 "), "{screen}");
    let typed = [("The shares, on one line (not shown): ", "000468757368 NULL\n")];
    let (code, screen) = on_terminal(&installed, "glite-ssss-join-passwd -q -", &typed);
    assert!(
        code == 0 && screen.contains("hush") && !screen.contains("000468757368"),
        "{screen}"
    );
}

// --- the glite-ssss-* names ---

#[test]
fn the_two_lines_of_the_slides_run_letter_for_letter() {
    let installed = Installed::new();
    let split = installed.shell("glite-ssss-split-passwd -q 5 3 secret", b"");
    assert_eq!((split.code, split.err.as_str()), (0, ""));
    let shares: Vec<&str> = split.out.strip_suffix(" \n").unwrap().split(' ').collect();
    assert!(
        shares.len() == 5 && shares.iter().all(|share| share.len() == 16),
        "{}",
        split.out
    );
    let line = "glite-ssss-join-passwd -q 137c9547aba101ef NULL 1256bcc160eda592 NULL 3113be83f203d794";
    assert_eq!(installed.shell(line, b""), ok("secret\n"));
    let line = format!(
        "glite-ssss-join-passwd -q NULL {} {} NULL {}",
        shares[1], shares[2], shares[4]
    );
    assert_eq!(installed.shell(&line, b""), ok("secret\n"));
    let line = "glite-ssss-join-key -q $(glite-ssss-split-key -q 5 2 0123456789abcdef)";
    assert_eq!(installed.shell(line, b""), ok("0123456789abcdef\n"));
}

#[test]
fn every_vector_holds_at_the_command_line() {
    let installed = Installed::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/ssss-glite.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let name = format!("glite-ssss-{}", case["op"].as_str().unwrap());
        if name.ends_with("evaluate") {
            continue;
        }
        let mut arguments = vec!["-q".to_owned()];
        if let Some(args) = case["args"].as_array() {
            arguments.extend(args.iter().map(|arg| arg.as_str().unwrap().to_owned()));
        } else {
            let secret = case["secret"].as_str().or(case["password"].as_str()).unwrap();
            arguments.extend([case["n"].to_string(), case["k"].to_string(), secret.to_owned()]);
        }
        let transcript = run(installed.path(&name), &arguments, b"");
        let code = if case["expect"] == "ok" {
            0
        } else {
            case["exit"].as_i64().unwrap()
        };
        assert_eq!(i64::from(transcript.code), code, "{id}");
        if let Some(output) = case["output"]
            .as_str()
            .or(case["password"].as_str())
            .filter(|_| name.contains("join"))
        {
            assert_eq!(transcript.out, format!("{output}\n"), "{id}");
        }
        assert_eq!(
            transcript.err.is_empty(),
            code == 0 || case["why"] == "usage",
            "{id}: {}",
            transcript.err
        );
    }
}

#[test]
fn default_output_is_that_of_the_originals() {
    let installed = Installed::new();
    assert_eq!(
        installed.run("glite-ssss-split-passwd", "2 1 secret"),
        ok("\nPassword to split (1 of 2): secret\n\nSplit passwords:\
            \n1. splitPasswd = 0006736563726574 \n2. splitPasswd = 0006736563726574 \n")
    );
    assert_eq!(
        installed.run("glite-ssss-split-key", "2 1 12AB"),
        ok("\nKey to split (1 of 2): 12AB\n\nSplit keys:\n1. splitKey = 12ab \n2. splitKey = 12ab \n")
    );
    assert_eq!(
        installed.run("glite-ssss-join-key", "12AB NULL"),
        ok("\nJoined key : 12ab\n")
    );
    assert_eq!(
        installed.run("glite-ssss-join-passwd", "0006736563726574 NULL"),
        ok("\nJoined password : secret\n")
    );
    let key = installed.run("glite-ssss-generate-key", "32 ignored");
    assert!(key.code == 0 && key.out.len() == 33 && key.err.is_empty(), "{key:?}");
    assert!(
        key.out
            .trim_end()
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    assert_ne!(installed.run("glite-ssss-generate-key", "32").out, key.out);
}

#[test]
fn failures_keep_words_and_codes_and_say_why_on_standard_error() {
    let installed = Installed::new();
    let cases = [
        (
            "split-key",
            "-q 3 2 00010002fff1",
            1,
            "\n\nError in splitting key. Check logfile",
            "group 3",
        ),
        (
            "split-key",
            "3 4 12345678",
            1,
            "\n\nError in splitting key. Check logfile",
            "1 <= needed",
        ),
        (
            "split-key",
            "3 2 123",
            1,
            "\n\nError in splitting key. Check logfile",
            "multiple of 4",
        ),
        (
            "split-key",
            "3 2 12g4",
            1,
            "\n\nError in splitting key. Check logfile",
            "character 3",
        ),
        (
            "split-key",
            "5x 2 1234",
            1,
            "\n\nError in splitting key. Check logfile",
            "`5x`",
        ),
        (
            "split-key",
            "+5 2 1234",
            1,
            "\n\nError in splitting key. Check logfile",
            "`+5`",
        ),
        (
            "split-key",
            "65521 2 1234",
            1,
            "\n\nError in splitting key. Check logfile",
            "65520",
        ),
        (
            "split-passwd",
            "3 abc secret",
            1,
            "\n\nError in splitting password. Check logfile",
            "`abc`",
        ),
        (
            "join-key",
            "NULL NULL",
            2,
            "\n\nError in joining key. Check logfile",
            "no share",
        ),
        (
            "join-key",
            "12345678 123456789abc",
            2,
            "\n\nError in joining key. Check logfile",
            "share 2",
        ),
        (
            "join-key",
            "null 1234",
            2,
            "\n\nError in joining key. Check logfile",
            "share 1",
        ),
        (
            "join-passwd",
            "-q 00036162 NULL",
            2,
            "\n\nError in joining pasword. Check logfile",
            "its length",
        ),
        ("generate-key", "0", 1, "", "multiple of 4"),
        ("generate-key", "33", 1, "", "multiple of 4"),
        ("generate-key", "32x", 1, "", "`32x`"),
    ];
    for (tool, operands, code, out, why) in cases {
        let transcript = installed.run(&format!("glite-ssss-{tool}"), operands);
        assert_eq!(
            (transcript.code, transcript.out.as_str()),
            (code, out),
            "{tool} {operands}"
        );
        assert!(
            transcript.err.starts_with("error: ") && transcript.err.contains(why),
            "{}",
            transcript.err
        );
    }
}

#[test]
fn usage_goes_to_standard_output() {
    let installed = Installed::new();
    for (name, _) in ssss::GLITE_NAMES {
        let usage = installed.run(name, "");
        assert_eq!((usage.code, usage.err.as_str()), (1, ""), "{name}");
        assert!(usage.out.starts_with(&format!("Usage: {name} ")), "{}", usage.out);
        let help = installed.run(name, "-h");
        assert_eq!(
            (help.code, &help.out),
            (i32::from(name.ends_with("generate-key")), &usage.out),
            "{name}"
        );
        let version = format!("{name} Version {} by (C) EGEE\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(installed.run(name, "-V"), ok(version));
        let bad = installed.run(name, "1 2 3 -x");
        assert_eq!((bad.code, &bad.out), (1, &usage.out), "{name}");
        assert_eq!(bad.err, format!("{name}: invalid option -- 'x'\n"));
        assert_eq!(installed.run(name, "--version 1 2 3").code, 1, "{name}");
    }
    for (name, operands) in [
        ("split-key", "3 2"),
        ("split-passwd", "3 2 a b"),
        ("join-key", "1234"),
        ("join-passwd", "1"),
    ] {
        let transcript = installed.run(&format!("glite-ssss-{name}"), operands);
        assert!(
            transcript.code == 1 && transcript.out.starts_with("Usage: "),
            "{name}: {transcript:?}"
        );
    }
}

#[test]
fn options_stand_anywhere_until_two_dashes() {
    let installed = Installed::new();
    assert_eq!(installed.run("glite-ssss-join-key", "12ab NULL -q"), ok("12ab\n"));
    assert_eq!(installed.run("glite-ssss-join-key", "12ab -q NULL --"), ok("12ab\n"));
    assert_eq!(
        installed.run("glite-ssss-split-passwd", "-q -- 1 1 -q"),
        ok("00022d71 \n")
    );
    assert_eq!(installed.run("glite-ssss-join-key", "-qh").code, 0);
}

#[test]
fn a_dash_reads_from_standard_input_and_the_headline_does_not_repeat_it() {
    let installed = Installed::new();
    let split = run(installed.path("glite-ssss-split-passwd"), &["2", "1", "-"], b"secret\n");
    assert_eq!(
        split,
        ok("\nPassword to split (1 of 2): -\n\nSplit passwords:\
            \n1. splitPasswd = 0006736563726574 \n2. splitPasswd = 0006736563726574 \n")
    );
    let split = run(installed.path("glite-ssss-split-key"), &["-q", "2", "1", "-"], b"12ab");
    assert_eq!(split, ok("12ab 12ab \n"));
    let joined = run(
        installed.path("glite-ssss-join-key"),
        &["-q", "-"],
        b"c86a47f4 NULL\n34f42aec NULL a16f0de4 \n",
    );
    assert_eq!(joined, ok("12345678\n"));
    let few = run(installed.path("glite-ssss-join-key"), &["-q", "-"], b"c86a47f4\n");
    assert!(few.code == 1 && few.out.starts_with("Usage: "), "{few:?}");
}

#[test]
fn passwords_are_bytes() {
    let installed = Installed::new();
    let password = OsStr::from_bytes(b"p\xe4\xff");
    let arguments = [OsStr::new("-q"), OsStr::new("3"), OsStr::new("2"), password];
    let shares = run(installed.path("glite-ssss-split-passwd"), &arguments, b"");
    assert_eq!(shares.code, 0, "{shares:?}");
    let mut join = Command::new(installed.path("glite-ssss-join-passwd"));
    let output = join.arg("-q").args(shares.out.split_whitespace()).output().unwrap();
    assert_eq!(output.stdout, b"p\xe4\xff\n");
}

#[test]
fn both_programs_answer_to_all_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, program) in ssss::GLITE_NAMES {
        let other = if *program == "ssss-split" { JOIN } else { SPLIT };
        symlink(other, folder.path().join(name)).unwrap();
        assert_eq!(run(folder.path().join(name), &["-V"], b"").code, 0, "{name}");
    }
}

#[test]
fn the_log_is_written_where_asked_and_holds_no_secret() {
    let installed = Installed::new();
    let file = installed.path("log");
    let logged = |name: &str, arguments: &[&str], level: &str, file: Option<&Path>| {
        let mut command = Command::new(installed.path(name));
        command
            .args(arguments)
            .env("GLITE_SSSS_LOG_LEVEL", level)
            .env_remove("GLITE_SSSS_LOG_FILE")
            .stdin(Stdio::piped());
        if let Some(file) = file {
            command.env("GLITE_SSSS_LOG_FILE", file);
        }
        finish(&mut command, b"")
    };
    let split = logged("glite-ssss-split-key", &["-q", "2", "1", "12ab"], "DEBUG", Some(&file));
    assert_eq!(split, ok("12ab 12ab \n"));
    logged("glite-ssss-join-key", &["-q", "12ab", "123"], "DEBUG", Some(&file));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(!text.contains("12ab"), "{text}");
    for (line, level) in lines.iter().zip(["INFO", "DEBUG", "ERROR"]) {
        let (time, rest) = line.split_at(19);
        assert!(
            time.chars()
                .zip("0000-00-00 00:00:00".chars())
                .all(|(c, t)| c == t || (t == '0' && c.is_ascii_digit()))
        );
        assert!(rest.starts_with(&format!(" {level} - ")), "{line}");
        assert!(rest.rsplit_once(" - ").unwrap().1.contains('#'), "{line}");
    }
    let to_stderr = logged(
        "glite-ssss-split-key",
        &["-q", "2", "1", "12ab"],
        "INFO",
        Some(Path::new("/no/such/log")),
    );
    assert!(to_stderr.err.contains(" INFO - "), "{to_stderr:?}");
    assert!(
        logged("glite-ssss-split-key", &["-q", "2", "1", "12ab"], "INFO", None)
            .err
            .contains(" INFO - ")
    );
    assert_eq!(
        logged("glite-ssss-split-key", &["-q", "2", "1", "12ab"], "ERROR", None).err,
        ""
    );
    assert_eq!(
        logged("glite-ssss-split-key", &["-q", "2", "1", "12ab"], "verbose", None).err,
        ""
    );
}
