//! One module for each command.

pub(crate) mod consistency;
pub(crate) mod fsck;
pub(crate) mod mirror;
pub(crate) mod monitor;
pub(crate) mod proof;
pub(crate) mod provider;
pub(crate) mod receipt;
pub(crate) mod witness;

mod open;

pub(crate) use open::OpenLog;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Counts entries on standard error; draws nothing unless that is a terminal.
fn progress_bar(n_entries: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} entries{msg}, {eta} left");
    ProgressBar::new(n_entries).with_style(style.expect("the template is well formed"))
}

/// Moves a bar on, and shows the bytes that were seen.
fn advance(bar: &ProgressBar, n_entries: u64, tree_size: u64, n_bytes: u64) {
    bar.set_length(tree_size);
    bar.set_position(n_entries);
    if !bar.is_hidden() {
        bar.set_message(format!(", {}", HumanBytes(n_bytes)));
    }
}
