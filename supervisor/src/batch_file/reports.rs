//! Limits of what an agent uses, held against what agents of its kind can report: one that is never
//! reported would never be reached.

use supervisor_core::plan::AgentKind;

use super::error::{Place, Sink};

/// A limit of the file: its key, and where that stands if it is written.
pub(super) type Written = (&'static str, Option<Place>);

/// Whether agents of this kind report what the limit of this key counts.
fn can_report(kind: AgentKind, key: &str) -> bool {
    match kind {
        AgentKind::Command => false,
        AgentKind::Scripted => true,
        AgentKind::Program(kind) if key == "cost_usd" => kind.capabilities().cost,
        AgentKind::Program(kind) => kind.capabilities().usage,
    }
}

fn word(kind: AgentKind) -> &'static str {
    match kind {
        AgentKind::Command => "command",
        AgentKind::Scripted => "scripted",
        AgentKind::Program(kind) => kind.word(),
    }
}

/// Reports each limit that one of these agents can not report, for the first such agent.
pub(super) fn check<'a>(
    agents: impl Iterator<Item = (&'a str, AgentKind)> + Clone,
    limits: [Written; 3],
    sink: &mut Sink,
) {
    for (key, place) in limits {
        let mut agents = agents.clone();
        let silent = agents.find(|&(_, kind)| !can_report(kind, key));
        let (Some(place), Some((name, kind))) = (place, silent) else {
            continue;
        };
        let kind = word(kind);
        let message = format!("the agent `{name}` (kind {kind}) can not report {key}");
        let help = "add `enforce: best_effort` to the limits, or remove this one";
        sink.report(place, message, help);
    }
}
