//! How a mirror stands for a core type, alone or inside a container.
//!
//! A field says `#[serde(with = "As::<Opt<DeadlineDef>>")]`: the value is read and written by the
//! mirror named there, without a copy in between.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use supervisor_core::containment::{Layer, Layers, Wish};
use supervisor_core::machine::{
    AccountState, AttemptState, BatchState, CommentState, MergeState, MessageState, QuestionState,
    RunState, TaskState,
};
use supervisor_core::plan::{AccountIx, AgentIx, RepoIx, SpecIx, TaskIx};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::StopReason;
use supervisor_core::step::{CleanStep, Stage, Step};
use supervisor_core::time::{Boot, BootId, Wall};

/// Reads and writes a `T` that knows nothing of files.
pub(super) trait Mirror<T> {
    fn write<S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error>;
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>;
}

/// The entry that `#[serde(with = ...)]` calls.
pub(super) struct As<M>(PhantomData<M>);

impl<M> As<M> {
    pub(super) fn serialize<T, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error>
    where
        M: Mirror<T>,
    {
        M::write(value, to)
    }
    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        M: Mirror<T>,
    {
        M::read(from)
    }
}

/// A borrowed value on its way out.
pub(super) struct Out<'a, T, M>(&'a T, PhantomData<M>);

impl<'a, T, M> Out<'a, T, M> {
    pub(super) fn new(value: &'a T) -> Self {
        Self(value, PhantomData)
    }
}

impl<T, M: Mirror<T>> Serialize for Out<'_, T, M> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        M::write(self.0, to)
    }
}

/// A value on its way in.
struct In<T, M>(T, PhantomData<M>);

impl<'de, T, M: Mirror<T>> Deserialize<'de> for In<T, M> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        M::read(from).map(|value| Self(value, PhantomData))
    }
}

/// `Option<T>`; absent fields need `#[serde(default)]` as well.
pub(super) struct Opt<M>(PhantomData<M>);

impl<T, M: Mirror<T>> Mirror<Option<T>> for Opt<M> {
    fn write<S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Out::<T, M>::new).serialize(to)
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        Ok(Option::<In<T, M>>::deserialize(from)?.map(|found| found.0))
    }
}

/// `Vec<T>` and `Box<[T]>`.
pub(super) struct List<M>(PhantomData<M>);

impl<T, M: Mirror<T>> Mirror<Vec<T>> for List<M> {
    fn write<S: Serializer>(value: &Vec<T>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(Out::<T, M>::new))
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        struct Elements<T, M>(PhantomData<(T, M)>);
        impl<'de, T, M: Mirror<T>> Visitor<'de> for Elements<T, M> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(found) = from.next_element::<In<T, M>>()? {
                    all.push(found.0);
                }
                Ok(all)
            }
        }
        from.deserialize_seq(Elements::<T, M>(PhantomData))
    }
}

impl<T, M: Mirror<T>> Mirror<Box<[T]>> for List<M> {
    fn write<S: Serializer>(value: &Box<[T]>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(Out::<T, M>::new))
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[T]>, D::Error> {
        <Self as Mirror<Vec<T>>>::read(from).map(Vec::into_boxed_slice)
    }
}

/// A map whose keys are plain ids.
pub(super) struct Map<M>(PhantomData<M>);

