//! A disk that runs full under a writer, and the same writer once there is room.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::kills::respite;
use crate::random::Random;
use crate::trial::Trial;
use crate::writer::Writer;
use crate::{Args, Counts};

/// Options of unshare(1) with which this machine lets us mount: as anybody, or as root.
const WAYS_TO_MOUNT: [&[&str]; 2] = [&["--mount", "--map-root-user"], &["--mount"]];

/// What a writer says before it tries again.
const FAILED_ROUND: &str = "round not ";

/// Runs [`inside`] in a mount namespace of its own, which takes its file systems with it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Option<Counts>> {
    let dir = TempDir::new()?;
    let mounts = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(dir.path()).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(way) = WAYS_TO_MOUNT.iter().find(mounts) else { return Ok(None) };
    let mut inside = Command::new("unshare");
    inside.args(*way).arg(env::current_exe()?).args(["--seeds", &args.seeds.to_string()]);
    inside.arg("--log").arg(&args.log).arg("--full-disk-in").arg(dir.path());
    let output = inside.output()?;
    let said = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        bail!("{}{}", said.trim_end(), String::from_utf8_lossy(&output.stderr));
    }
    Counts::parse(&said).map(Some).context("no counts")
}

/// Every seed has a file system of its own, too small for the log.
pub(crate) fn inside(args: &Args, dir: &Path) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for seed in 0..args.seeds {
        one(args, &dir.join(seed.to_string()), &mut counts, &mut Random::new(seed)).with_context(|| format!("seed {seed}"))?;
    }
    Ok(counts)
}

fn one(args: &Args, disk: &Path, counts: &mut Counts, random: &mut Random) -> anyhow::Result<()> {
    fs::create_dir(disk)?;
    let log = disk.join("log");
    mount(disk, "size=64m")?;
    let mut trial = Trial::new(&args.log, log)?;
    // One time in two, files run out before bytes do.
    if random.below(2) == 0 {
        mount(disk, &format!("remount,size={}k", 64 + random.below(1000)))?;
    } else {
        mount(disk, &format!("remount,nr_inodes={}", n_inodes(disk)? + 1 + random.below(60)))?;
    }

    let entries = trial.offer(3000, 2000, random);
    let mut writer = Writer::append(&args.log, trial.dir(), entries)?;
    counts.starts += 1;
    let is_full = writer.wait_for_complaints(FAILED_ROUND, 1 + usize::try_from(random.below(3))?);
    let goes_on = is_full && random.below(2) == 0;
    if goes_on {
        mount(disk, "remount,size=64m,nr_inodes=1m")?;
    } else {
        writer.kill()?;
    }
    let answers = writer.wait()?;
    if goes_on {
        answers.expect_success()?;
    }
    counts.blows += 1;
    let said = &answers.said;
    ensure!(said.contains(FAILED_ROUND) || said.contains("No space left"), "the disk did not run full: {said}");
    trial.record(&answers)?;
    trial.check()?;

    mount(disk, "remount,size=64m,nr_inodes=1m")?;
    respite(args, &mut trial, counts)?;
    counts.add(&trial);
    drop(trial);
    let unmounted = Command::new("umount").arg(disk).output()?;
    ensure!(unmounted.status.success(), "umount: {}", String::from_utf8_lossy(&unmounted.stderr));
    Ok(())
}

fn mount(disk: &Path, options: &str) -> anyhow::Result<()> {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(disk).output()?;
    ensure!(mounted.status.success(), "mount -o {options}: {}", String::from_utf8_lossy(&mounted.stderr));
    Ok(())
}

/// Files and directories, the disk's own included.
fn n_inodes(dir: &Path) -> anyhow::Result<u64> {
    let mut n = 1;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        n += if path.is_dir() { n_inodes(&path)? } else { 1 };
    }
    Ok(n)
}
