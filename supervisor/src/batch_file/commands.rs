//! Commands of the operator: those that prove a task or a merge, and hooks.

use super::agents::environment;
use super::decode::At;
use super::error::Sink;
use super::low::VerifyItem;
use super::scalars::{List, Text};
use super::work::VerifyWork;

/// Time limit of a command that names none: ten minutes, as interface and manual state it.
const TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// The commands of a list, in order; their texts that may be templates go to `texts`.
pub(super) fn commands(
    list: Option<&At<List<VerifyItem>>>,
    texts: &mut Vec<Text>,
    sink: &mut Sink,
) -> Vec<VerifyWork> {
    let mut commands = Vec::new();
    for VerifyItem(keys) in list
        .iter()
        .flat_map(|list| &list.value.0)
        .map(|item| &item.value)
    {
        let Some(run) = &keys.run else {
            continue;
        };
        texts.extend_from_slice(run.value.texts());
        let timeout = keys.timeout.as_ref().map(|length| length.value.millis());
        commands.push(VerifyWork {
            argv: run.value.argv(),
            timeout_ms: timeout.unwrap_or(TIMEOUT_MS),
            env: environment(keys.env.as_ref(), texts, sink),
        });
    }
    commands
}
