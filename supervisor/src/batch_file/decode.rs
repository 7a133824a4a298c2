//! From nodes to typed values: every mistake is reported, none ends the reading.
//!
//! [`keys!`] defines a map of the format once: its keys, their types and their words of explanation.
//! Reader, list of known keys and JSON Schema all come from that one definition.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::error::{Place, Sink, nearest};
use super::tree::{Entry, Node, View, shown};

/// Reads a value from a node. `None`: what is wrong has been reported.
pub(super) trait FromNode: Sized {
    /// Reads it.
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self>;
}

/// A value with the place of its key and its own.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Where its key stands.
    pub(super) key: Place,
    /// Where it stands itself.
    pub(super) place: Place,
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A map of the format with a fixed set of keys; implemented by [`keys!`] alone.
pub(super) trait Keys: Default {
    /// What it is called in messages.
    const WHAT: &'static str;
    /// Its keys.
    const KEYS: &'static [&'static str];
    /// Keys of later releases: refused by name.
    const LATER: &'static [&'static str];
    /// Reads the entry when its key is one of [`Keys::KEYS`]; whether it is.
    fn read_key(&mut self, entry: &Entry<'_>, sink: &mut Sink) -> bool;
    /// Keys that are reported as wrong: unknown ones, and those with a wrong value.
    fn wrong(&mut self) -> &mut Vec<String>;
}

/// Whether a key that is missing was meant by one that is reported already.
pub(super) fn was_meant(wrong: &[String], key: &str) -> bool {
    wrong
        .iter()
        .any(|word| word == key || nearest(word, [key]).is_some())
}

/// Reads one value of a [`keys!`] map into its field.
pub(super) fn read_field<T: FromNode>(
    field: &mut Option<At<T>>,
    wrong: &mut Vec<String>,
    entry: &Entry<'_>,
    sink: &mut Sink,
) {
    let value = T::from_node(&entry.value, sink);
    if value.is_none() {
        wrong.push(entry.key.to_string());
    }
    let (key, place) = (entry.key_place, entry.value.place);
    *field = value.map(|value| At { value, key, place });
}

/// Reads a map whose keys are those of `K`.
pub(super) fn read_keys<K: Keys>(node: &Node<'_>, sink: &mut Sink) -> Option<K> {
    let entries = entries(node, K::WHAT, sink)?;
    let mut keys = K::default();
    for entry in entries {
        if !keys.read_key(entry, sink) {
            keys.wrong().push(entry.key.to_string());
            refuse_key(entry, K::WHAT, &[K::KEYS], K::LATER, sink);
        }
    }
    Some(keys)
}

/// The entries of a map; anything else is reported.
pub(super) fn entries<'n, 'a>(
    node: &'n Node<'a>,
    what: &str,
    sink: &mut Sink,
) -> Option<&'n [Entry<'a>]> {
    match node.view() {
        View::Map(entries) => Some(entries),
        View::Broken => None,
        View::Scalar(_) | View::List(_) => {
            wrong_type(
                node,
                &format!("{what} (a map)"),
                "write `key: value` lines",
                sink,
            );
            None
        }
    }
}

/// Reports a key that is not known here, or not yet.
pub(super) fn refuse_key(
    entry: &Entry<'_>,
    what: &str,
    known: &[&[&str]],
    later: &[&str],
    sink: &mut Sink,
) {
    let key = shown(&entry.key);
    if later.contains(&&*entry.key) {
        let message = format!("`{key}` is not available in this release");
        sink.report(entry.key_place, message, "remove it from the file");
        return;
    }
    let all = known.iter().flat_map(|keys| keys.iter().copied());
    let help = match nearest(&entry.key, all.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known keys: {}", all.collect::<Vec<_>>().join(", ")),
    };
    sink.report(
        entry.key_place,
        format!("unknown key `{key}` in {what}"),
        help,
    );
}

/// Reports a node of the wrong type.
pub(super) fn wrong_type(node: &Node<'_>, wanted: &str, help: &str, sink: &mut Sink) {
    let found = match node.view() {
        View::Broken => return,
        View::Scalar(scalar) if scalar.is_null() => "nothing".to_owned(),
        View::Scalar(scalar) => format!("{} (`{}`)", node.kind(), shown(&scalar.text)),
        View::List(_) | View::Map(_) => node.kind().to_owned(),
    };
    sink.report(
        node.place,
        format!("expected {wanted}, found {found}"),
        help,
    );
}

/// Defines a map of the format: its struct, its keys, its reader and its schema.
macro_rules! keys {
    (
        $(#[$doc:meta])*
        $name:ident as $what:literal {
            $($(#[$key_doc:meta])* $key:ident: $type:ty,)+
        }
        later { $($later:literal),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$key_doc])* pub(super) $key: Option<$crate::batch_file::decode::At<$type>>,)+
            #[schemars(skip)]
            pub(super) wrong: Vec<String>,
        }

        impl $crate::batch_file::decode::Keys for $name {
            const WHAT: &'static str = $what;
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];
            const LATER: &'static [&'static str] = &[$($later),*];

            fn read_key(
                &mut self,
                entry: &$crate::batch_file::tree::Entry<'_>,
                sink: &mut $crate::batch_file::error::Sink,
            ) -> bool {
                match &*entry.key {
                    $(stringify!($key) => {
                        $crate::batch_file::decode::read_field(
                            &mut self.$key, &mut self.wrong, entry, sink,
                        );
                    })+
                    _ => return false,
                }
                true
            }

            fn wrong(&mut self) -> &mut Vec<String> {
                &mut self.wrong
            }
        }

        impl $crate::batch_file::decode::FromNode for $name {
            fn from_node(
                node: &$crate::batch_file::tree::Node<'_>,
                sink: &mut $crate::batch_file::error::Sink,
            ) -> Option<Self> {
                $crate::batch_file::decode::read_keys(node, sink)
            }
        }
    };
}
pub(super) use keys;

/// Defines a closed set of words.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident as $what:literal {
            $($(#[$word_doc:meta])* $variant:ident = $word:literal,)+
        }
        later { $($later:literal),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema)]
        pub(super) enum $name {
            $($(#[$word_doc])* #[schemars(rename = $word)] $variant,)+
        }

        impl $crate::batch_file::decode::FromNode for $name {
            fn from_node(
                node: &$crate::batch_file::tree::Node<'_>,
                sink: &mut $crate::batch_file::error::Sink,
            ) -> Option<Self> {
                let words = &[$($word),+];
                let word = $crate::batch_file::decode::word(node, $what, words, &[$($later),*], sink)?;
                match word {
                    $($word => Some($name::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use words;

/// The word of a closed set that a node is; anything else is reported.
pub(super) fn word<'w>(
    node: &Node<'_>,
    what: &str,
    words: &[&'w str],
    later: &[&str],
    sink: &mut Sink,
) -> Option<&'w str> {
    let list = words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let list = if words.len() == 1 {
        list
    } else {
        format!("one of {list}")
    };
    let View::Scalar(scalar) = node.view() else {
        wrong_type(node, what, &format!("write {list}"), sink);
        return None;
    };
    if let Some(found) = words.iter().find(|word| **word == scalar.text) {
        return Some(found);
    }
    let text = shown(&scalar.text);
    if later.contains(&&*scalar.text) {
        let message = format!("`{text}` is not available in this release");
        sink.report(node.place, message, format!("write {list}"));
        return None;
    }
    let help = match nearest(&scalar.text, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write {list}"),
    };
    sink.report(node.place, format!("`{text}` is not {what}"), help);
    None
}
