//! Every escape in every case: nothing survives where a control group or a living owner is, and
//! elsewhere only what stripped every tag, and never silently.

use std::path::Path;

use supervisor_tests::zoo::cell::{Case, play};
use supervisor_tests::zoo::escape::Escape;
use supervisor_tests::zoo::layer::Layer;
use supervisor_tests::zoo::table::Table;

/// Runs of each case where ZOO_RUNS does not say: the whole matrix takes about two minutes then.
const RUNS: usize = 3;

/// The portable layers have to do: with control groups nothing else would ever be tried on a
/// machine that has them. Only root can hide them; others have none to begin with.
fn matrix(case: Case) {
    let runs = std::env::var("ZOO_RUNS").ok();
    let runs = runs.and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let (escapes, not) = Escape::possible();
    for (escape, why) in not {
        println!("{escape} is left out: {why}");
    }
    let mut table = Table::default();
    let mut wrong = Vec::new();
    for run in 0..runs {
        // The last one with everything that the machine has.
        let portable = nix::unistd::geteuid().is_root() && run + 1 < runs;
        let without: &[Layer] = if portable { &[Layer::Cgroup] } else { &[] };
        let outcome = play(case, &escapes, without, Path::new(super::PROGRAM));
        wrong.extend(outcome.wrong);
        table.add(outcome.cells);
    }
    wrong.extend(table.broken());
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), table.text());
}

#[test]
fn nothing_outlives_an_agent_that_ends_well() {
    matrix(Case::End);
}

#[test]
fn nothing_outlives_a_kill() {
    matrix(Case::Kill);
}

#[test]
fn nothing_outlives_a_timeout() {
    matrix(Case::Timeout);
}

#[test]
fn nothing_outlives_a_cancel() {
    matrix(Case::Cancel);
}

#[test]
fn nothing_outlives_its_killed_host() {
    matrix(Case::Hosts);
}

#[test]
fn nothing_outlives_its_killed_supervisor() {
    matrix(Case::Supervisor);
}

#[test]
fn nothing_outlives_its_killed_host_and_supervisor() {
    matrix(Case::HostsAndSupervisor);
}

#[test]
fn what_outlives_all_its_killed_owners_is_told() {
    matrix(Case::Everything);
}
