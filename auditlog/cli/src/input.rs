//! Entries from files and standard input, without ever holding more of one than an entry may have.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use fanlight_auditlog::MAX_ENTRY_LEN;

/// One input: an entry, or where it would have been when it is too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Entry(Bytes),
    TooLong { place: String },
}

/// Hands each entry of the files, or of standard input without any, to `each` until that returns `false`.
pub(crate) fn read(files: &[PathBuf], lines: bool, mut each: impl FnMut(Input) -> bool) -> anyhow::Result<()> {
    if files.is_empty() {
        return read_one("standard input", io::stdin().lock(), lines, &mut each);
    }
    for path in files {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        read_one(&Path::display(path).to_string(), BufReader::new(file), lines, &mut each)?;
    }
    Ok(())
}

fn read_one(name: &str, mut source: impl BufRead, lines: bool, each: &mut impl FnMut(Input) -> bool) -> anyhow::Result<()> {
    let failed = || format!("cannot read {name}");
    if !lines {
        let mut entry = Vec::new();
        source.take(MAX_ENTRY_LEN as u64 + 1).read_to_end(&mut entry).with_context(failed)?;
        each(input(entry, || name.to_owned()));
        return Ok(());
    }
    let mut number = 0u64;
    while let Some(line) = read_line(&mut source).with_context(failed)? {
        number += 1;
        if !each(input(line, || format!("line {number} of {name}"))) {
            break;
        }
    }
    Ok(())
}

fn input(entry: Vec<u8>, place: impl FnOnce() -> String) -> Input {
    if entry.len() > MAX_ENTRY_LEN { Input::TooLong { place: place() } } else { Input::Entry(entry.into()) }
}

/// The next line without its line break; of a longer one than an entry may be, one byte more than that.
fn read_line(source: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let available = source.fill_buf()?;
        if available.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let room = (MAX_ENTRY_LEN + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let consumed = part.len() + usize::from(end.is_some());
        source.consume(consumed);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_complete() {
        let long = "x".repeat(MAX_ENTRY_LEN + 5);
        let longest = "y".repeat(MAX_ENTRY_LEN);
        let text = format!("a\n\n{long}\n{longest}\nlast without line break");
        let mut inputs = Vec::new();
        read_one("test", BufReader::with_capacity(7, text.as_bytes()), true, &mut |input| {
            inputs.push(input);
            true
        })
        .unwrap();
        let expected = [
            Input::Entry("a".into()),
            Input::Entry("".into()),
            Input::TooLong { place: "line 3 of test".into() },
            Input::Entry(longest.into()),
            Input::Entry("last without line break".into()),
        ];
        assert_eq!(inputs, expected);
    }
}
