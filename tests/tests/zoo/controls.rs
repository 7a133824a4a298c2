//! Negative controls: with a layer taken away, the cell that it holds must fail. So each layer is
//! needed, and the matrix would notice if it were gone.

use std::path::Path;

use supervisor_tests::zoo::cell::{Case, Cell, play};
use supervisor_tests::zoo::escape::Escape;
use supervisor_tests::zoo::layer::Layer;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can hide control groups");
    }
    root
}

fn left(case: Case, escape: Escape, without: &[Layer]) -> bool {
    let outcome = play(case, &[escape], without, Path::new(super::PROGRAM));
    let left = |cell: &Cell| !cell.survivors.is_empty() || cell.overlap;
    outcome.cells.iter().any(left)
}

#[test]
fn without_subreaper_what_stripped_its_tags_outlives_its_agent() {
    if is_root() {
        let without = [Layer::Cgroup, Layer::Subreaper];
        assert!(left(Case::End, Escape::Paranoid, &without));
        assert!(!left(Case::End, Escape::Paranoid, &without[..1]));
    }
}

#[test]
fn without_the_number_in_the_limit_a_daemon_without_environment_outlives_its_owners() {
    if is_root() {
        // In a session of its own, so that the recorded sessions do not lead to it either.
        let escape = Escape::FullDaemonStopped;
        let without = [Layer::Cgroup, Layer::LockLimit];
        assert!(left(Case::Everything, escape, &without));
        assert!(!left(Case::Everything, escape, &without[..1]));
    }
}

#[test]
fn without_control_groups_what_stripped_its_tags_outlives_its_owners() {
    if is_root() {
        assert!(left(Case::Everything, Escape::Paranoid, &[Layer::Cgroup]));
        assert!(!left(Case::Everything, Escape::Paranoid, &[]));
    }
}
