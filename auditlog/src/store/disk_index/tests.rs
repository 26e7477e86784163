use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::hash::leaf_hash;

fn leaves(range: std::ops::Range<u64>) -> Vec<Hash> {
    range.map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

async fn positions(index: &DiskIndex, range: std::ops::Range<u64>) -> Vec<Option<u64>> {
    index.positions(leaves(range)).await.unwrap()
}

#[tokio::test]
async fn the_first_position_stays() {
    let dir = tempfile::tempdir().unwrap();
    let index = DiskIndex::open(dir.path()).unwrap();
    assert_eq!(index.indexed().await.unwrap(), 0);
    index.extend(0, [leaves(0..3), leaves(1..2)].concat()).await.unwrap();
    index.extend(4, leaves(2..5)).await.unwrap();
    assert_eq!(index.indexed().await.unwrap(), 7);
    assert_eq!(positions(&index, 0..6).await, [Some(0), Some(1), Some(2), Some(5), Some(6), None]);

    for first in [0, 6, 8, u64::MAX] {
        index.extend(first, leaves(9..10)).await.unwrap_err();
    }
    assert_eq!(positions(&index, 9..10).await, [None], "what was refused is not there");
    index.clear().await.unwrap();
    assert_eq!(index.indexed().await.unwrap(), 0);
    assert_eq!(positions(&index, 0..6).await, [None; 6]);
    index.extend(0, leaves(5..6)).await.unwrap();
    drop(index);
    let index = DiskIndex::open(dir.path()).unwrap();
    assert_eq!(positions(&index, 5..6).await, [Some(0)]);
}

#[tokio::test]
async fn agrees_with_a_map_while_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = HashMap::new();
    let mut indexed = 0;
    for round in 0..20u64 {
        // Reopened again and again, so that nothing rests in memory alone.
        let index = DiskIndex::open(dir.path()).unwrap();
        assert_eq!(index.indexed().await.unwrap(), indexed);
        // Half of each batch is new.
        let batch = leaves(round * 250..round * 250 + 500);
        for (at, leaf) in (indexed..).zip(&batch) {
            model.entry(*leaf).or_insert(at);
        }
        index.extend(indexed, batch).await.unwrap();
        indexed += 500;
        let asked = leaves(0..5_500);
        let expected: Vec<_> = asked.iter().map(|leaf| model.get(leaf).copied()).collect();
        assert_eq!(index.positions(asked).await.unwrap(), expected);
    }
}

#[test]
fn has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let index = DiskIndex::open(dir.path()).unwrap();
    assert!(matches!(DiskIndex::open(dir.path()), Err(OpenIndexError::Locked { .. })));
    drop(index);
    DiskIndex::open(dir.path()).unwrap();
}

#[tokio::test]
async fn files_of_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let index = DiskIndex::open(dir.path()).unwrap();
    index.extend(0, leaves(0..5_000)).await.unwrap();
    let others = ["log.key", "1-zz", "-00", "x-00", "1-000", "0-00.key", "0-00.new.key", "meta.new"];
    for name in others {
        fs::write(dir.path().join(name), name).unwrap();
    }
    fs::write(dir.path().join("77-3f.new"), "a table that was about to double").unwrap();
    index.clear().await.unwrap();
    index.extend(0, leaves(0..10)).await.unwrap();
    drop(index);
    drop(DiskIndex::open(dir.path()).unwrap());
    for name in others {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), name.as_bytes());
    }
    assert!(!dir.path().join("77-3f.new").exists());
    // Among them, a damaged index is given up rather than guessed at.
    fs::write(dir.path().join("meta"), "damaged").unwrap();
    assert!(matches!(DiskIndex::open(dir.path()), Err(OpenIndexError::Foreign { .. })));
}

#[test]
fn a_directory_of_something_else_is_refused() {
    for (name, content) in [("prod.key", "PRIVATE+KEY"), ("meta", "[package]"), ("meta", "")] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        let opened = DiskIndex::open(dir.path());
        if content.is_empty() {
            opened.expect("an index that a crash cut short");
            continue;
        }
        assert!(matches!(opened, Err(OpenIndexError::Foreign { .. })), "{name}");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [name], "nothing is added");
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), content);
    }
}

