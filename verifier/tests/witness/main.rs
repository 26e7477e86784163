//! The witness on the public API: every status of C2SP tlog-witness, its records, and what attacks on them get.

mod faulty;
mod running;
mod tree;

mod cosigning;
mod durability;
mod properties;
mod races;
mod records;
mod statuses;
