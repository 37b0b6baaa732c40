//! Vectors of the format (`vectors/formats.json`, `vectors/tink-stream.json`) and what needs the inside of the module:
//! given salts, small segments, chunks of few segments, so that little data makes many of them.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::engine::{self, Chunks, Direction, Sink, Source, Stop, Watch};
use super::header::{self, Header, HeaderError};
use super::stream::{BodySizeError, FileCipher, Layout, StreamHeader};
use super::*;
use crate::ids::RegistrationId;
use crate::key_id::{KeyId, KeyIdError};
use crate::secret::Key;

const SILENT: Watch<'static> = Watch {
    progress: None,
    cancel: None,
};

fn vectors(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let whole = serde_json::from_str::<Value>(&text).unwrap();
    whole["vectors"].as_array().unwrap().clone()
}

fn with_op(op: &str) -> Vec<Value> {
    let found = Vec::from_iter(vectors("formats.json").into_iter().filter(|vector| vector["op"] == op));
    assert!(!found.is_empty(), "no vectors for {op}");
    found
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn rule(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((7 * i + 3) % 256) as u8).collect()
}

/// Bytes as the vectors write them.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(_) => hex(value),
        Value::Array(pieces) => pieces.iter().flat_map(bytes).collect(),
        Value::Object(piece) if piece.contains_key("make") => edited(seal_given(&piece["make"]), &piece["edit"]),
        Value::Object(piece) if piece.contains_key("zero") => vec![0; piece["zero"].as_u64().unwrap() as usize],
        Value::Object(piece) if piece.contains_key("rule") => rule(piece["rule"].as_u64().unwrap() as usize),
        Value::Object(piece) => hex(&piece["repeat"]).repeat(piece["times"].as_u64().unwrap() as usize),
        other => panic!("{other} is no bytes"),
    }
}

fn edited(mut file: Vec<u8>, edits: &Value) -> Vec<u8> {
    for edit in edits.as_array().unwrap() {
        if let Some(size) = edit["cut"].as_u64() {
            file.truncate(size as usize);
        } else {
            let at = edit["at"].as_u64().unwrap() as usize;
            for (byte, flip) in file[at..].iter_mut().zip(hex(&edit["xor"])) {
                *byte ^= flip;
            }
        }
    }
    file
}

fn expect(value: &Value, got: &[u8]) {
    if let Value::Object(digest) = value {
        assert_eq!(digest["length"], got.len());
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, got);
        assert_eq!(digest["sha256"], HEXLOWER.encode(sha256.as_ref()));
    } else {
        assert_eq!(bytes(value), got);
    }
}

fn key_of(value: &Value) -> Key {
    Key::from_slice(&hex(value)).unwrap()
}

fn header_of(input: &Value) -> Result<Header, HeaderError> {
    let key_id = match input["key_id"].as_str() {
        None | Some("") => None,
        Some(text) => Some(KeyId::imported(text)?),
    };
    let registration_id = match input["registration"].as_str() {
        None => RegistrationId::ZERO,
        Some(text) => text.parse().unwrap(),
    };
    Ok(Header {
        registration_id,
        key_id,
    })
}

/// A whole file with salt and nonce prefix given.
fn seal_given(input: &Value) -> Vec<u8> {
    let header = header_of(input).unwrap().encode().unwrap();
    let stream = StreamHeader {
        salt: hex(&input["salt"]).try_into().unwrap(),
        nonce_prefix: hex(&input["nonce_prefix"]).try_into().unwrap(),
    };
    let plaintext = bytes(&input["plaintext"]);
    let cipher = FileCipher::derive(&key_of(&input["key"]), &header, &stream).unwrap();
    let chunks = Chunks::of(Layout::SUITE_1, false);
    let body = through(chunks, Direction::Seal, &cipher, &plaintext, Sides::AtOffsets, 2).unwrap();
    [header.as_slice(), &stream.encode(), &body].concat()
}