/// Every page of every table, and every part of `meta`, damaged in some way: never a wrong answer, never stuck.
#[tokio::test]
async fn damage_empties_the_index() {
    let damages: [fn(&mut Vec<u8>, usize); 4] = [
        |bytes, at| bytes[at] ^= 0x40,
        |bytes, at| bytes.truncate(at),
        |bytes, at| bytes[at / 4096 * 4096..].fill(0),
        |bytes, _| bytes.extend_from_slice(b"more"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut n_noticed = 0;
    for n in 0..16usize {
        {
            let index = DiskIndex::open(dir.path()).unwrap();
            index.clear().await.unwrap();
            index.extend(0, leaves(0..5_000)).await.unwrap();
        }
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let file = &files[if n % 4 == 0 { files.len() - 1 } else { n % files.len() }];
        let mut bytes = fs::read(file).unwrap();
        let at = n * 997 % bytes.len();
        damages[n / 4](&mut bytes, at);
        fs::write(file, bytes).unwrap();

        let index = DiskIndex::open(dir.path()).unwrap();
        match index.positions(leaves(0..5_000)).await {
            Ok(found) if found[0].is_some() => assert!((0..).zip(found).all(|(n, at)| at == Some(n)), "{n}"),
            Ok(found) => assert!(found.iter().all(Option::is_none), "{n}"),
            Err(_) => {}
        }
        let indexed = index.indexed().await.unwrap();
        n_noticed += u32::from(indexed == 0);
        index.extend(indexed, leaves(indexed..5_000)).await.unwrap();
        assert!((0..).zip(positions(&index, 0..5_000).await).all(|(n, at)| at == Some(n)), "built anew, {n}");
    }
    assert_eq!(n_noticed, 16);
}

#[tokio::test]
async fn a_crash_of_the_machine_empties_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let rewrite = |edit: fn(&mut Meta)| {
        let mut meta = Meta::parse(&fs::read(dir.path().join("meta")).unwrap()).unwrap();
        edit(&mut meta);
        fs::write(dir.path().join("meta"), meta.write()).unwrap();
    };
    DiskIndex::open(dir.path()).unwrap().extend(0, leaves(0..1000)).await.unwrap();
    rewrite(|meta| meta.boot = Boot::of_another());
    assert_eq!(DiskIndex::open(dir.path()).unwrap().indexed().await.unwrap(), 1000, "closed before the crash");
    rewrite(|meta| (meta.boot, meta.closed) = (Boot::of_another(), false));
    let index = DiskIndex::open(dir.path()).unwrap();
    assert_eq!(index.indexed().await.unwrap(), 0);
    index.extend(0, leaves(1000..1001)).await.unwrap();
    assert_eq!(positions(&index, 0..1001).await.iter().filter(|at| at.is_some()).count(), 1, "no leaf of the lost one");
}

const CHILD: &str = "FANLIGHT_TEST_INDEX_CHILD";

/// Not a check of its own: the process that the next test kills.
#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let index = DiskIndex::open(dir).unwrap();
        loop {
            let first = index.indexed().await.unwrap();
            index.extend(first, leaves(first..first + 700)).await.unwrap();
            println!("\nindexed {}", first + 700);
        }
    });
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = 0;
    for kill in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::disk_index::tests::child_that_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut counts = lines.filter_map(|line| line.unwrap().strip_prefix("indexed ")?.parse::<u64>().ok());
        said = counts.nth(kill * 3 % 8).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Killed at some point of the batches after, whichever that was.
        let index = DiskIndex::open(dir.path()).unwrap();
        let indexed = index.indexed().await.unwrap();
        assert!(indexed >= said && indexed % 700 == 0, "{indexed} of {said}");
        let found = positions(&index, 0..indexed + 700).await;
        assert!((0..indexed).zip(&found).all(|(n, at)| *at == Some(n)), "all that counts is there");
        assert!(found[usize::try_from(indexed).unwrap()..].iter().all(Option::is_none), "nothing else is");
    }
    assert!(said > 0);
}
