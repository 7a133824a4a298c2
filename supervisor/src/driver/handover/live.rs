//! What the core knows beside its records, in the form in which it is handed over. Core types are
//! never serialised themselves: this form has a version, theirs may change with every release.

use protocol::class::Class;
use protocol::command::Pong;
use protocol::ids::Generation;
use protocol::report::{Context, Usage};
use serde::{Deserialize, Serialize};
use supervisor_core::core::Unrecorded;
use supervisor_core::input::{StopStage, WireFault};
use supervisor_core::live::{Gate, Live, LiveTimer};
use supervisor_core::time::{Boot, BootId, Now, Wall};

/// [`Unrecorded`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftCore {
    last: Option<LeftNow>,
    tick_owed: bool,
    confined: bool,
    live: Vec<LeftRun>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftNow {
    wall: i64,
    boot: u64,
    /// In two halves: JSON numbers of many readers end at 64 bits.
    boot_id: (u64, u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftRun {
    generation: Generation,
    #[serde(with = "GateDef")]
    gate: Gate,
    spawned: u64,
    heard: u64,
    alive: u64,
    progressed: u64,
    activity: String,
    pong: Pong,
    cpu_counted_ms: u64,
    usage: Usage,
    usage_noted: Option<u64>,
    context: Option<Context>,
    wire_faults: u32,
    asked: u32,
    #[serde(default)]
    sent: u32,
    broken: Option<LeftFault>,
    refused: Option<(Class, String)>,
    armed: Vec<(LeftTimer, u64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Gate", rename_all = "snake_case")]
enum GateDef {
    Closed,
    Greeted,
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct LeftFault(#[serde(with = "WireFaultDef")] WireFault);

#[derive(Serialize, Deserialize)]
#[serde(remote = "WireFault", rename_all = "snake_case")]
enum WireFaultDef {
    Blank,
    Garbage,
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct LeftTimer(#[serde(with = "LiveTimerDef")] LiveTimer);

#[derive(Serialize, Deserialize)]
#[serde(remote = "LiveTimer", rename_all = "snake_case")]
enum LiveTimerDef {
    Hello,
    Ping,
    Silence,
    Progress,
    Lease,
    Wall,
    Linger,
    Kill,
}

/// [`StopStage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftStage(#[serde(with = "StopStageDef")] pub StopStage);

#[derive(Serialize, Deserialize)]
#[serde(remote = "StopStage", rename_all = "snake_case")]
enum StopStageDef {
    Drain,
    Stop,
    Kill,
}

impl From<Unrecorded> for LeftCore {
    fn from(core: Unrecorded) -> LeftCore {
        let live = core.live.into_iter();
        LeftCore {
            last: core.last.map(LeftNow::from),
            tick_owed: core.tick_owed,
            confined: core.confined,
            live: live.map(|(run, live)| LeftRun::new(run, live)).collect(),
        }
    }
}

impl From<LeftCore> for Unrecorded {
    fn from(left: LeftCore) -> Unrecorded {
        Unrecorded {
            last: left.last.map(Now::from),
            tick_owed: left.tick_owed,
            confined: left.confined,
            live: left.live.into_iter().map(LeftRun::known).collect(),
        }
    }
}

impl From<Now> for LeftNow {
    fn from(now: Now) -> LeftNow {
        let BootId(id) = now.boot_id;
        let low = |half: u128| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0);
        LeftNow {
            wall: now.wall.0,
            boot: now.boot.0,
            boot_id: (low(id >> 64), low(id)),
        }
    }
}

impl From<LeftNow> for Now {
    fn from(left: LeftNow) -> Now {
        let (high, low) = left.boot_id;
        Now {
            wall: Wall(left.wall),
            boot: Boot(left.boot),
            boot_id: BootId(u128::from(high) << 64 | u128::from(low)),
        }
    }
}

impl LeftRun {
    fn new(generation: Generation, live: Live) -> LeftRun {
        let armed = live.armed().map(|(kind, at)| (LeftTimer(kind), at.0));
        LeftRun {
            generation,
            armed: armed.collect(),
            gate: live.gate,
            spawned: live.spawned.0,
            heard: live.heard.0,
            alive: live.alive.0,
            progressed: live.progressed.0,
            activity: live.activity.to_string(),
            pong: live.pong,
            cpu_counted_ms: live.cpu_counted_ms,
            usage: live.usage,
            usage_noted: live.usage_noted.map(|at| at.0),
            context: live.context,
            wire_faults: live.wire_faults,
            asked: live.asked,
            sent: live.sent,
            broken: live.broken.map(LeftFault),
            refused: live.refused.map(|(class, why)| (class, why.to_string())),
        }
    }

    fn known(self) -> (Generation, Live) {
        let armed = self.armed.into_iter();
        let mut live = Live::begun(Boot(self.spawned));
        live.gate = self.gate;
        live.heard = Boot(self.heard);
        live.alive = Boot(self.alive);
        live.progressed = Boot(self.progressed);
        live.activity = self.activity.into();
        live.pong = self.pong;
        live.cpu_counted_ms = self.cpu_counted_ms;
        live.usage = self.usage;
        live.usage_noted = self.usage_noted.map(Boot);
        live.context = self.context;
        live.wire_faults = self.wire_faults;
        live.asked = self.asked;
        live.sent = self.sent;
        live.broken = self.broken.map(|fault| fault.0);
        live.refused = self.refused.map(|(class, why)| (class, why.into()));
        let live = live.with_armed(armed.map(|(kind, at)| (kind.0, Boot(at))));
        (self.generation, live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Unrecorded {
        let mut live = Live::begun(Boot(1));
        live.gate = Gate::Greeted;
        live.heard = Boot(2);
        live.alive = Boot(3);
        live.progressed = Boot(4);
        live.activity = "reads \"a\"\n".into();
        live.pong.output_bytes = 11;
        live.pong.family.begun = 13;
        live.cpu_counted_ms = 14;
        live.usage.tokens = 12;
        live.usage_noted = Some(Boot(5));
        live.wire_faults = 6;
        live.asked = 7;
        live.sent = 3;
        live.broken = Some(WireFault::TooLong);
        live.refused = Some((Class::SpawnFailure, "no".into()));
        let live = live.with_armed([
            (LiveTimer::Ping, Boot(70)),
            (LiveTimer::Wall, Boot(75)),
            (LiveTimer::Kill, Boot(80)),
        ]);
        Unrecorded {
            last: Some(Now {
                wall: Wall(-1),
                boot: Boot(9),
                boot_id: BootId(u128::MAX - 7),
            }),
            tick_owed: true,
            confined: true,
            live: vec![(Generation(3), live), (Generation(4), Live::begun(Boot(8)))],
        }
    }

    #[test]
    fn everything_the_core_knows_comes_back() {
        let text = serde_json::to_string(&LeftCore::from(known())).unwrap();
        let left: LeftCore = serde_json::from_str(&text).unwrap();
        assert_eq!(Unrecorded::from(left), known());
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let text = serde_json::to_string(&LeftCore::from(known())).unwrap();
        let more = text.replacen('{', "{\"more\":1,", 1);
        assert!(serde_json::from_str::<LeftCore>(&more).is_err());
    }
}