#[derive(Debug, Clone, Copy)]
enum Sides {
    AtOffsets,
    InTurn,
    FromOffsetsInTurn,
    InTurnToOffsets,
}

const SIDES: [Sides; 4] = [
    Sides::AtOffsets,
    Sides::InTurn,
    Sides::FromOffsetsInTurn,
    Sides::InTurnToOffsets,
];

/// Sends bytes through the pipeline; on failure also what had been written in turn.
fn through_all(
    chunks: Chunks,
    direction: Direction,
    cipher: &FileCipher,
    input: &[u8],
    sides: Sides,
    threads: usize,
) -> Result<Vec<u8>, (Stop, Vec<u8>)> {
    let from = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&from, input, 0).unwrap();
    let to = tempfile::tempfile().unwrap();
    let source = match sides {
        Sides::AtOffsets | Sides::FromOffsetsInTurn => Source::At {
            file: &from,
            base: 0,
            total: input.len() as u64,
        },
        Sides::InTurn | Sides::InTurnToOffsets => Source::InTurn(Box::new(Dripping(Cursor::new(input), 1))),
    };
    let sink = match sides {
        Sides::AtOffsets | Sides::InTurnToOffsets => Sink::At { file: &to, base: 0 },
        Sides::InTurn | Sides::FromOffsetsInTurn => Sink::InTurn(&to),
    };
    let result = engine::run(chunks, direction, cipher, source, sink, threads, SILENT);
    let mut output = Vec::new();
    let size = std::io::Seek::seek(&mut &to, std::io::SeekFrom::End(0)).unwrap();
    std::io::Seek::seek(&mut &to, std::io::SeekFrom::Start(0)).unwrap();
    std::io::Read::read_to_end(&mut &to, &mut output).unwrap();
    match result {
        Ok(totals) => {
            let (read, wrote) = match direction {
                Direction::Seal => (totals.plaintext_bytes, totals.sealed_bytes),
                Direction::Open => (totals.sealed_bytes, totals.plaintext_bytes),
            };
            assert_eq!((read, wrote), (input.len() as u64, size));
            Ok(output)
        }
        Err(failure) => {
            if matches!(sides, Sides::InTurn | Sides::FromOffsetsInTurn) {
                assert_eq!(failure.written, size);
            }
            Err((failure.stop, output))
        }
    }
}

fn through(
    chunks: Chunks,
    direction: Direction,
    cipher: &FileCipher,
    input: &[u8],
    sides: Sides,
    threads: usize,
) -> Result<Vec<u8>, Stop> {
    through_all(chunks, direction, cipher, input, sides, threads).map_err(|(stop, _)| stop)
}

/// Reads a few bytes at a time, never as many as asked for, as a pipe may.
struct Dripping<'a>(Cursor<&'a [u8]>, usize);

impl std::io::Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = (self.1 * 7 + 1) % 8191;
        let most = buffer.len().min(self.1 + 1);
        self.0.read(&mut buffer[..most])
    }
}

fn header_code(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::NotSealed => "not-sealed",
        HeaderError::Short { .. } => "short",
        HeaderError::Damaged => "damaged-header",
        HeaderError::Version { .. } => "version",
        HeaderError::Suite { .. } => "suite",
        HeaderError::SegmentSize { .. } => "segment-size",
        HeaderError::KeyIdLength { .. } => "key-id-length",
        HeaderError::KeyIdText => "key-id-text",
        HeaderError::Reserved => "reserved",
        HeaderError::Registration => "registration",
    }
}

