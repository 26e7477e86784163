//! Killed processes and full disks: the record is never behind what was answered.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fanlight_auditlog::Checkpoint;
use fanlight_auditlog::note::Note;

use crate::process::{Numbers, Witness, init};
use crate::tree::{Tree, request};

const ROUNDS: u64 = 30;

/// The size that a note is of.
fn size_of(note: &str) -> usize {
    let note = Note::parse(note.as_bytes()).unwrap();
    usize::try_from(Checkpoint::parse(note.text()).unwrap().tree_size()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::new("log.example/test", 1, 10);
    let vkeys = init(dir.path(), "witness.example/w1");
    let mut numbers = Numbers(1);
    let (mut answered, mut n_answers, mut n_unanswered, mut last_time) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let witness = Witness::start(dir.path(), [&tree.key()]);
        let recorded = witness.checkpoint(tree.origin()).await;
        let recorded = recorded.inspect(|note| {
            // What was recorded and not answered is the log's own all the same.
            let note = Note::parse(note.as_bytes()).unwrap();
            assert_eq!(note.text(), tree.text(size_of(&note.to_string())), "round {round}");
            let time = vkeys.iter().map(|key| note.verify_cosignature(key).unwrap()).max().unwrap();
            assert!(time >= last_time, "round {round}: {time} after {last_time}");
            last_time = time;
        });
        let size = recorded.as_deref().map_or(0, size_of);
        assert!(size >= answered, "round {round}: {size} recorded, {answered} answered");
        n_unanswered += usize::from(size > answered);
        if size > 0 {
            let fork = tree.forked(size - 1, 9);
            assert_eq!(witness.add(request(size, &[], &fork.note(size))).await.0, 422, "round {round}");
        }

        // It is killed from outside, at whatever it does just then.
        let delay = Duration::from_micros(200 * numbers.up_to(400) as u64);
        let pid = witness.id().to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            Command::new("kill").args(["-KILL", &pid]).status().unwrap()
        });
        answered = size;
        loop {
            let new = answered + numbers.up_to(5) - 1;
            if new > tree.size() {
                tree.grow(50, 0);
            }
            match witness.try_add(tree.request(answered, new)).await {
                Ok((200, _)) => (answered, n_answers) = (new, n_answers + 1),
                Ok((status, body)) => panic!("round {round}: {status}: {body}"),
                Err(_) => break,
            }
        }
        assert!(killer.join().unwrap().success());
    }
    println!("{ROUNDS} kills, {n_answers} answers before them, {n_unanswered} times recorded and not answered; size {answered}");
    assert!(n_answers > 0);
}

/// A file system of one's own, with little room in it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(path).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }

    /// Leaves not a byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the process that has it open may be ending still.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_yields_no_cosignature() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")) else {
        println!("SKIPPED: this test mounts a tmpfs, which is not allowed here");
        return;
    };
    let tree = Tree::new("log.example/test", 1, 30);
    let data = disk.0.join("witness");
    init(&data, "witness.example/w1");
    let mut witness = Witness::start(&data, [&tree.key()]);
    assert_eq!(witness.add(tree.request(0, 10)).await.0, 200);
    let filler = disk.fill();
    for _ in 0..3 {
        let (status, body) = witness.add(tree.request(10, 20)).await;
        assert_eq!((status, body.as_str()), (503, "the checkpoint was not recorded\n"));
        assert_eq!(size_of(&witness.checkpoint(tree.origin()).await.unwrap()), 10);
    }
    assert_eq!(witness.get("/healthz").await.0, 503);
    assert!(witness.get("/metrics").await.1.contains("outcome=\"store_failed\"} 3\n"));

    // Neither the crash nor the full disk forgets.
    witness.kill();
    let witness = Witness::start(&data, [&tree.key()]);
    let fork = tree.forked(5, 9);
    assert_eq!(witness.add(request(10, &[], &fork.note(10))).await.0, 422);
    assert_eq!(witness.add(tree.request(10, 20)).await.0, 503);
    fs::remove_file(filler).unwrap();
    assert_eq!(witness.add(tree.request(10, 20)).await.0, 200);
    assert_eq!(witness.get("/healthz").await.0, 200);
}
