//! What a kill leaves behind.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use fanlight_auditlog::{DirStore, Reader};

use crate::support::{check, command, init, run_with_input, stderr};

/// Kills the command at another moment each time, and checks that what it had answered by then is in the log.
#[test]
fn no_kill_loses_an_answered_entry() {
    let (_dir, store, key) = init();
    let mut answered: Vec<(u64, String)> = Vec::new();
    for kill in 0..12usize {
        let mut child = command(&["append", &store, "--lines"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines: Vec<String> = (0..3000).map(|line| format!("kill {kill} line {line}")).collect();
        let mut stdin = child.stdin.take().unwrap();
        let input = lines.join("\n");
        let writer = std::thread::spawn(move || {
            // The pipe breaks when the command is killed.
            let _ = stdin.write_all(input.as_bytes());
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // By what was answered, not by time: the first lines, the middle of a round, between rounds.
        let n_before_kill = kill * 67;
        let mut indices = Vec::new();
        while indices.len() < n_before_kill {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the input is longer than this");
            indices.push(line.trim_end().parse::<u64>().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What is still in the pipe was answered too.
        for line in stdout.lines() {
            let line = line.unwrap();
            if let Ok(index) = line.parse() {
                indices.push(index);
            }
        }
        writer.join().unwrap();
        answered.extend(indices.into_iter().zip(lines));

        // The next writer makes the log good.
        let output = run_with_input(&["append", &store], format!("after kill {kill}").as_bytes());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(check(&store, &key) > answered.len() as u64);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let reader = Reader::latest(DirStore::open_reader(&store), &key).await.unwrap();
        for (index, line) in &answered {
            assert_eq!(&reader.entry(*index).await.unwrap(), line.as_bytes(), "entry {index}");
        }
    });
}
