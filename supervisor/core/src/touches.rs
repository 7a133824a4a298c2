//! Whether two globs of files can name the same path.
//!
//! `*` and `?` stay within one path segment, `**` spans segments, `[...]` counts as any one
//! character (so an overlap is never missed). A pattern names its whole subtree as well: `src` and
//! `src/a.rs` overlap.

/// Whether any pattern of `a` overlaps any of `b`.
pub fn any_overlap(a: &[std::sync::Arc<str>], b: &[std::sync::Arc<str>]) -> bool {
    a.iter()
        .any(|left| b.iter().any(|right| overlap(left, right)))
}

/// Whether two patterns can name the same path or one a folder of the other.
pub fn overlap(a: &str, b: &str) -> bool {
    let split = |pattern: &str| -> Vec<Vec<char>> {
        let parts = pattern
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        parts.map(|part| part.chars().collect()).collect()
    };
    paths_meet(&split(a), &split(b))
}

const ANY_DEPTH: &[char] = &['*', '*'];

fn paths_meet(a: &[Vec<char>], b: &[Vec<char>]) -> bool {
    match (a.split_first(), b.split_first()) {
        // One pattern is used up: the other names something in its subtree.
        (None, _) | (_, None) => true,
        (Some((first, rest)), _) if first == ANY_DEPTH => {
            paths_meet(rest, b) || paths_meet(a, &b[1..])
        }
        (_, Some((first, rest))) if first == ANY_DEPTH => {
            paths_meet(a, rest) || paths_meet(&a[1..], b)
        }
        (Some((left, left_rest)), Some((right, right_rest))) => {
            segments_meet(left, right) && paths_meet(left_rest, right_rest)
        }
    }
}

fn segments_meet(a: &[char], b: &[char]) -> bool {
    match (a.split_first(), b.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) if b.is_empty() => segments_meet(rest, b),
        (_, Some(('*', rest))) if a.is_empty() => segments_meet(a, rest),
        (None, Some(_)) | (Some(_), None) => false,
        (Some(('*', rest)), Some(_)) => segments_meet(rest, b) || segments_meet(a, &b[1..]),
        (Some(_), Some(('*', rest))) => segments_meet(a, rest) || segments_meet(&a[1..], b),
        (Some((left, _)), Some((right, _))) => {
            let wild = matches!(left, '?' | '[') || matches!(right, '?' | '[');
            (wild || left == right) && segments_meet(after_one(a), after_one(b))
        }
    }
}

/// What follows one character, or one `[...]`.
fn after_one(pattern: &[char]) -> &[char] {
    match pattern.split_first() {
        Some(('[', rest)) => match rest.iter().position(|&c| c == ']') {
            Some(end) => &rest[end + 1..],
            None => rest,
        },
        Some((_, rest)) => rest,
        None => pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn overlap_is_found_in_both_orders_and_never_missed() {
        let cases = [
            ("src/parser/**", "src/parser/a.rs", true),
            ("src/parser/**", "src/lexer/**", false),
            ("src/**", "src/parser/deep/x.rs", true),
            ("src", "src/a.rs", true),
            ("src/*.rs", "src/main.rs", true),
            ("src/*.rs", "src/main.c", false),
            ("**/*.rs", "a/b/c.rs", true),
            ("**/*.rs", "a/b/c.md", true),
            ("a?c", "abc", true),
            ("a[xy]c/**", "abc/d", true),
            ("docs/*", "docs/a/b", true),
            ("", "anything", true),
            ("x/**/y", "x/y", true),
            ("x/**/y", "x/q/z", true),
            ("x/*/y", "x/q/z", false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(overlap(a, b), expected, "{a} with {b}");
            assert_eq!(overlap(b, a), expected, "{b} with {a}");
        }
    }
}
