//! Checks and copies a log in a directory: one JSON line for each figure on standard output.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};
use std::time::Instant;

use fanlight_auditlog::fsck::{Leftovers, Options, fsck};
use fanlight_auditlog::mirror::mirror;
use fanlight_auditlog::reader::latest_checkpoint;
use fanlight_auditlog::tree::Tree;
use fanlight_auditlog::workers::Threads;
use fanlight_auditlog::{Checkpoint, DirStore, Policy, Reader, Signer, leaf_hash};
use sha2::{Digest as _, Sha256};

/// Entries of the log, 1 KiB each: 500 MB, which stay in the page cache.
const N_ENTRIES: u64 = 500_000;

const ENTRY_LEN: usize = 1024;

/// Entries of the log that is copied, where every object is synced to the disk.
const N_COPIED: u64 = 100_000;

/// Each figure is the best of so many runs: what else the machine does only ever takes time away.
const RUNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let signer = Signer::new("log.example/bench", &[1; 32])?;
    write_log(dir.path(), &signer, N_ENTRIES)?;
    let n_threads = available_parallelism()?;
    for n_threads in [NonZeroUsize::MIN, n_threads] {
        measure_fsck(dir.path(), &signer, n_threads)?;
    }
    measure_mirror(&signer)
}

fn measure_fsck(dir: &Path, signer: &Signer, n_threads: NonZeroUsize) -> Result<(), Box<dyn Error>> {
    let mut objects = Vec::new();
    read_files(&dir.join("tile"), &mut objects)?;
    let n_bytes = objects.iter().map(Vec::len).sum::<usize>() as u64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = DirStore::open_reader(dir);
    let (mut checked, mut raw) = (0.0_f64, 0.0_f64);
    for _ in 0..RUNS {
        let start = Instant::now();
        hash_all(&objects, n_threads);
        raw = raw.max(rate(n_bytes, start));

        let start = Instant::now();
        let report = runtime.block_on(async {
            let checkpoint = latest_checkpoint(&store, &signer.verifier_key()).await?;
            let options = Options { leftovers: Leftovers::list(&store).await?, resume: None };
            Ok::<_, Box<dyn Error>>(fsck(&store, &checkpoint, options, &Threads::new(n_threads), |_| {}).await?)
        })?;
        checked = checked.max(rate(report.n_bytes(), start));
        assert!(report.is_good() && report.n_bytes() == n_bytes, "both have seen every byte");
    }
    println!(
        "{{\"name\":\"auditlog/fsck/dir/threads-{n_threads}\",\"value\":{checked:.1},\"unit\":\"MB/s\",\"baseline\":{raw:.1},\
         \"baseline_name\":\"raw SHA-256\",\"target\":\">= 0.6x\"}}"
    );
    Ok(())
}

/// Hashes objects that are in memory already: the least that looking at every byte can cost.
fn hash_all(objects: &[Vec<u8>], n_threads: NonZeroUsize) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(bytes) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            std::hint::black_box(Sha256::digest(bytes));
        }
    };
    scope(|scope| {
        for _ in 0..n_threads.get() {
            scope.spawn(work);
        }
    });
}

fn measure_mirror(signer: &Signer) -> Result<(), Box<dyn Error>> {
    let (source, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
    write_log(source.path(), signer, N_COPIED)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let n_bytes = runtime.block_on(async {
        let reader = Reader::latest(DirStore::open_reader(source.path()), &signer.verifier_key()).await?;
        let copy = DirStore::open_writer(copy.path())?;
        let report = mirror(&reader, &copy, &Policy::for_log(signer.verifier_key()), |_| {}).await?;
        Ok::<_, Box<dyn Error>>(report.n_bytes)
    })?;
    println!("{{\"name\":\"auditlog/mirror/dir\",\"value\":{:.1},\"unit\":\"MB/s\"}}", rate(n_bytes, start));
    Ok(())
}

/// Writes a log of rounds of 4096 entries, file by file.
fn write_log(dir: &Path, signer: &Signer, n_entries: u64) -> Result<(), Box<dyn Error>> {
    let mut tree = Tree::empty();
    for first in (0..n_entries).step_by(4096) {
        let numbers = first..n_entries.min(first + 4096);
        let entries: Vec<Vec<u8>> = numbers.map(|n| n.to_be_bytes().repeat(ENTRY_LEN / 8)).collect();
        for object in tree.append(entries.iter().map(|entry| (leaf_hash(entry), entry.as_slice()))) {
            let path = dir.join(object.path.to_string());
            fs::create_dir_all(path.parent().ok_or("a tile has a directory")?)?;
            fs::write(path, object.bytes)?;
        }
    }
    let checkpoint = Checkpoint::new(signer.verifier_key().name(), tree.edge().size(), tree.edge().root());
    fs::write(dir.join("checkpoint"), signer.sign(&checkpoint.to_string()))?;
    Ok(())
}

fn read_files(dir: &Path, objects: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read_files(&entry.path(), objects)?;
        } else {
            objects.push(fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn rate(n_bytes: u64, start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let megabytes = n_bytes as f64 / 1e6;
    megabytes / start.elapsed().as_secs_f64()
}
