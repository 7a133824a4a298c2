//! What a program prints is kept to the byte, however much it is, and costs nobody memory.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::path::PathBuf;

use supervisor_tests::peak::{self, Peaks, ROOM};
use supervisor_tests::world::World;

/// 200 MB in lines of different lengths, and on stderr a little.
const MANY_LINES: &str = "seq 1 99999999 | head -c 200000000; echo end >&2";
/// One line of 50 MB without its end.
const ONE_LINE: &str = "head -c 50000000 /dev/zero | tr '\\0' x";

struct Printed {
    world: World,
    peaks: Peaks,
}

/// A batch of one task that runs this.
fn print(command: &str) -> Printed {
    let world = World::new();
    let command = serde_json::json!(command);
    world.write(
        "batch.yml",
        &format!("version: 1\nisolation: none\ntasks: [{{id: big, run: {command}}}]\n"),
    );
    let (peaks, code) = peak::watch(world.start("run", &["run", "--no-guardian"]));
    assert_eq!(code, Some(0));
    assert!(peaks.host > 0, "no host was seen");
    Printed { world, peaks }
}

impl Printed {
    fn log(&self, name: &str) -> PathBuf {
        let batch = self.world.batch_dir().expect("there is a batch");
        batch.join("tasks/big/attempts/1/runs/1").join(name)
    }

    /// Asserts that the log is what the command prints, to the byte, that `logs` shows the same,
    /// and that nobody needed much for it.
    fn is_complete_and_cheap(&self, command: &str, trivial: Peaks) {
        self.peaks.assert_near(trivial);
        let log = self.log("stdout.log");
        let compare = format!("{{ {command}; }} 2>/dev/null | cmp - '{}'", log.display());
        self.world.shell(&compare).ok();
        let (peaks, code) = peak::watch(self.world.start("logs", &["logs", "big"]));
        assert_eq!(code, Some(0));
        let limit = trivial.supervisor + ROOM;
        assert!(peaks.supervisor <= limit, "{peaks:?}, {trivial:?}");
        let shown = self.world.path("logs.out");
        let compare = format!("cmp '{}' '{}'", shown.display(), log.display());
        self.world.shell(&compare).ok();
    }
}

#[test]
fn a_flood_of_output_is_kept_to_the_byte_at_no_cost_of_memory() {
    // Long enough for its host to be looked at.
    let trivial = print("sleep 0.3").peaks;
    let printed = print(MANY_LINES);
    printed.is_complete_and_cheap(MANY_LINES, trivial);
    let stderr = std::fs::read_to_string(printed.log("stderr.log")).expect("its stderr");
    assert_eq!(stderr, "end\n");
    print(ONE_LINE).is_complete_and_cheap(ONE_LINE, trivial);
}
