//! Lines that a wire does not understand: counted and told, never an error.

use std::collections::BTreeMap;

use super::wire::Out;

/// Most kinds of unknown lines that are counted one by one; more are counted together.
const KINDS_MAX: usize = 32;

/// The lines of one conversation that were not understood.
#[derive(Debug, Default)]
pub(in crate::agent) struct Unknown {
    kinds: BTreeMap<String, u64>,
    garbage: u64,
}

impl Unknown {
    /// A line of a kind that is not known here.
    pub(in crate::agent) fn kind(&mut self, kind: &str, out: &mut Out) {
        let full = self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(kind);
        let kind = if full { "others" } else { kind };
        let count = self.kinds.entry(kind.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 {
            out.notice(format!("it printed a line of unknown kind `{kind}`"));
        }
    }

    /// A line that is no JSON object at all.
    pub(in crate::agent) fn garbage(&mut self, out: &mut Out) {
        self.garbage += 1;
        if self.garbage == 1 {
            out.notice("it printed a line that is no JSON object");
        }
    }

    /// As a sentence; `None` when all was understood.
    pub(in crate::agent) fn sentence(&self) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        if self.garbage > 0 {
            parts.push(format!("{} no JSON objects", self.garbage));
        }
        let kinds = self.kinds.iter();
        parts.extend(kinds.map(|(kind, count)| format!("{count} `{kind}`")));
        (!parts.is_empty()).then(|| format!("lines not understood: {}", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_and_all_are_counted() {
        let (mut unknown, mut out) = (Unknown::default(), Out::default());
        assert_eq!(unknown.sentence(), None);
        for number in 0..KINDS_MAX {
            unknown.kind(&format!("k{number:02}"), &mut out);
        }
        unknown.kind("k00", &mut out);
        unknown.kind("one more", &mut out);
        unknown.kind("and another", &mut out);
        unknown.garbage(&mut out);
        unknown.garbage(&mut out);
        assert_eq!(out.events.len(), KINDS_MAX + 2);
        let text = unknown.sentence().unwrap();
        assert!(text.contains("2 no JSON objects, 2 `k00`"), "{text}");
        assert!(text.ends_with("2 `others`"), "{text}");
    }
}
