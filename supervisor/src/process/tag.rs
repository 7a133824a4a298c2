//! The two tags that a run's whole tree inherits: the spawn token in the environment, and a number
//! made of it in the limit of file locks.
//!
//! The kernel has ignored `RLIMIT_LOCKS` since Linux 2.4.25, fork and exec inherit it, everybody
//! may read it, and nobody but root may raise it again. So it marks also what clears its
//! environment or changes its user. macOS has no such limit: there the token is the only tag.

#[cfg(target_os = "linux")]
use std::io;

#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[cfg(target_os = "macos")]
pub use crate::process::macos::{Lent, lend};

/// The variable that every host, and by inheritance its whole tree, carries.
pub const TOKEN_VARIABLE: &str = "SUPERVISOR_TOKEN";
/// Bits of the number where nothing limits it: below the kernel's "unlimited", with room above.
const TAG_BITS: u32 = 62;
/// Fewest bits of a number that is still taken for a tag: one bit goes with each supervisor inside
/// a run of another, and with 40 a stranger's limit equals one of 1,000 tags by chance once in
/// 2^29 limits that are no round number.
const TAG_BITS_MIN: u32 = 40;

/// A token as it stands in an environment: 32 hexadecimal digits.
pub fn token_text(token: u128) -> String {
    format!("{token:032x}")
}

/// The number of `bits` bits that stands for this token: its highest bit is set, so that its own
/// length says how it was made; the rest is the token's.
fn of_bits(token: u128, bits: u32) -> u64 {
    let top = 1_u64 << (bits - 1);
    top | (low_half(token) & (top - 1))
}

/// A token is random in all its bits; half of them are enough for a tag.
fn low_half(token: u128) -> u64 {
    let bytes = token.to_le_bytes();
    u64::from_le_bytes(std::array::from_fn(|ix| bytes[ix]))
}

/// The limit that a run with this token gets from a supervisor whose own hard limit is `hard`
/// (`None`: unlimited). `None` when there is no room below it.
pub fn limit_for(token: u128, hard: Option<u64>) -> Option<u64> {
    let bits = match hard {
        None => TAG_BITS,
        // A number of that many bits is always below the hard limit.
        Some(hard) => hard.checked_ilog2()?.min(TAG_BITS),
    };
    (bits >= TAG_BITS_MIN).then(|| of_bits(token, bits))
}

/// What a limit says of the token that it was made of: to be compared with [`key_of`].
pub fn key_in(limit: u64) -> Option<u64> {
    let bits = limit.checked_ilog2()? + 1;
    (TAG_BITS_MIN..=TAG_BITS)
        .contains(&bits)
        .then_some(limit & ((1 << (TAG_BITS_MIN - 1)) - 1))
}

/// The bits of a token that are in its tag however little room there was.
pub fn key_of(token: u128) -> u64 {
    low_half(token) & ((1 << (TAG_BITS_MIN - 1)) - 1)
}

/// Whether this hard limit stands for this token.
pub fn stands_for(limit: u64, token: u128) -> bool {
    limit.checked_ilog2().is_some_and(|top| {
        let bits = top + 1;
        (TAG_BITS_MIN..=TAG_BITS).contains(&bits) && limit == of_bits(token, bits)
    })
}

/// Our own soft limit, lent to a child that is about to be started; it goes back when dropped.
///
/// Only the soft limit is touched, so nobody takes us for a part of the run: what counts is the
/// hard one, which the host lowers to its soft one before it does anything else.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Lent {
    before: Rlimit,
}

/// Sets the tag for what is started next; `None` when this machine has no room for one.
///
/// # Errors
/// When the kernel refuses, which it does for no soft limit within the hard one.
#[cfg(target_os = "linux")]
pub fn lend(token: u128) -> io::Result<Option<Lent>> {
    let before = getrlimit(Resource::Locks);
    let Some(tag) = limit_for(token, before.maximum) else {
        return Ok(None);
    };
    let tagged = Rlimit {
        current: Some(tag),
        maximum: before.maximum,
    };
    setrlimit(Resource::Locks, tagged)?;
    Ok(Some(Lent { before }))
}

#[cfg(target_os = "linux")]
impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(error) = setrlimit(Resource::Locks, self.before) {
            tracing::error!(%error, "our own limit of file locks can not be set back");
        }
    }
}

/// The token in an environment; an empty or cut one is none.
pub fn token_in(environ: &[u8]) -> Option<u128> {
    environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry
            .strip_prefix(TOKEN_VARIABLE.as_bytes())?
            .strip_prefix(b"=")?;
        let digits = std::str::from_utf8(value).ok()?;
        let whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole
            .then(|| u128::from_str_radix(digits, 16).ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: u128 = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;

    #[test]
    fn only_a_whole_variable_of_that_name_is_a_token() {
        let token = 0xabcd_u128;
        let digits = token_text(token);
        let environ = format!("A=1\0SUPERVISOR_TOKEN={digits}\0B=2\0");
        assert_eq!(token_in(environ.as_bytes()), Some(token));
        let longer_name = format!("XSUPERVISOR_TOKEN={digits}\0");
        assert_eq!(token_in(longer_name.as_bytes()), None);
        let in_a_value = format!("A=SUPERVISOR_TOKEN={digits}\0");
        assert_eq!(token_in(in_a_value.as_bytes()), None);
        assert_eq!(token_in(b"SUPERVISOR_TOKEN=\0"), None);
        assert_eq!(token_in(b"SUPERVISOR_TOKEN=abcd\0"), None);
        assert_eq!(
            token_in(format!("SUPERVISOR_TOKEN=+{}\0", &digits[1..]).as_bytes()),
            None
        );
        assert_eq!(token_in(b""), None);
    }

    #[test]
    fn a_tag_stands_for_its_token_at_every_depth_of_nesting_and_for_no_other() {
        let mut hard = None;
        let mut depths = 0;
        while let Some(tag) = limit_for(TOKEN, hard) {
            assert!(
                hard.is_none_or(|hard| tag < hard),
                "it must fit below {hard:?}"
            );
            assert!(stands_for(tag, TOKEN));
            assert_eq!(key_in(tag), Some(key_of(TOKEN)));
            for bit in 0..TAG_BITS_MIN - 1 {
                assert!(
                    !stands_for(tag, TOKEN ^ 1 << bit),
                    "bit {bit} is not looked at"
                );
            }
            (hard, depths) = (Some(tag), depths + 1);
        }
        assert_eq!(depths, TAG_BITS - TAG_BITS_MIN + 1);
    }

    #[test]
    fn no_usual_limit_is_a_tag() {
        for limit in [
            0,
            1,
            1024,
            65_536,
            u64::from(u32::MAX),
            u64::MAX,
            1 << 62,
            1 << 63,
        ] {
            assert!(!stands_for(limit, TOKEN), "{limit}");
        }
        for hard in [0, 1, 1024, 1 << 39] {
            assert_eq!(limit_for(TOKEN, Some(hard)), None, "no room below {hard}");
        }
    }

    #[test]
    fn a_lent_limit_comes_back() {
        let before = getrlimit(Resource::Locks);
        let lent = lend(TOKEN).unwrap();
        if lent.is_some() {
            let during = getrlimit(Resource::Locks);
            assert!(stands_for(during.current.unwrap(), TOKEN));
            assert_eq!(
                during.maximum, before.maximum,
                "the hard limit is not ours to lend"
            );
        }
        drop(lent);
        assert_eq!(getrlimit(Resource::Locks).current, before.current);
    }
}
