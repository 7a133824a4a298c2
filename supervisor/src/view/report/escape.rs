//! Text as part of Markdown and of HTML, so that it stays text. It is one line, and has no control
//! characters: [`plain`](super::plain) saw to that.

use std::io::{self, Write};

/// Writes text as Markdown shows it. Pairs of backticks stay, as in our own sentences: what is
/// between them is shown as it is, and nothing in it means anything.
///
/// # Errors
/// When `out` can not be written.
pub(super) fn write_markdown(text: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut said = String::with_capacity(text.len() + 8);
    for part in parts(text) {
        match part {
            Part::Code(code) => said.push_str(&code_span(code)),
            Part::Prose(prose) => markdown_prose(prose, &mut said),
        }
    }
    out.write_all(said.as_bytes())
}

/// A part of a sentence.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    /// Between two single backticks.
    Code(&'a str),
    /// Anything else.
    Prose(&'a str),
}

/// Splits a sentence at its backticks; the last one without a partner is prose.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('`') {
        let Some((code, behind)) = after.split_once('`') else {
            break;
        };
        parts.push(Part::Prose(before));
        parts.push(Part::Code(code));
        rest = behind;
    }
    parts.push(Part::Prose(rest));
    parts
}

/// Puts a backslash before what Markdown would take for more than text. Text never stands at the
/// beginning of a line in our templates, so what has a meaning only there is left as it is.
fn markdown_prose(text: &str, said: &mut String) {
    let letters: Vec<char> = text.chars().collect();
    let is_word = |at: Option<usize>| {
        let letter = at.and_then(|at| letters.get(at));
        letter.is_some_and(|letter| letter.is_alphanumeric())
    };
    for (at, letter) in letters.iter().enumerate() {
        let inside = is_word(at.checked_sub(1)) && is_word(Some(at + 1));
        let means_more = match letter {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '~' | '@' | '$' => true,
            '_' => !inside,
            '&' | '#' => is_word(Some(at + 1)),
            ':' => letters.get(at + 1) == Some(&'/'),
            '.' => letters[..at].ends_with(&['w', 'w', 'w']),
            _ => false,
        };
        if means_more {
            said.push('\\');
        }
        said.push(*letter);
    }
}

/// Text in a code span, in which nothing means anything. Not for the cell of a table, where `|` would.
pub(super) fn code_span(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let runs = text.split(|letter| letter != '`').map(str::len);
    let fence = "`".repeat(runs.max().unwrap_or(0) + 1);
    let touches = text.starts_with('`') || text.ends_with('`');
    let space = if touches { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// Text as HTML, with what stands between two backticks as code.
pub(super) fn html_prose(text: &str) -> String {
    let mut said = String::with_capacity(text.len() + 16);
    for part in parts(text) {
        match part {
            Part::Prose(prose) => html_text(prose, &mut said),
            Part::Code(code) => {
                said.push_str("<code>");
                html_text(code, &mut said);
                said.push_str("</code>");
            }
        }
    }
    said
}

fn html_text(text: &str, said: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => said.push_str("&amp;"),
            '<' => said.push_str("&lt;"),
            '>' => said.push_str("&gt;"),
            '"' => said.push_str("&quot;"),
            '\'' => said.push_str("&#39;"),
            other => said.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markdown(text: &str) -> String {
        let mut out = Vec::new();
        write_markdown(text, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_markdown_would_take_for_more_than_text_is_text() {
        let cases = [
            ("a_b verify_failed _x_", "a_b verify_failed \\_x\\_"),
            (
                "**bold** [x](http://y)",
                "\\*\\*bold\\*\\* \\[x\\](http\\://y)",
            ),
            ("<script>", "\\<script\\>"),
            ("a | b", "a \\| b"),
            ("ask @somebody, www.x.y", "ask \\@somebody, www\\.x.y"),
            ("&lt; #12 & #", "\\&lt; \\#12 & #"),
            ("`make check` exited", "`make check` exited"),
            ("a ` alone", "a \\` alone"),
            ("``` fence", "\\` fence"),
        ];
        for (text, shown) in cases {
            assert_eq!(markdown(text), shown, "{text}");
        }
    }

    #[test]
    fn a_code_span_holds_whatever_it_is_given() {
        assert_eq!(code_span("ls -l"), "`ls -l`");
        assert_eq!(code_span("a`b``c"), "```a`b``c```");
        assert_eq!(code_span("`x`"), "`` `x` ``");
        assert_eq!(code_span("a|b"), "`a|b`");
        assert_eq!(code_span("  "), "");
    }

    #[test]
    fn html_keeps_text_text() {
        assert_eq!(
            html_prose("<b> \"x\" & 'y' `<i>`"),
            "&lt;b&gt; &quot;x&quot; &amp; &#39;y&#39; <code>&lt;i&gt;</code>"
        );
    }
}
