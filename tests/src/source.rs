//! The repository's own sources as data, for the rules that a program can judge.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::path::{Path, PathBuf};

/// Folders that hold no source of ours, by name.
const NOT_OURS: &[&str] = &["target", ".git", "corpus"];

/// One Rust file.
#[derive(Debug)]
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    /// As written.
    pub text: String,
    /// With the content of comments, strings and characters replaced by spaces; same lines.
    pub code: String,
    /// For each line: whether it is a test's.
    test: Vec<bool>,
}

/// A function: its name, first line (from 1) and length in lines, signature to closing brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub line: usize,
    /// How long it is.
    pub lines: usize,
}

/// The repository's root.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the repository")
        .to_owned()
}

/// Every file of the repository whose name ends so, relative paths, sorted.
///
/// # Panics
/// When a folder can not be read.
pub fn files(endings: &[&str]) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let entry = entry.expect("an entry of the repository");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("the type of an entry");
            if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let path = entry.path();
                let below = path.strip_prefix(&root).expect("a path below the root");
                found.push(below.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Text of a file of the repository; what is no text in it (a fixture may be so) is marked.
///
/// # Panics
/// When it can not be read.
pub fn text(path: &str) -> String {
    let bytes = std::fs::read(root().join(path));
    let bytes = bytes.unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every Rust file of the repository.
///
/// # Panics
/// As [`files`] and [`text`].
pub fn sources() -> Vec<Source> {
    let paths = files(&[".rs"]).into_iter();
    paths.map(|path| Source::new(&path, text(&path))).collect()
}

impl Source {
    /// Reads one file.
    pub fn new(path: &str, text: String) -> Self {
        let code = code_only(&text);
        let parts = Path::new(path).components();
        let in_tests = parts
            .into_iter()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "fuzz");
        let test = if in_tests || path.ends_with("/tests.rs") {
            vec![true; text.lines().count()]
        } else {
            test_modules(&text, &code)
        };
        Self {
            path: path.to_owned(),
            text,
            code,
            test,
        }
    }

    /// Its lines with their numbers from 1, whether they are a test's, and their code.
    pub fn lines(&self) -> impl Iterator<Item = (usize, bool, &str)> {
        let lines = self.code.lines().zip(&self.test).enumerate();
        lines.map(|(at, (line, test))| (at + 1, *test, line))
    }

    /// Lines that are not a test's, comments and blank ones included.
    pub fn production_lines(&self) -> usize {
        self.test.iter().filter(|test| !**test).count()
    }

    /// Lines that hold more than a comment: (production, test).
    pub fn code_lines(&self) -> (usize, usize) {
        let counted = self.text.lines().zip(&self.test).filter(|(line, _)| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with("//")
        });
        let (test, production): (Vec<_>, Vec<_>) = counted.partition(|(_, test)| **test);
        (production.len(), test.len())
    }

    /// Its functions outside of tests.
    pub fn functions(&self) -> Vec<Function> {
        let all = functions(&self.code).into_iter();
        all.filter(|function| !self.test[function.line - 1])
            .collect()
    }

    /// Names that are defined outside of tests, with their lines.
    pub fn definitions(&self) -> Vec<(usize, String)> {
        const KEYWORDS: &[&str] = &[
            "fn", "struct", "enum", "trait", "mod", "type", "const", "static", "union",
        ];
        let mut found = Vec::new();
        for (number, test, line) in self.lines() {
            let words: Vec<&str> = words(line).collect();
            let pairs = words.windows(2).filter(|pair| KEYWORDS.contains(&pair[0]));
            // `const fn`: the second keyword is not the name.
            let names = pairs
                .map(|pair| pair[1])
                .filter(|name| !KEYWORDS.contains(name));
            if !test {
                found.extend(names.map(|name| (number, name.to_owned())));
            }
        }
        found
    }
}

/// The identifiers and keywords of a line.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Marks the lines of `#[cfg(test)]` items.
fn test_modules(text: &str, code: &str) -> Vec<bool> {
    let mut test = vec![false; text.lines().count()];
    let lines: Vec<&str> = code.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim_start().starts_with("#[cfg(test)]") {
            let end = item_end(&lines, at);
            test[at..=end].fill(true);
            at = end;
        }
        at += 1;
    }
    test
}

/// Last line of the item that begins at line `from`: where its braces close, or its semicolon.
fn item_end(lines: &[&str], from: usize) -> usize {
    let mut depth = 0_usize;
    for (number, line) in lines.iter().enumerate().skip(from) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => return number,
                '}' => depth -= 1,
                ';' if depth == 0 => return number,
                _ => {}
            }
        }
    }
    lines.len() - 1
}

fn functions(code: &str) -> Vec<Function> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = words(line).collect();
        let Some(pair) = words.windows(2).find(|pair| pair[0] == "fn") else {
            continue;
        };
        let name = pair[1].to_owned();
        let signature = line.find("fn ").unwrap_or(0);
        // What stands before the signature (an opening brace of a module) is not the function's.
        let mut rest = lines.clone();
        rest[at] = &line[signature..];
        let end = item_end(&rest, at);
        found.push(Function {
            name,
            line: at + 1,
            lines: end - at + 1,
        });
    }
    found
}