fn open_code(error: &OpenError) -> Value {
    match error {
        OpenError::Header { source, .. } => serde_json::json!({ "code": header_code(source) }),
        OpenError::Size {
            source: BodySizeError::Short { .. },
            ..
        } => serde_json::json!({ "code": "short-body" }),
        OpenError::Size {
            source: BodySizeError::Segment { segment, .. },
            ..
        } => serde_json::json!({ "code": "length", "segment": segment }),
        OpenError::StreamHeader { .. } => serde_json::json!({ "code": "stream-header" }),
        OpenError::Segment { segment, .. } => serde_json::json!({ "code": "segment", "segment": segment }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn header_vectors() {
    let mut codes = std::collections::BTreeMap::new();
    for vector in with_op("header-decode") {
        let decoded = Header::decode(&bytes(&vector["in"]["bytes"]));
        if let Some(good) = vector["expect"].get("ok") {
            let header = decoded.unwrap();
            assert_eq!(header, header_of(good).unwrap(), "{}", vector["name"]);
            assert_eq!(
                header.encode().unwrap().as_slice(),
                bytes(&vector["in"]["bytes"]),
                "{}",
                vector["name"]
            );
        } else {
            let error = decoded.unwrap_err();
            let code = header_code(&error);
            assert_eq!(code, vector["expect"]["refuse"]["code"], "{}", vector["name"]);
            codes.insert(code, std::mem::discriminant(&error));
        }
    }
    assert_eq!(codes.len(), 10, "{codes:?}");
    for vector in with_op("header-encode") {
        let error = header_of(&vector["in"]).and_then(|header| header.encode()).unwrap_err();
        assert_eq!(
            header_code(&error),
            vector["expect"]["refuse"]["code"],
            "{}",
            vector["name"]
        );
    }
    assert!(matches!(KeyId::imported("\t"), Err(KeyIdError::Text)));
}

#[test]
fn sealing_vectors() {
    for vector in with_op("seal-body") {
        let file = seal_given(&vector["in"]);
        expect(&vector["expect"]["ok"]["body"], &file[header::LENGTH..]);
    }
    for vector in with_op("seal") {
        expect(&vector["expect"]["ok"]["file"], &seal_given(&vector["in"]));
    }
}

fn scratch(content: &[u8]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::write(&from, content).unwrap();
    (folder, from, to)
}

fn unseal(key: &Key, from: &Path, to: &Path) -> Result<Report, OpenError> {
    let options = OpenOptions {
        sync: false,
        ..OpenOptions::default()
    };
    SealedInput::open(&Input::File(from.into()))?.unseal(key, &Output::File(to.into()), &options)
}

#[test]
fn opening_vectors() {
    for vector in with_op("open") {
        let (folder, from, to) = scratch(&bytes(&vector["in"]["file"]));
        let opened = unseal(&key_of(&vector["in"]["key"]), &from, &to);
        if let Some(good) = vector["expect"].get("ok") {
            opened.unwrap();
            expect(&good["plaintext"], &std::fs::read(&to).unwrap());
        } else {
            let error = opened.unwrap_err();
            assert_eq!(open_code(&error), vector["expect"]["refuse"], "{}", vector["name"]);
            assert_eq!(error.trouble(), Trouble::Damaged, "{}", vector["name"]);
            assert_eq!(
                std::fs::read_dir(folder.path()).unwrap().count(),
                1,
                "{}",
                vector["name"]
            );
        }
    }
}

#[test]
fn range_vectors() {
    for vector in with_op("range") {
        let file = bytes(&vector["in"]["file"]);
        let reader = RangeReader::open(file.as_slice(), Input::Stdin).unwrap();
        let reader = reader.unlock(&key_of(&vector["in"]["key"])).unwrap();
        let offset = vector["in"]["offset"].as_u64().unwrap();
        let read = reader.read(offset, vector["in"]["length"].as_u64().unwrap() as usize);
        if let Some(good) = vector["expect"].get("ok") {
            expect(&good["plaintext"], &read.unwrap());
        } else {
            assert_eq!(
                open_code(&read.unwrap_err()),
                vector["expect"]["refuse"],
                "{}",
                vector["name"]
            );
        }
    }
}

#[test]
fn size_vectors() {
    for vector in with_op("sizes") {
        let file = vector["in"]["file"].as_u64().unwrap();
        match sizes::plaintext_size(file) {
            Ok(plaintext) => {
                assert_eq!(vector["expect"]["ok"]["plaintext"], plaintext, "{}", vector["name"]);
                assert_eq!(sizes::file_size(plaintext), Ok(file));
            }
            Err(BodySizeError::Segment { segment, .. }) => {
                assert_eq!(vector["expect"]["refuse"]["code"], "length", "{}", vector["name"]);
                assert_eq!(vector["expect"]["refuse"]["segment"], segment, "{}", vector["name"]);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

fn seal_reproducibly(key: &Key, header: &Header, plaintext: &[u8]) -> Vec<u8> {
    let (_folder, from, to) = scratch(plaintext);
    let options = SealOptions {
        reproducible: true,
        sync: false,
        ..SealOptions::default()
    };
    seal(key, header, &Input::File(from), &Output::File(to.clone()), &options).unwrap();
    std::fs::read(to).unwrap()
}

#[test]
fn reproducible_vectors() {
    for vector in with_op("seal-reproducible") {
        let header = header_of(&vector["in"]).unwrap();
        let file = seal_reproducibly(
            &key_of(&vector["in"]["key"]),
            &header,
            &bytes(&vector["in"]["plaintext"]),
        );
        let good = &vector["expect"]["ok"];
        assert_eq!(
            hex(&good["salt"]),
            &file[header::LENGTH + 1..][..32],
            "{}",
            vector["name"]
        );
        assert_eq!(
            hex(&good["nonce_prefix"]),
            &file[header::LENGTH + 33..][..7],
            "{}",
            vector["name"]
        );
        expect(&good["body"], &file[header::LENGTH..]);
    }
}

#[test]
fn reproducible_over_a_spool_is_the_same_as_in_memory() {
    let key = Key::from_slice(&[9; 32]).unwrap();
    let plaintext = vec![5; 16 * 1024 * 1024 + 1];
    let file = seal_reproducibly(&key, &Header::of_key_file(), &plaintext);
    let header = Header::of_key_file().encode().unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &plaintext);
    let stream = synthetic::stream_header(&key, &header, plaintext.len() as u64, &digest).unwrap();
    let cipher = FileCipher::derive(&key, &header, &stream).unwrap();
    let chunks = Chunks::of(Layout::SUITE_1, false);
    let body = through(chunks, Direction::Seal, &cipher, &plaintext, Sides::AtOffsets, 2).unwrap();
    assert!(file == [header.as_slice(), &stream.encode(), &body].concat());
}

#[test]
fn what_is_in_memory_is_sealed_like_what_is_read() {
    let (key, header) = (Key::from_slice(&[9; 32]).unwrap(), Header::of_key_file());
    let options = SealOptions {
        reproducible: true,
        threads: 1,
        ..SealOptions::default()
    };
    let (name, output) = (Input::File("plain".into()), Output::File("sealed".into()));
    for length in [0, 1, 65_536, 65_537, 16 * 1024 * 1024 + 1] {
        let (plaintext, mut out) = (rule(length), Vec::new());
        let report = seal_bytes_into(&key, &header, &name, &plaintext, &output, &mut out, &options).unwrap();
        assert_eq!(
            (report.plaintext_bytes, report.file_bytes),
            (length as u64, out.len() as u64)
        );
        assert!(out == seal_reproducibly(&key, &header, &plaintext), "{length}");
    }
}

#[test]
fn tink_vectors() {
    for vector in vectors("tink-stream.json") {
        let name = &vector["name"];
        let size = vector["ciphertext_segment_size"].as_u64().unwrap();
        let layout = Layout::new(size as u32).unwrap();
        let (key, associated) = (key_of(&vector["key"]), hex(&vector["associated_data"]));
        if vector["valid"] == true {
            let stream = StreamHeader {
                salt: hex(&vector["salt"]).try_into().unwrap(),
                nonce_prefix: hex(&vector["nonce_prefix"]).try_into().unwrap(),
            };
            let cipher = FileCipher::derive(&key, &associated, &stream).unwrap();
            let plaintext = rule(vector["plaintext_len"].as_u64().unwrap() as usize);
            for sides in SIDES {
                let chunks = Chunks::with_segments(layout, 2);
                let body = through(chunks, Direction::Seal, &cipher, &plaintext, sides, 2).unwrap();
                let whole = [stream.encode().as_slice(), &body].concat();
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &whole);
                assert_eq!(HEXLOWER.encode(digest.as_ref()), vector["ciphertext_sha256"], "{name}");
                let opened = through(chunks, Direction::Open, &cipher, &body, sides, 2).unwrap();
                assert!(opened == plaintext, "{name}");
            }
        } else {
            assert_eq!(vector["must"], "reject");
            let ciphertext = hex(&vector["ciphertext"]);
            let (start, body) = ciphertext.split_first_chunk().unwrap();
            let cipher = FileCipher::derive(&key, &associated, &StreamHeader::decode(start).unwrap()).unwrap();
            for sides in SIDES {
                let refused = through(
                    Chunks::with_segments(layout, 2),
                    Direction::Open,
                    &cipher,
                    body,
                    sides,
                    2,
                );
                assert!(
                    matches!(refused, Err(Stop::Forged(..) | Stop::Cut(..))),
                    "{name}: {refused:?}"
                );
            }
        }
    }
}

fn small() -> (FileCipher, StreamHeader) {
    let key = Key::from_slice(&[1; 32]).unwrap();
    let stream = StreamHeader::of(&[2; 39]);
    (FileCipher::derive(&key, b"small", &stream).unwrap(), stream)
}

#[test]
fn all_ways_through_the_pipeline_agree_at_every_small_size() {
    let (cipher, _) = small();
    let layout = Layout::new(64).unwrap();
    for length in (0..420).chain([5000]) {
        let plaintext = rule(length);
        let alone = Chunks::with_segments(layout, 1);
        let body = through(alone, Direction::Seal, &cipher, &plaintext, Sides::AtOffsets, 1).unwrap();
        assert_eq!(body.len() as u64 + 40, layout.body_size(length as u64).unwrap());
        for sides in SIDES {
            for (segments, threads) in [(1, 3), (2, 2), (1000, 1)] {
                let chunks = Chunks::with_segments(layout, segments);
                let sealed = through(chunks, Direction::Seal, &cipher, &plaintext, sides, threads).unwrap();
                assert!(sealed == body, "{length} {sides:?} {segments}");
                let opened = through(chunks, Direction::Open, &cipher, &body, sides, threads).unwrap();
                assert!(opened == plaintext, "{length} {sides:?} {segments}");
            }
        }
    }
}

#[test]
fn what_goes_out_in_turn_is_all_that_is_good_and_nothing_else() {
    let (cipher, _) = small();
    let layout = Layout::new(64).unwrap();
    let plaintext = rule(1000);
    let chunks = Chunks::with_segments(layout, 3);
    let body = through(chunks, Direction::Seal, &cipher, &plaintext, Sides::AtOffsets, 2).unwrap();
    for segment in 0..layout.segments(1000).unwrap() {
        let mut bad = body.clone();
        bad[(layout.body_start(segment) - 40) as usize] ^= 1;
        // A second bad one: the first is reported, whatever the workers' order.
        let end = bad.len() - 1;
        bad[end] ^= 1;
        for sides in [Sides::InTurn, Sides::FromOffsetsInTurn] {
            let (stop, written) = through_all(chunks, Direction::Open, &cipher, &bad, sides, 3).unwrap_err();
            assert!(
                matches!(stop, Stop::Forged(found, _) if found == segment),
                "{segment}: {stop:?}"
            );
            assert!(
                written == plaintext[..layout.plaintext_start(segment) as usize],
                "{segment}"
            );
        }
        let stop = through(chunks, Direction::Open, &cipher, &bad, Sides::AtOffsets, 3).unwrap_err();
        assert!(
            matches!(stop, Stop::Forged(found, _) if found == segment),
            "{segment}: {stop:?}"
        );
    }
}

#[test]
fn segments_swapped_repeated_dropped_or_spliced_are_refused() {
    let (cipher, _) = small();
    let layout = Layout::new(64).unwrap();
    let plaintext = rule(8 + 3 * 48);
    let chunks = Chunks::with_segments(layout, 2);
    let body = through(chunks, Direction::Seal, &cipher, &plaintext, Sides::AtOffsets, 1).unwrap();
    let other_key = Key::from_slice(&[3; 32]).unwrap();
    let other = FileCipher::derive(&other_key, b"small", &StreamHeader::of(&[2; 39])).unwrap();
    let other_body = through(chunks, Direction::Seal, &other, &plaintext, Sides::AtOffsets, 1).unwrap();
    let segment = |of: &[u8], number: usize| match number {
        0 => of[..24].to_vec(),
        number => of[64 * number - 40..][..64].to_vec(),
    };
    let (a, b, c) = (segment(&body, 0), segment(&body, 1), segment(&body, 2));
    let (d, alien) = (body[64 * 3 - 40..].to_vec(), segment(&other_body, 1));
    assert_eq!([a.clone(), b.clone(), c.clone(), d.clone()].concat(), body);
    for (at, bad) in [
        (1, [&a, &c, &b, &d].map(Vec::as_slice).concat()),
        (2, [&a, &b, &b, &d].map(Vec::as_slice).concat()),
        (2, [&a, &b, &b, &c, &d].map(Vec::as_slice).concat()),
        (1, [&a, &c, &d].map(Vec::as_slice).concat()),
        (1, [&a, &alien, &c, &d].map(Vec::as_slice).concat()),
        (2, [&a, &b, &c].map(Vec::as_slice).concat()),
        (3, [&a, &b, &c, &d, &d].map(Vec::as_slice).concat()),
        (0, [&b, &a, &c, &d].map(Vec::as_slice).concat()),
    ] {
        for sides in SIDES {
            let stop = through(chunks, Direction::Open, &cipher, &bad, sides, 2).unwrap_err();
            assert!(
                matches!(stop, Stop::Forged(found, _) if found == at),
                "{at} {sides:?}: {stop:?}"
            );
        }
    }
}

#[test]
fn a_regular_input_that_got_shorter_is_refused() {
    let (cipher, _) = small();
    let from = tempfile::tempfile().unwrap();
    from.set_len(1000).unwrap();
    let to = tempfile::tempfile().unwrap();
    let source = Source::At {
        file: &from,
        base: 0,
        total: 1001,
    };
    let sink = Sink::At { file: &to, base: 0 };
    let chunks = Chunks::with_segments(Layout::new(64).unwrap(), 2);
    let refused = engine::run(chunks, Direction::Seal, &cipher, source, sink, 2, SILENT);
    assert!(matches!(refused, Err(failure) if matches!(failure.stop, Stop::Changed)));
}

#[test]
fn failing_sides_stop_every_worker() {
    struct Failing(u32);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 50 {
                return Err(std::io::Error::other("gone"));
            }
            buffer.fill(1);
            Ok(buffer.len())
        }
    }
    let (cipher, _) = small();
    let chunks = Chunks::with_segments(Layout::new(64).unwrap(), 2);
    let to = tempfile::tempfile().unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (sink, reads) in [
        (Sink::InTurn(&to), true),
        (Sink::At { file: &to, base: 0 }, true),
        (Sink::InTurn(&full), false),
    ] {
        let source = Source::InTurn(Box::new(Failing(0)));
        let failure = engine::run(chunks, Direction::Seal, &cipher, source, sink, 3, SILENT).unwrap_err();
        match failure.stop {
            Stop::Read(error) => assert!(reads && error.to_string() == "gone"),
            Stop::Write(error) => assert!(!reads && error.kind() == std::io::ErrorKind::StorageFull),
            other => panic!("{other:?}"),
        }
    }
}
