//! Whatever is done to an object of a log, the check names it.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "checks/log.rs"]
mod log;
mod support;

use std::num::NonZeroUsize;

use bytes::Bytes;
use fanlight_auditlog::bundle::MAX_BUNDLE_LEN;
use fanlight_auditlog::fsck::{
    Damage, FsckError, FsckReport, Leftovers, MAX_DAMAGE, Options, Problem, ResumePoint, ResumePointError, fsck,
};
use fanlight_auditlog::note::MAX_NOTE_LEN;
use fanlight_auditlog::workers::{Inline, Threads, Workers as _};
use fanlight_auditlog::{DirStore, Hash, Policy, TileSource as _, VerifiedCheckpoint};
use futures_util::FutureExt as _;
use log::{checkpoint, grown, store_of};
use support::{MemoryStore, log_key};

async fn check(store: &MemoryStore) -> FsckReport {
    let options = Options { leftovers: Leftovers::list(store).await.unwrap(), resume: None };
    fsck(store, &checkpoint(store), options, &Inline, |_| {}).await.unwrap()
}

/// The keys of the damaged objects.
fn damaged(report: &FsckReport) -> Vec<&str> {
    report.damage().iter().map(|damage| damage.key.as_str()).collect()
}

fn replace(store: &MemoryStore, key: &str, bytes: impl Into<Bytes>) {
    store.edit(|objects| {
        objects.insert(key.to_owned(), bytes.into()).expect("the object is there");
    });
}

#[tokio::test]
async fn good_logs_of_every_shape() {
    for (sizes, n_tiles, n_bundles) in [
        (&[0][..], 0, 0),
        (&[1], 1, 1),
        (&[255], 1, 1),
        (&[256], 2, 1),
        (&[257], 3, 2),
        // Partial tiles and bundles of all three checkpoints, those of the last one included.
        (&[3, 200, 300], 5, 4),
        (&[65_535], 257, 256),
        (&[65_536], 258, 256),
        (&[65_537], 259, 257),
        (&[70_000, 70_001], 278, 275),
    ] {
        let store = grown(sizes);
        let report = check(&store).await;
        assert!(report.is_good() && report.n_beyond() == 0, "{sizes:?}: {:?}", report.damage());
        assert_eq!((report.n_tiles(), report.n_bundles()), (n_tiles, n_bundles), "{sizes:?}");
        let n_bytes: usize = store.objects().iter().filter(|(key, _)| *key != "checkpoint").map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(report.n_bytes(), n_bytes as u64, "every byte that is there was compared");
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        assert_eq!(threads.n_threads(), 3);
        let options = Options { leftovers: Leftovers::list(&store).await.unwrap(), resume: None };
        assert_eq!(fsck(&store, &checkpoint(&store), options, &threads, |_| {}).await.unwrap(), report);
    }
}

/// Three rounds, so that everything there is occurs: full and partial tiles on two levels, and leftovers of a checkpoint.
const SMALL: [usize; 3] = [2, 257, 260];

/// Three bits of every byte, but one of each fifth byte of a full tile, which comes by every byte of a hash.
#[test]
fn every_flipped_bit_of_every_byte() {
    let objects = grown(&SMALL).objects();
    let flips: Vec<(&str, usize, u8)> = objects
        .iter()
        .flat_map(|(key, bytes)| {
            let (step, n_bits) = if bytes.len() == 8192 { (5, 1) } else { (1, 3) };
            (0..bytes.len()).step_by(step).flat_map(move |position| {
                let bits = [position % 8, (position + 3) % 8, (position + 5) % 8];
                bits.into_iter().take(n_bits).map(move |bit| (&key[..], position, 1 << bit))
            })
        })
        .collect();
    assert!(flips.len() > 6_000, "{}", flips.len());
    let n_threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for flips in flips.chunks(flips.len().div_ceil(n_threads)) {
            scope.spawn(|| check_flips(flips));
        }
    });
}

fn check_flips(flips: &[(&str, usize, u8)]) {
    let store = grown(&SMALL);
    let checkpoint = checkpoint(&store);
    let policy = Policy::for_log(log_key());
    // The memory store is always ready, so nothing but the check itself takes time.
    let leftovers = Leftovers::list(&store).now_or_never_yielding().unwrap();
    let objects = store.objects();
    for &(key, position, bit) in flips {
        let original = &objects[key];
        let mut flipped = original.to_vec();
        flipped[position] ^= bit;
        if key == "checkpoint" {
            assert!(policy.verify_checkpoint(&flipped).is_err(), "{key} at {position}");
            continue;
        }
        replace(&store, key, flipped);
        let options = Options { leftovers: leftovers.clone(), resume: None };
        let report = fsck(&store, &checkpoint, options, &Inline, |_| {}).now_or_never_yielding().unwrap();
        assert_eq!(damaged(&report), [key], "at {position}: {:?}", report.damage());
        replace(&store, key, original.clone());
    }
}