impl<K, T, M> Mirror<BTreeMap<K, T>> for Map<M>
where
    K: Serialize + for<'de> Deserialize<'de> + Ord,
    M: Mirror<T>,
{
    fn write<S: Serializer>(value: &BTreeMap<K, T>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(value.iter().map(|(key, one)| (key, Out::<T, M>::new(one))))
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<K, T>, D::Error> {
        let all = BTreeMap::<K, In<T, M>>::deserialize(from)?;
        Ok(all.into_iter().map(|(key, one)| (key, one.0)).collect())
    }
}

/// `Arc<T>`.
pub(super) struct Shared<M>(PhantomData<M>);

impl<T, M: Mirror<T>> Mirror<Arc<T>> for Shared<M> {
    fn write<S: Serializer>(value: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        M::write(value, to)
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<T>, D::Error> {
        M::read(from).map(Arc::new)
    }
}

/// `Box<T>`.
pub(super) struct Boxed<M>(PhantomData<M>);

impl<T, M: Mirror<T>> Mirror<Box<T>> for Boxed<M> {
    fn write<S: Serializer>(value: &Box<T>, to: S) -> Result<S::Ok, S::Error> {
        M::write(value, to)
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Box<T>, D::Error> {
        M::read(from).map(Box::new)
    }
}

/// A pair, as a list of two.
pub(super) struct Pair<A, B>(PhantomData<(A, B)>);

impl<T, U, A: Mirror<T>, B: Mirror<U>> Mirror<(T, U)> for Pair<A, B> {
    fn write<S: Serializer>(value: &(T, U), to: S) -> Result<S::Ok, S::Error> {
        (Out::<T, A>::new(&value.0), Out::<U, B>::new(&value.1)).serialize(to)
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<(T, U), D::Error> {
        let (first, second) = <(In<T, A>, In<U, B>)>::deserialize(from)?;
        Ok((first.0, second.0))
    }
}

/// What has a form on disk of its own, inside a container of mirrors.
pub(super) struct Plain;

impl<T: Serialize + for<'de> Deserialize<'de>> Mirror<T> for Plain {
    fn write<S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        T::deserialize(from)
    }
}

/// Newtypes over a number.
pub(super) struct Num;

macro_rules! numbers {
    ($($name:ident($inner:ty)),+ $(,)?) => {$(
        impl Mirror<$name> for Num {
            fn write<S: Serializer>(value: &$name, to: S) -> Result<S::Ok, S::Error> {
                value.0.serialize(to)
            }
            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                <$inner>::deserialize(from).map($name)
            }
        }
    )+};
}

numbers! {
    TaskIx(u32), SpecIx(u32), AgentIx(u32), AccountIx(u32), RepoIx(u32), Wall(i64), Boot(u64),
}

/// States and reasons that are one word.
pub(super) struct Word;

/// The longest word that an error repeats, characters.
const SHOWN_MAX: usize = 40;

struct WordOf<T> {
    kind: &'static str,
    find: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for WordOf<T> {
    type Value = T;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a {} as one word", self.kind)
    }
    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<T, E> {
        (self.find)(word).ok_or_else(|| {
            let shown: String = word.chars().take(SHOWN_MAX).collect();
            E::custom(format_args!("`{shown}` is not a {}", self.kind))
        })
    }
}

macro_rules! words {
    ($($name:ident as $kind:literal),+ $(,)?) => {$(
        impl Mirror<$name> for Word {
            fn write<S: Serializer>(value: &$name, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(value.word())
            }
            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                let find = |word: &str| $name::ALL.iter().copied().find(|one| one.word() == word);
                from.deserialize_str(WordOf { kind: $kind, find })
            }
        }
    )+};
}

words! {
    BatchState as "batch state",
    TaskState as "task state",
    AttemptState as "attempt state",
    RunState as "run state",
    MessageState as "message state",
    QuestionState as "question state",
    AccountState as "account state",
    MergeState as "merge state",
    CommentState as "comment state",
    Step as "step of an attempt",
    Stage as "stage of a round of merges",
    CleanStep as "step of a clean-up",
    StopReason as "stop reason",
    Letter as "letter of the reconcile table",
    Wish as "containment",
    Layer as "layer of containment",
}

impl Mirror<Layers> for Word {
    fn write<S: Serializer>(value: &Layers, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(Layer::word))
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Layers, D::Error> {
        let layers = <List<Word> as Mirror<Vec<Layer>>>::read(from)?;
        Ok(layers.into_iter().collect())
    }
}

/// Numbers of 128 bits, as hex digits: JSON numbers are not safe beyond 53 bits.
pub(super) struct Hex;

impl Mirror<u128> for Hex {
    fn write<S: Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:032x}"))
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = u128;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("32 hex digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u128, E> {
                let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let parsed = u128::from_str_radix(text, 16);
                match parsed {
                    Ok(number) if digits => Ok(number),
                    Ok(_) | Err(_) => Err(E::custom("a 128 bit number must be 32 hex digits")),
                }
            }
        }
        from.deserialize_str(Digits)
    }
}

impl Mirror<BootId> for Hex {
    fn write<S: Serializer>(value: &BootId, to: S) -> Result<S::Ok, S::Error> {
        <Hex as Mirror<u128>>::write(&value.0, to)
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<BootId, D::Error> {
        <Hex as Mirror<u128>>::read(from).map(BootId)
    }
}

/// A length in milliseconds; one that is not whole, or over 64 bits, as `[seconds, nanoseconds]`,
/// so that replay computes with exactly what was decided.
pub(super) struct Millis;

impl Mirror<Duration> for Millis {
    fn write<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(value.as_millis()) {
            Ok(whole) if Duration::from_millis(whole) == *value => to.serialize_u64(whole),
            Ok(_) | Err(_) => (value.as_secs(), value.subsec_nanos()).serialize(to),
        }
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        struct Length;
        impl<'de> Visitor<'de> for Length {
            type Value = Duration;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("milliseconds, or [seconds, nanoseconds]")
            }
            fn visit_u64<E: serde::de::Error>(self, whole: u64) -> Result<Duration, E> {
                Ok(Duration::from_millis(whole))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Duration, A::Error> {
                let seconds: Option<u64> = from.next_element()?;
                let nanos: Option<u32> = from.next_element()?;
                match (seconds, nanos) {
                    (Some(seconds), Some(nanos)) if nanos < 1_000_000_000 => {
                        Ok(Duration::new(seconds, nanos))
                    }
                    (_, _) => Err(A::Error::custom("a length is [seconds, nanoseconds]")),
                }
            }
        }
        from.deserialize_any(Length)
    }
}

/// Ties a mirror made by `#[serde(remote = ...)]` to its core type.
macro_rules! mirrors {
    ($($def:ident of $core:ty),+ $(,)?) => {$(
        impl Mirror<$core> for $def {
            fn write<S: serde::Serializer>(value: &$core, to: S) -> Result<S::Ok, S::Error> {
                $def::serialize(value, to)
            }
            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<$core, D::Error> {
                $def::deserialize(from)
            }
        }
    )+};
}
pub(super) use mirrors;

/// For `skip_serializing_if`: a field that is as a reader assumes it when it is absent.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
