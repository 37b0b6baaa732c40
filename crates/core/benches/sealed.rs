//! How fast segments are sealed and opened in memory, and small files on disk. Only ratios from one run mean anything.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement may stop at the first surprise"
)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hydra_core::sealed::stream::{FileCipher, StreamHeader};
use hydra_core::sealed::{Header, Input, OpenOptions, Output, SealOptions, SealedInput, seal};
use hydra_core::secret::Key;

const SLICE: usize = 512 * 1024;

fn segments(criterion: &mut Criterion) {
    let key = Key::random().unwrap();
    let cipher = FileCipher::derive(&key, &[0; 512], &StreamHeader::random().unwrap()).unwrap();
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Bytes(65_520));
    let mut buffer = vec![0; 65_520];
    let mut number = 0;
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            number += 1;
            cipher.seal(number, false, &mut buffer).unwrap()
        });
    });
    let tag = cipher.seal(0, false, &mut buffer).unwrap();
    let sealed = [buffer.as_slice(), &tag].concat();
    group.bench_function("open", |bencher| {
        let open = |mut sealed: Vec<u8>| cipher.open(0, false, &mut sealed).unwrap().len();
        bencher.iter_batched(|| sealed.clone(), open, BatchSize::SmallInput);
    });
    group.finish();
}

fn small_files(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let [plain, sealed, opened] = ["plain", "sealed", "opened"].map(|name| folder.path().join(name));
    std::fs::write(&plain, vec![7; SLICE]).unwrap();
    let key = Key::random().unwrap();
    let mut group = criterion.benchmark_group("file of 512 KiB");
    group.throughput(Throughput::Bytes(SLICE as u64));
    let options = SealOptions {
        overwrite: true,
        sync: false,
        ..SealOptions::default()
    };
    group.bench_function("seal", |bencher| {
        let (from, to) = (Input::File(plain.clone()), Output::File(sealed.clone()));
        bencher.iter(|| seal(&key, &Header::of_key_file(), &from, &to, &options).unwrap());
    });
    let options = OpenOptions {
        overwrite: true,
        sync: false,
        ..OpenOptions::default()
    };
    group.bench_function("open", |bencher| {
        let (from, to) = (Input::File(sealed.clone()), Output::File(opened.clone()));
        bencher.iter(|| SealedInput::open(&from).unwrap().unseal(&key, &to, &options).unwrap());
    });
    group.finish();
}

criterion_group!(benches, segments, small_files);
criterion_main!(benches);