trait Ready: Future + Sized {
    /// Polls a future that yields, but waits for nothing.
    fn now_or_never_yielding(self) -> Self::Output {
        let mut future = std::pin::pin!(self);
        loop {
            if let Some(output) = future.as_mut().now_or_never() {
                return output;
            }
        }
    }
}

impl<F: Future> Ready for F {}

#[tokio::test]
async fn removed_cut_extended_and_swapped_objects() {
    let store = grown(&SMALL);
    let objects = store.objects();
    for (key, original) in objects.iter().filter(|(key, _)| *key != "checkpoint") {
        store.edit(|objects| {
            objects.remove(key);
        });
        // Without a partial object of the last checkpoint the full one serves, where there is one; those of older ones
        // may be gone.
        let superseded = key.contains("000.p/2") || key.contains("001.p/1");
        let report = check(&store).await;
        assert_eq!(damaged(&report), if superseded { vec![] } else { vec![key.as_str()] });
        assert!(superseded || report.damage()[0].problem == Problem::Missing);
        store.edit(|objects| {
            objects.insert(key.clone(), original.clone());
        });

        let mut others: Vec<Bytes> = vec![
            original.slice(1..),
            original.slice(..original.len() - 1),
            [&original[..], b"\0"].concat().into(),
            [&original[..], &original[..]].concat().into(),
            Bytes::new(),
        ];
        others.extend(objects.values().filter(|other| *other != original).cloned());
        for other in others {
            replace(&store, key, other);
            assert_eq!(damaged(&check(&store).await), [key]);
        }
        replace(&store, key, original.clone());
    }
    assert!(check(&store).await.is_good());
}

#[tokio::test]
async fn damage_does_not_hide_other_damage() {
    let store = grown(&[700, 1000]);
    let mut keys =
        ["tile/0/000", "tile/0/002.p/188", "tile/0/003.p/232", "tile/1/000.p/3", "tile/entries/001", "tile/entries/003.p/232"];
    for key in keys {
        let mut bytes = store.objects()[key].to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        replace(&store, key, bytes);
    }
    let report = check(&store).await;
    let mut found = damaged(&report);
    found.sort_unstable();
    keys.sort_unstable();
    assert_eq!(found, keys);

    // With everything gone, all of it is named up to the bound, and counted.
    let store = grown(&[256 * 120]);
    store.edit(|objects| objects.retain(|key, _| key == "checkpoint"));
    let report = check(&store).await;
    assert_eq!((report.damage().len(), report.n_damaged()), (MAX_DAMAGE, 2 * 120 + 1));
}

#[tokio::test]
async fn what_was_expected_is_said() {
    let store = grown(&[300]);
    let entries = log::entries(300);
    let mut bundle = Vec::new();
    for entry in &entries[..256] {
        let entry = if *entry == entries[17] { b"forged" } else { &entry[..] };
        fanlight_auditlog::bundle::write_entry(&mut bundle, entry).unwrap();
    }
    replace(&store, "tile/entries/000", bundle);
    let leaf = fanlight_auditlog::leaf_hash;
    let problem = Problem::Entry { index: 17, expected: leaf(&entries[17]), got: leaf(b"forged") };
    let damage = Damage { key: "tile/entries/000".to_owned(), problem, bytes: Some(Bytes::from_static(b"forged")) };
    assert_eq!(check(&store).await.damage(), [damage]);
}

/// Objects that agree with each other, but not with the checkpoint.
#[tokio::test]
async fn forgeries_that_are_consistent_with_each_other() {
    // Another entry with its tile, below a tile that knows better.
    for size in [300, 70_000] {
        let (store, forged) = (grown(&[size]), log::forged(size, 5));
        for key in ["tile/0/000", "tile/entries/000"] {
            replace(&store, key, forged.objects()[key].clone());
        }
        let report = check(&store).await;
        assert_eq!(damaged(&report), ["tile/0/000", "tile/entries/000"], "of {size}");
    }
    // One level more is forged: the root has the last word.
    let (store, forged) = (grown(&[70_000]), log::forged(70_000, 5));
    for key in ["tile/0/000", "tile/1/000", "tile/entries/000"] {
        replace(&store, key, forged.objects()[key].clone());
    }
    let report = check(&store).await;
    assert_eq!(damaged(&report), ["tile/1/000"]);
    // The whole log is another one under the old checkpoint.
    let (store, forged) = (grown(&[300]), log::forged(300, 5));
    let expected = checkpoint(&store).root_hash();
    store.edit(|objects| {
        for (key, bytes) in forged.objects().into_iter().filter(|(key, _)| key != "checkpoint") {
            objects.insert(key, bytes);
        }
    });
    let report = check(&store).await;
    assert_eq!(report.damage()[0].problem, Problem::Root { expected, got: checkpoint(&forged).root_hash() });
    assert_eq!(damaged(&report), ["checkpoint"]);
}

