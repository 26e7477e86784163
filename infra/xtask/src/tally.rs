//! How many checks passed, failed and were skipped, summed over steps and over the tests inside them.

use std::{fmt, ops::AddAssign};

use crate::command::Finished;

/// The closing summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// A program that is one check.
    pub(crate) fn of_program(finished: &Finished) -> Self {
        if finished.status.success() { Self::PASSED } else { Self::FAILED }
    }

    /// What nextest summed up, in its last summary line: a failed test's own output, shown before it, has counts too.
    pub(crate) fn of_nextest(finished: &Finished) -> Self {
        let mut summaries =
            finished.output.lines().filter_map(|line| line.trim_start().strip_prefix("Summary [")?.split_once(" run: "));
        Self::believed(summaries.next_back().map(|(_, list)| counts(list)).unwrap_or_default(), finished)
    }

    /// What rustdoc's harness summed up, once for each crate.
    pub(crate) fn of_doctests(finished: &Finished) -> Self {
        let mut tally = Self::default();
        for line in finished.output.lines() {
            if let Some((_, list)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) {
                tally += counts(list);
            }
        }
        Self::believed(tally, finished)
    }

    /// A runner without tests is one check, and one that fails without naming a failed test is itself the failure.
    fn believed(mut tally: Self, finished: &Finished) -> Self {
        if tally == Self::default() || (tally.failed == 0 && !finished.status.success()) {
            tally += Self::of_program(finished);
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads `3 passed (1 slow, 1 flaky), 1 timed out, 2 skipped`, or `3 passed; 0 failed; 1 ignored; 0 measured`.
fn counts(list: &str) -> Tally {
    let mut tally = Tally::default();
    for part in without_parentheses(list).split([',', ';']) {
        let Some((number, word)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match word.trim_end() {
            "passed" => tally.passed += number,
            "skipped" | "ignored" => tally.skipped += number,
            "filtered out" | "measured" => {}
            // Failed, timed out, could not be executed.
            _ => tally.failed += number,
        }
    }
    tally
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|c| {
            depth += u32::from(*c == '(');
            let outside = depth == 0;
            depth -= u32::from(*c == ')' && depth > 0);
            outside
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally { passed, failed, skipped }
    }

    fn finished(code: i32, output: &str) -> Finished {
        Finished { status: ExitStatus::from_raw(code << 8), output: output.to_owned() }
    }

    #[test]
    fn reads_the_summary_of_nextest() {
        let nextest = |output| Tally::of_nextest(&finished(0, output));
        let rich = "Summary [ 61.0s] 7/9 tests run: 4 passed (1 slow, 1 flaky), 1 failed (due to a leak), 1 timed out, 1 exec failed, 2 skipped";
        assert_eq!(nextest(rich), tally(4, 3, 2));
        assert_eq!(nextest("     Summary [ 0.1s] 1 test run: 1 passed, 0 skipped"), tally(1, 0, 0));
    }

    #[test]
    fn a_failed_test_shown_by_nextest_is_counted_once() {
        let output = "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out\n\
                      Summary [ 0.1s] 3 tests run: 2 passed, 1 failed, 1 skipped\n\
                      FAIL [ 0.0s] (3/3) one tests::bad";
        assert_eq!(Tally::of_nextest(&finished(100, output)), tally(2, 1, 1));
    }

    #[test]
    fn reads_a_summary_of_doctests_for_each_crate() {
        let output = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.00s\n\
                      test src/lib.rs - passed (line 3) ... ok\n\
                      test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Tally::of_doctests(&finished(101, output)), tally(7, 1, 2));
    }

    #[test]
    fn a_runner_is_not_believed_against_its_exit_status() {
        let output = "Summary [ 0.1s] 2 tests run: 2 passed, 0 skipped";
        assert_eq!(Tally::of_nextest(&finished(0, output)), tally(2, 0, 0));
        assert_eq!(Tally::of_nextest(&finished(101, output)), tally(2, 1, 0));
        assert_eq!(Tally::of_nextest(&finished(101, "error: could not compile")), Tally::FAILED);
    }

    #[test]
    fn a_runner_without_tests_counts_as_one_check() {
        assert_eq!(Tally::of_doctests(&finished(0, "")), Tally::PASSED);
        assert_eq!(Tally::of_nextest(&finished(4, "error: no tests to run")), Tally::FAILED);
    }

    #[test]
    fn the_last_line_reads_plainly() {
        assert_eq!(tally(10, 0, 1).to_string(), "10 passed, 0 failed, 1 skipped");
    }
}