/// What a character belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Code,
    LineComment,
    /// Nested this deep.
    BlockComment(usize),
    Text,
    /// Ends with a quote and this many hashes.
    RawText(usize),
    Character,
}

/// Replaces the content of comments, strings and character literals by spaces.
pub fn code_only(text: &str) -> String {
    let all: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut state = In::Code;
    let mut at = 0;
    while at < all.len() {
        let (next, length) = step(state, &all, at);
        for &c in &all[at..(at + length).min(all.len())] {
            let kept = c == '\n' || (state == In::Code && next == In::Code);
            code.push(if kept { c } else { ' ' });
        }
        state = next;
        at += length;
    }
    code
}

/// The state after the characters at `at`, and how many they are.
fn step(state: In, all: &[char], at: usize) -> (In, usize) {
    let c = all[at];
    let after = all.get(at + 1).copied();
    match state {
        In::Code => step_in_code(all, at),
        In::LineComment if c == '\n' => (In::Code, 1),
        In::LineComment => (state, 1),
        In::BlockComment(depth) => match (c, after) {
            ('*', Some('/')) if depth == 1 => (In::Code, 2),
            ('*', Some('/')) => (In::BlockComment(depth - 1), 2),
            ('/', Some('*')) => (In::BlockComment(depth + 1), 2),
            _ => (state, 1),
        },
        In::Text | In::Character if c == '\\' => (state, 2),
        In::Text if c == '"' => (In::Code, 1),
        In::Character if c == '\'' => (In::Code, 1),
        In::RawText(hashes) if c == '"' && hashes_at(all, at + 1) >= hashes => {
            (In::Code, 1 + hashes)
        }
        In::Text | In::Character | In::RawText(_) => (state, 1),
    }
}

fn step_in_code(all: &[char], at: usize) -> (In, usize) {
    let after = all.get(at + 1).copied();
    let in_word = at > 0 && (all[at - 1].is_alphanumeric() || all[at - 1] == '_');
    match (all[at], after) {
        ('/', Some('/')) => (In::LineComment, 2),
        ('/', Some('*')) => (In::BlockComment(1), 2),
        ('"', _) => (In::Text, 1),
        ('r', Some('"' | '#')) if !in_word || all[at - 1] == 'b' => {
            let hashes = hashes_at(all, at + 1);
            match all.get(at + 1 + hashes) {
                Some('"') => (In::RawText(hashes), 2 + hashes),
                // A raw identifier.
                _ => (In::Code, 1),
            }
        }
        // A lifetime has no quote behind its first character; a character literal has, or an escape.
        ('\'', Some('\\')) => (In::Character, 1),
        ('\'', Some(_)) if all.get(at + 2) == Some(&'\'') => (In::Character, 1),
        _ => (In::Code, 1),
    }
}

fn hashes_at(all: &[char], from: usize) -> usize {
    all[from..].iter().take_while(|c| **c == '#').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r##"//! Sample { "quoted
fn first<'a>(x: &'a str) -> char {
    let brace = "{ \" {";
    let raw = r#"{ " {"#;
    /* { /* nested */ { */
    '{'
}
const fn second() {}
trait T { fn declared(&self); }

#[cfg(test)]
mod tests {
    fn third() {
        // }
    }
}
struct After;
"##;

    #[test]
    fn braces_in_text_and_comments_do_not_count() {
        let source = Source::new("x/src/sample.rs", SAMPLE.to_owned());
        let names: Vec<_> = source
            .functions()
            .into_iter()
            .map(|f| (f.name, f.line, f.lines))
            .collect();
        let wanted = [("first", 2, 6), ("second", 8, 1), ("declared", 9, 1)];
        assert_eq!(
            names,
            wanted.map(|(name, line, lines)| (name.to_owned(), line, lines))
        );
    }

    #[test]
    fn lines_of_test_modules_are_tests() {
        let source = Source::new("x/src/sample.rs", SAMPLE.to_owned());
        let test: Vec<_> = source
            .lines()
            .filter(|(_, test, _)| *test)
            .map(|(n, _, _)| n)
            .collect();
        assert_eq!(test, [11, 12, 13, 14, 15, 16]);
        assert_eq!(source.production_lines(), 11);
        assert_eq!(
            source.code_lines(),
            (9, 5),
            "a comment alone and a blank line are neither"
        );
        let definitions: Vec<_> = source
            .definitions()
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(definitions, ["first", "second", "T", "declared", "After"]);
    }

    #[test]
    fn whole_files_can_be_tests() {
        for path in [
            "protocol/tests/golden.rs",
            "supervisor/src/store/tests.rs",
            "tests/src/x.rs",
        ] {
            let source = Source::new(path, SAMPLE.to_owned());
            assert_eq!(source.production_lines(), 0, "{path}");
        }
    }

    #[test]
    fn characters_lifetimes_and_escapes_are_told_apart() {
        let cases = [
            (r"let a = '\''; {", "let a =     ; {"),
            ("impl<'a> X<'a> {", "impl<'a> X<'a> {"),
            (r#"b"\"{" }"#, "b      }"),
            ("r#type {", "r#type {"),
            ("x // {\n}", "x     \n}"),
        ];
        for (text, code) in cases {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(squeezed(&code_only(text)), squeezed(code), "{text}");
            assert_eq!(code_only(text).len(), text.len(), "{text}");
        }
    }
}