#[tokio::test]
async fn partial_objects_may_give_way_to_full_ones() {
    // A checkpoint of 300 while the store has gone on to 512.
    let store = grown(&[300, 512]);
    let older = checkpoint(&grown(&[300]));
    store.edit(|objects| objects.retain(|key, _| !key.contains(".p/")));
    let options = Options { leftovers: Leftovers::list(&store).await.unwrap(), resume: None };
    let report = fsck(&store, &older, options, &Inline, |_| {}).await.unwrap();
    // Level 1 has no full tile, so its partial one is missed.
    assert_eq!((damaged(&report), report.n_beyond()), (vec!["tile/1/000.p/1"], 2));
}

/// The resume points of a check in order, and its report.
async fn points(store: &MemoryStore, resume: Option<ResumePoint>) -> (Vec<ResumePoint>, FsckReport) {
    let mut points = Vec::new();
    let options = Options { leftovers: Leftovers::list(store).await.unwrap(), resume };
    let report = fsck(store, &checkpoint(store), options, &Inline, |progress| points.push(progress.resume_point())).await;
    (points, report.unwrap())
}

#[tokio::test]
async fn a_resumed_check_finds_what_one_run_finds() {
    for size in [1000, 1024, 70_000] {
        let store = grown(&[100, size]);
        let (points, whole) = points(&store, None).await;
        assert_eq!(points.last().unwrap().n_entries(), size as u64 / 256 * 256);
        for point in points.iter().step_by(size / 900) {
            let text = point.to_string();
            let parsed = ResumePoint::parse(&text).unwrap();
            assert_eq!(parsed, *point);
            let mut first = None;
            let options = Options { leftovers: Leftovers::list(&store).await.unwrap(), resume: Some(parsed) };
            let report = fsck(&store, &checkpoint(&store), options, &Inline, |progress| {
                first.get_or_insert_with(|| progress.n_entries());
            })
            .await;
            assert_eq!(report.unwrap(), whole);
            assert_eq!(first, Some(point.n_entries()), "nothing is checked twice");
        }
    }
}

#[tokio::test]
async fn no_check_resumes_behind_damage() {
    let store = grown(&[1000]);
    let original = store.objects()["tile/entries/001"].clone();
    replace(&store, "tile/entries/001", original.slice(1..));
    let (points, whole) = points(&store, None).await;
    assert_eq!(points.last().unwrap().n_entries(), 256);
    let resumed = self::points(&store, points.last().cloned()).await.1;
    assert_eq!(resumed, whole);
    // Once repaired, it goes on from there.
    replace(&store, "tile/entries/001", original);
    assert_eq!(self::points(&store, points.last().cloned()).await.1, check(&store).await);
}

#[tokio::test]
async fn a_check_resumes_only_in_the_same_log() {
    let (small, large) = (grown(&[600]), grown(&[600, 1000]));
    let end = |points: Vec<ResumePoint>| points.last().cloned();
    let resume = async |store: &MemoryStore, point| {
        fsck(store, &checkpoint(store), Options { leftovers: Leftovers::unknown(), resume: point }, &Inline, |_| {}).await
    };
    // A log that has grown since goes on.
    let point = end(points(&small, None).await.0);
    assert!(resume(&large, point.clone()).await.unwrap().is_good());
    let later = end(points(&large, None).await.0);
    assert!(matches!(resume(&small, later).await, Err(FsckError::Rollback)));
    assert!(matches!(resume(&log::forged(1000, 5), point.clone()).await, Err(FsckError::Fork)));
    let other = store_of("other.example/log", &[600], None);
    let other_key = log::signer_of("other.example/log").verifier_key();
    let other_checkpoint = VerifiedCheckpoint::verify(&other.objects()["checkpoint"], &other_key).unwrap();
    let options = Options { leftovers: Leftovers::unknown(), resume: point.clone() };
    assert!(matches!(fsck(&other, &other_checkpoint, options, &Inline, |_| {}).await, Err(FsckError::OtherLog)));
    // Damage at the edge keeps it from being tied to the log, so all is checked.
    replace(&large, "tile/1/000.p/3", Bytes::from_static(&[0; 96]));
    let report = resume(&large, point.clone()).await.unwrap();
    assert_eq!((damaged(&report), report.n_bundles()), (vec!["tile/1/000.p/3"], 4));
    // A point with a wrong edge is of no use, to a good log or a bad one.
    let text = point.unwrap().to_string();
    let hash = text.lines().nth(2).unwrap();
    let lying = ResumePoint::parse(&text.replacen(hash, &Hash::new([7; 32]).to_string(), 1)).unwrap();
    let report = resume(&grown(&[600]), Some(lying.clone())).await.unwrap();
    assert_eq!((report.is_good(), report.n_bundles()), (true, 3), "{:?}", report.damage());
    let store = grown(&[600]);
    replace(&store, "tile/entries/000", store.objects()["tile/entries/000"].slice(1..));
    assert_eq!(damaged(&resume(&store, Some(lying)).await.unwrap()), ["tile/entries/000"]);
    // Nor do its counts break anything.
    let line = text.lines().nth(1).unwrap();
    let most = format!("512 {0} {0} {0}", u64::MAX);
    let report = resume(&grown(&[600]), Some(ResumePoint::parse(&text.replacen(line, &most, 1)).unwrap())).await.unwrap();
    assert_eq!((report.is_good(), report.n_tiles()), (true, u64::MAX));
}

