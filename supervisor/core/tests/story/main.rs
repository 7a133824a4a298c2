//! The core's stories: inputs in, records and effects out, by entity. Each test names the rule that
//! it guards; what must hold after every single input is in `harness::check`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story that can not go on must fail at that line"
)]

mod harness;

mod account;
mod accounts;
mod batch;
mod classes;
mod cleaning;
mod clocks;
mod comments;
mod confined;
mod delivery;
mod edges;
mod fetch;
mod found;
mod frontier;
mod journals;
mod lost;
mod mail;
mod mail_between;
mod mail_refusals;
mod merge_failures;
mod merges;
mod models;
mod operator;
mod questions;
mod random;
mod reconcile;
mod recover;
mod reopen;
mod results;
mod retries;
mod reviews;
mod revise;
mod revise_batch;
mod settle;
mod steps;
mod usage;
