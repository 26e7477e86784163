//! A real log that grows, and witnesses that follow it.

use fanlight_auditlog::note::Note;
use fanlight_auditlog::witness::{AddCheckpoint, parse_cosignatures};
use fanlight_auditlog::{DirStore, Policy, Reader, VerifiedCheckpoint, VerifierKey};
use futures_util::future::join_all;

use crate::process::{Numbers, Witness, init};
use crate::world::TestLog;

#[tokio::test(flavor = "multi_thread")]
async fn three_witnesses_of_a_log_that_grows() {
    let log = TestLog::open(1).await;
    let log_key: VerifierKey = log.vkey().parse().unwrap();
    let dirs = [1, 2, 3].map(|_| tempfile::tempdir().unwrap());
    let vkeys: Vec<_> = dirs.iter().zip(1..).map(|(dir, n)| init(dir.path(), &format!("witness.example/w{n}"))).collect();
    let mut witnesses: Vec<_> = dirs.iter().map(|dir| Witness::start(dir.path(), [&log_key])).collect();
    // Whoever trusts two of the three, by either of their keys.
    let lines = |(n, vkeys): (usize, &Vec<VerifierKey>)| {
        format!("witness {n}m {}\nwitness {n}e {}\ngroup {n} any {n}m {n}e", vkeys[0], vkeys[1])
    };
    let policy = vkeys.iter().enumerate().map(lines).collect::<Vec<_>>().join("\n");
    let policy = format!("log {log_key}\n{policy}\ngroup two 2 0 1 2\nquorum two\n");
    let policy = Policy::parse(policy.as_bytes()).unwrap();

    let mut numbers = Numbers(7);
    let (mut size, mut old) = (0, [0; 3]);
    while size < 600 {
        let step = numbers.up_to(40);
        join_all((size..size + step).map(async |n| log.append(format!("entry {n}").as_bytes()).await)).await;
        size += step;
        let note = log.checkpoint();
        let checkpoint = VerifiedCheckpoint::verify(note.as_bytes(), &log_key).unwrap();
        assert_eq!(checkpoint.tree_size(), size as u64);
        policy.verify_checkpoint(note.as_bytes()).unwrap_err();
        // One of them is away now and then, and catches up later.
        let away = numbers.up_to(6) - 1;
        let reader = Reader::at(DirStore::open_reader(log.dir.path()), checkpoint.clone()).await.unwrap();
        let mut cosigned = checkpoint.clone();
        for (n, witness) in witnesses.iter().enumerate().filter(|(n, _)| *n != away) {
            let proof = reader.consistency_proof(old[n]).await.unwrap();
            let request = AddCheckpoint::new(old[n], proof, note.clone()).to_string();
            let (status, lines) = witness.add(request).await;
            assert_eq!(status, 200, "{} to {size}: {lines}", old[n]);
            cosigned = cosigned.with_cosignatures(parse_cosignatures(lines.as_bytes()).unwrap()).unwrap();
            old[n] = size as u64;
        }
        let verified = policy.verify_checkpoint(cosigned.note().as_bytes()).unwrap();
        assert_eq!(verified.tree_size(), size as u64);
    }

    // With two of three down, what the third says is not enough.
    let (alone, note) = (witnesses.swap_remove(0), log.checkpoint());
    drop(witnesses);
    let reader = Reader::latest(DirStore::open_reader(log.dir.path()), &log_key).await.unwrap();
    let proof = reader.consistency_proof(old[0]).await.unwrap();
    let (status, lines) = alone.add(AddCheckpoint::new(old[0], proof, note.clone()).to_string()).await;
    assert_eq!(status, 200, "{lines}");
    policy.verify_checkpoint((note.clone() + &lines).as_bytes()).unwrap_err();
    let cosigned = Note::parse((note + &lines).as_bytes()).unwrap();
    assert!(vkeys[0].iter().all(|key| cosigned.verify_cosignature(key).is_ok()));
}