/// A bundle and its tile that were replaced together pass until the tile above them is compared.
#[tokio::test]
async fn no_check_resumes_behind_damage_that_shows_late() {
    for size in [3_000, 70_000] {
        let (store, forged) = (grown(&[size]), log::forged(size, 1_300).objects());
        let good = store.objects();
        let keys = ["tile/0/005", "tile/entries/005"];
        for key in keys {
            replace(&store, key, forged[key].clone());
        }
        let (points, whole) = points(&store, None).await;
        assert_eq!(damaged(&whole), keys);
        assert_eq!(whole.resume_point().n_entries(), 0, "none of the points before is known to be good");
        let some = [4, 6, points.len() - 1].map(|n| &points[n]);
        assert!(some[1].n_entries() == 1_536, "the damage was not noticed at once");
        for point in some {
            assert_eq!(self::points(&store, Some(point.clone())).await.1, whole);
        }
        // Once repaired, the log is good wherever the check was interrupted.
        for key in keys {
            replace(&store, key, good[key].clone());
        }
        for point in some {
            let (later, report) = self::points(&store, Some(point.clone())).await;
            assert!(report.is_good(), "from {}: {:?}", point.n_entries(), report.damage());
            let begins_at = if point.n_entries() > 1_280 { 0 } else { point.n_entries() };
            assert_eq!(later[0].n_entries(), begins_at);
        }
    }
}

#[tokio::test]
async fn a_file_larger_than_the_memory() {
    let (log, dir) = (grown(&[300]), tempfile::tempdir().unwrap());
    for (key, bytes) in log.objects() {
        let path = dir.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let store = DirStore::open_reader(dir.path());
    for (key, len) in [("tile/0/000", 8_192), ("tile/entries/001.p/44", MAX_BUNDLE_LEN), ("checkpoint", MAX_NOTE_LEN)] {
        // It has holes, and takes no room.
        std::fs::File::options().write(true).open(dir.path().join(key)).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(store.get(key).await.unwrap().unwrap().len(), len + 1, "one byte too many, so that it is noticed");
    }
    let report = fsck(&store, &checkpoint(&log), Options::default(), &Inline, |_| {}).await.unwrap();
    assert_eq!(damaged(&report), ["tile/0/000", "tile/entries/001.p/44"]);
}

#[tokio::test]
async fn hostile_resume_points() {
    let store = grown(&[1000]);
    let text = points(&store, None).await.0.last().unwrap().to_string();
    assert!(ResumePoint::parse(&text).is_ok());
    let lines: Vec<&str> = text.lines().collect();
    for line in 0..5 {
        let mut without = lines.clone();
        without.remove(line);
        assert!(ResumePoint::parse(&without.join("\n")).is_err(), "without line {line}");
        let mut twice = lines.clone();
        twice.insert(line, lines[line]);
        assert!(ResumePoint::parse(&twice.join("\n")).is_err(), "with line {line} twice");
    }
    for (from, to) in [
        ("\n768 ", "\n767 "),
        ("\n768 ", "\n1024 "),
        ("v1\n", "v2\n"),
        ("\n768 ", "\n0768 "),
        ("\n768 ", "\n18446744073709551615 "),
    ] {
        assert!(ResumePoint::parse(&text.replacen(from, to, 1)).is_err(), "{to:?}");
    }
    assert_eq!(ResumePoint::parse(&"x".repeat(1 << 20)), Err(ResumePointError::Malformed));
    for (length, _) in text.char_indices() {
        assert!(ResumePoint::parse(&text[..length]).is_err(), "{length} bytes");
    }
}
