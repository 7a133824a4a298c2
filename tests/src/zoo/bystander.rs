//! Strangers that look like runs of the product: the same program, the same variables.

use std::io;
use std::path::Path;
use std::process::{Child, Stdio};

use super::agent::LIFE;
use super::ledger::Life;
use crate::clock::{Deadline, pause};
use crate::world::World;

/// Between two looks at whether the story is over.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// Lives until it is ended or its folder is gone. Every signal that can end a process ends it.
///
/// # Errors
/// None; the type is that of the other parts.
pub fn stand(folder: &Path) -> io::Result<()> {
    let until = Deadline::after(LIFE);
    while !until.is_over() && folder.is_dir() {
        pause(LOOK_EVERY);
    }
    Ok(())
}

/// Bystanders of one story; they end with it.
#[derive(Debug)]
pub struct Bystanders(Vec<(Child, Life)>);

impl Bystanders {
    /// Starts them: with the product's variables holding values that no run has, and without.
    ///
    /// # Panics
    /// When one does not start.
    #[expect(clippy::expect_used, reason = "a test: a panic is its failure")]
    pub fn start(world: &World, program: &Path) -> Self {
        let variables: [&[(&str, &str)]; 3] = [
            &[
                ("SUPERVISOR_TOKEN", "00000000000000000000000000000001"),
                ("SUPERVISOR_BATCH", "zoo"),
            ],
            // What a shell that was once started by a run of long ago would have.
            &[("SUPERVISOR_TOKEN", ""), ("SUPERVISOR_BATCH", "")],
            &[],
        ];
        let started = variables.map(|variables| {
            let mut command = crate::world::tool(program);
            command
                .args(["bystander".as_ref(), world.path("home").as_os_str()])
                .envs(variables.iter().copied())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let child = command.spawn().expect("a bystander starts");
            let pid = i32::try_from(child.id()).expect("a pid is small");
            let life = Life::of(pid).expect("a child of ours has a life");
            (child, life)
        });
        Self(started.into())
    }

    /// Those that something ended.
    pub fn lost(&self) -> Vec<Life> {
        let lives = self.0.iter().map(|(_, life)| *life);
        lives.filter(|life| !life.is_alive()).collect()
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for (child, life) in &mut self.0 {
            life.end();
            // It has ended, by us or before: there is nothing to wait long for.
            drop(child.wait());
        }
    }
}
