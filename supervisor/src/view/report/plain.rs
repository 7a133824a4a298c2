//! What agents wrote, made harmless before it is in a report: one line, no control characters, no
//! escape sequences of a terminal, nothing that turns the direction of text, and not too long.

use protocol::report::excerpt;

/// Longest sentence of an agent in a report, bytes: enough for a summary, too little for a log.
pub const SENTENCE_MAX: usize = 400;
/// Longest line of output in a report, bytes.
pub const OUTPUT_LINE_MAX: usize = 200;
/// Lines of output in a report: its end says what went wrong.
pub const OUTPUT_LINES_MAX: usize = 3;

/// How a terminal's escape sequence begins.
const ESCAPE: char = '\u{1b}';
/// How one begins in a single character of eight bits.
const SHORT_CSI: char = '\u{9b}';

/// The first line that says something, at most [`SENTENCE_MAX`] long.
pub fn sentence(text: &str) -> String {
    let cut = bounded(text);
    let clean = without_sequences(cut);
    let mut lines = clean.split(is_line_end).map(one_line);
    let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
    excerpt(&first, SENTENCE_MAX)
}

/// The last lines that say something, at most [`OUTPUT_LINES_MAX`] of them.
pub fn output(text: &str) -> Vec<String> {
    let clean = without_sequences(text);
    let lines = clean.split(is_line_end).rev().map(one_line);
    let said = lines.filter(|line| !line.is_empty());
    let mut last: Vec<String> = said
        .take(OUTPUT_LINES_MAX)
        .map(|line| excerpt(&line, OUTPUT_LINE_MAX))
        .collect();
    last.reverse();
    last
}

/// No more is looked at: a sentence is not behind so many empty lines.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(SENTENCE_MAX * 16)]
}

fn is_line_end(letter: char) -> bool {
    matches!(
        letter,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Words with one space between them; what can not be seen, or moves what can, is left out.
fn one_line(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for letter in line.chars() {
        if letter.is_whitespace() {
            if !text.is_empty() && !text.ends_with(' ') {
                text.push(' ');
            }
        } else if !letter.is_control() && !is_invisible(letter) {
            text.push(letter);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Marks of direction, joiners, tags and other characters without a width of their own.
fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The text without escape sequences: colours, movements, titles, links.
fn without_sequences(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            SHORT_CSI => skip_control(&mut letters),
            ESCAPE => match letters.next_if(|next| !is_line_end(*next)) {
                Some('[') => skip_control(&mut letters),
                // A title, a link, or a message to the terminal itself.
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut letters),
                // Any other is one character long, after those in between.
                Some(' '..='/') => drop(letters.next_if(|next| !is_line_end(*next))),
                Some(_) | None => {}
            },
            other => clean.push(other),
        }
    }
    clean
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Parameters up to the letter that ends them.
fn skip_control(letters: &mut Letters<'_>) {
    while letters.next_if(|next| matches!(next, ' '..='?')).is_some() {}
    let _last = letters.next_if(|next| matches!(next, '@'..='~'));
}

/// Up to BEL or ESC `\`, or to the end of the line where it has no end.
fn skip_string(letters: &mut Letters<'_>) {
    while let Some(next) = letters.next_if(|next| !is_line_end(*next)) {
        if next == '\u{7}' || next == '\u{9c}' {
            return;
        }
        if next == ESCAPE {
            let _end = letters.next_if_eq(&'\\');
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_the_first_line_that_says_something() {
        assert_eq!(sentence("\n \n  it   works\tnow \nreally"), "it works now");
        assert_eq!(sentence("one\u{2028}two"), "one");
        assert_eq!(sentence(""), "");
        let long = sentence(&"ä".repeat(1000));
        assert!(long.len() <= SENTENCE_MAX && long.ends_with('…'), "{long}");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let cases = [
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{9b}1;5Hthere", "there"),
            ("\u{1b}]0;a title\u{7}shown", "shown"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}(Bplain", "plain"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("a\u{8}b\u{0}c\u{7f}", "abc"),
            ("\u{1b}]never ended\nnext", "next"),
        ];
        for (text, clean) in cases {
            assert_eq!(sentence(text), clean, "{text:?}");
        }
    }

    #[test]
    fn nothing_that_hides_or_turns_text_is_left() {
        let text = "safe\u{202e}cod.exe\u{202c}\u{200b}\u{feff}\u{e0041}\u{2066}x";
        assert_eq!(sentence(text), "safecod.exex");
    }

    #[test]
    fn the_end_of_an_output_is_its_last_lines_that_say_something() {
        let text = "one\ntwo\n\nthree\u{1b}[0m\r\nfour\n\n";
        assert_eq!(output(text), ["two", "three", "four"]);
        assert_eq!(output("\n\n"), Vec::<String>::new());
        assert!(output(&"y".repeat(5000))[0].len() <= OUTPUT_LINE_MAX);
    }
}
