//! Templates: tera, strict, without escaping, and only what one text needs by itself.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use tera::{Context, ErrorKind, Kwargs, State, Tera, Value};

/// Longest text that a template may become, bytes (16 MiB: a prompt is far smaller, and a template
/// that loops must not eat the machine).
pub(super) const RENDERED_MAX: usize = 16 << 20;
/// Compiled templates kept; when there are more, all are compiled anew as they are needed. A batch
/// whose tasks share texts by `foreach` or `defaults` needs a handful.
const CACHE_MAX: usize = 64;
/// Longest list that `range` makes in a template.
const RANGE_MAX: i64 = 100_000;

/// The names that every template can use.
pub(super) const NAMES: &[&str] = &[
    "batch", "deps", "handoff", "issue", "item", "pr", "slot", "task", "vars",
];

/// Whether a text is a template at all; most are not and never reach the engine.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Why a template can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// Where in the text: line from 1, column from 0, characters.
    pub at: Option<(usize, usize, usize)>,
}

impl TemplateError {
    fn new(error: &tera::Error) -> Self {
        match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
                let span = report.span();
                let same_line = span.start_line == span.end_line;
                let length = if same_line {
                    span.end_col.saturating_sub(span.start_col)
                } else {
                    1
                };
                Self {
                    message: plain(report.message()),
                    at: Some((span.start_line, span.start_col, length)),
                }
            }
            _ => Self {
                message: plain(&error.to_string()),
                at: None,
            },
        }
    }
}

/// The first line of tera's report, in the form of our own messages.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or("");
    let line = line.trim_start_matches("error: ").trim_end_matches('.');
    let mut letters = line.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "the template can not be read".to_owned(),
    }
}

/// Compiles and renders; each text is compiled once.
#[derive(Debug)]
pub(super) struct Engine {
    bare: Tera,
    compiled: Tera,
    names: HashMap<Arc<str>, String>,
}

impl Default for Engine {
    fn default() -> Self {
        let mut bare = Tera::new();
        bare.register_filter("slug", slug_filter);
        bare.register_filter("quote", quote_filter);
        bare.register_filter("blockquote", blockquote_filter);
        bare.register_function("range", bounded_range);
        Self {
            compiled: bare.clone(),
            bare,
            names: HashMap::new(),
        }
    }
}

impl Engine {
    /// The names at the top of a template's variables, sorted; an error when it has no valid form.
    pub(super) fn check(&self, text: &str) -> Result<Vec<String>, TemplateError> {
        let mut tera = self.bare.clone();
        let error = |error: tera::Error| TemplateError::new(&error);
        tera.add_raw_template("text", text).map_err(error)?;
        let names = tera.get_template_variables("text").map_err(error)?;
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The text with its templates filled in.
    pub(super) fn render(
        &mut self,
        text: &str,
        context: &Context,
    ) -> Result<String, TemplateError> {
        if !is_template(text) {
            return Ok(text.to_owned());
        }
        let error = |error: tera::Error| TemplateError::new(&error);
        let name = self.compile(text).map_err(error)?;
        let mut out = Bounded::default();
        let rendered = self.compiled.render_to(&name, context, &mut out);
        if out.full {
            let message = format!("the text becomes longer than {RENDERED_MAX} bytes");
            return Err(TemplateError { message, at: None });
        }
        rendered.map_err(error)?;
        String::from_utf8(out.bytes).map_err(|_| TemplateError {
            message: "the text is not UTF-8".to_owned(),
            at: None,
        })
    }

    fn compile(&mut self, text: &str) -> Result<String, tera::Error> {
        if let Some(name) = self.names.get(text) {
            return Ok(name.clone());
        }
        if self.names.len() >= CACHE_MAX {
            self.names.clear();
            self.compiled = self.bare.clone();
        }
        let name = format!("text {}", self.names.len());
        self.compiled.add_raw_template(&name, text)?;
        self.names.insert(text.into(), name.clone());
        Ok(name)
    }
}

/// Takes bytes up to [`RENDERED_MAX`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDERED_MAX {
            self.full = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A value as templates see it.
pub(super) fn to_value(json: &Json) -> Value {
    Value::from_serializable(json)
}

fn slug_filter(text: &str, _: Kwargs, _: &State) -> String {
    slug(text)
}

fn quote_filter(text: &str, _: Kwargs, _: &State) -> String {
    quote(text)
}

fn blockquote_filter(text: &str, _: Kwargs, _: &State) -> String {
    blockquote(text)
}

fn bounded_range(arguments: Kwargs, _: &State) -> tera::TeraResult<Vec<i64>> {
    let start = arguments.get::<i64>("start")?.unwrap_or(0);
    let end = arguments.must_get::<i64>("end")?;
    let step = arguments.get::<i64>("step_by")?.unwrap_or(1);
    let length = end.saturating_sub(start);
    if step < 1 || length / step > RANGE_MAX {
        return Err(tera::Error::message(format!(
            "`range` takes a step from 1 and makes at most {RANGE_MAX} numbers"
        )));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok((start..end).step_by(step).collect())
}

/// A text as part of a task id: lower case, everything but letters, digits, `.` and `_` is `-`.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for letter in text.chars() {
        let letter = letter.to_ascii_lowercase();
        let fits = letter.is_ascii_alphanumeric() || letter == '_' || letter == '.';
        let letter = if fits { letter } else { '-' };
        let last = slug.chars().next_back();
        let doubled = matches!(letter, '-' | '.') && last.is_none_or(|c| c == '-' || c == '.');
        if !doubled {
            slug.push(letter);
        }
    }
    let slug = slug.trim_end_matches(['-', '.']);
    match slug.strip_suffix(".lock") {
        Some(stem) => format!("{stem}-lock"),
        None => slug.to_owned(),
    }
}

/// A text with each line behind a `>`: nothing in it can look like what stands around it.
pub(super) fn blockquote(text: &str) -> String {
    // Others than `\n` end a line for some readers, too.
    let ends = ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    let text = text.replace("\r\n", "\n").replace(ends, "\n");
    let lines = text.trim_end().split('\n');
    let lines: Vec<String> = lines.map(|line| format!("> {line}")).collect();
    lines.join("\n")
}

/// A text as one word of a shell command.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let mut context = Context::new();
        context.insert_value("vars", to_value(&serde_json::json!({"who": "you", "n": 3})));
        context
    }

    #[test]
    fn plain_texts_pass_untouched_and_templates_are_filled_without_escaping() {
        let mut engine = Engine::default();
        assert_eq!(engine.render("a < b } {", &context()).unwrap(), "a < b } {");
        let text = "<{{ vars.who }}> & {{ vars.n }}";
        assert_eq!(engine.render(text, &context()).unwrap(), "<you> & 3");
        assert_eq!(engine.render(text, &context()).unwrap(), "<you> & 3");
    }

    #[test]
    fn what_is_unknown_is_an_error_with_its_place() {
        let mut engine = Engine::default();
        let error = engine
            .render("one\n  {{ vars.nobody }}", &context())
            .unwrap_err();
        assert_eq!(error.at.map(|(line, ..)| line), Some(2), "{error:?}");
        assert!(error.message.contains("nobody"), "{error:?}");
        assert!(engine.check("{{ a | nofilter }}").is_err());
        assert!(engine.check("{% if %}").is_err());
        assert_eq!(engine.check("{{ b }}{{ a.x }}").unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_text_can_not_include_another() {
        let mut engine = Engine::default();
        engine.render("{{ vars.who }}", &context()).unwrap();
        assert!(engine.check("{% include \"text 0\" %}").is_err());
    }

    #[test]
    fn the_cache_is_emptied_when_full_and_goes_on() {
        let mut engine = Engine::default();
        for number in 0..CACHE_MAX * 2 + 3 {
            let text = format!("{number} {{{{ vars.who }}}}");
            assert_eq!(
                engine.render(&text, &context()).unwrap(),
                format!("{number} you")
            );
            assert!(engine.names.len() <= CACHE_MAX);
        }
    }

    #[test]
    fn output_and_range_are_bounded() {
        let mut engine = Engine::default();
        let line = "x".repeat(1000);
        let flood = format!(
            "{{% for a in range(end=1000) %}}{{% for b in range(end=1000) %}}{line}{{% endfor %}}{{% endfor %}}"
        );
        let error = engine.render(&flood, &context()).unwrap_err();
        assert!(error.message.contains("longer than"), "{error:?}");
        assert!(
            engine
                .render("{{ range(end=1000000000) }}", &context())
                .is_err()
        );
        assert!(
            engine
                .render("{{ range(end=10, step_by=0) }}", &context())
                .is_err()
        );
        assert_eq!(
            engine
                .render("{{ range(end=3) | join(sep='') }}", &context())
                .unwrap(),
            "012"
        );
    }

    #[test]
    fn slugs_are_safe_ids() {
        for (text, slug_of_it) in [
            ("src/Parser/mod.rs", "src-parser-mod.rs"),
            ("../etc//passwd", "etc-passwd"),
            ("a..b", "a.b"),
            ("Cargo.lock", "cargo-lock"),
            ("ends.", "ends"),
            ("über Größe", "ber-gr-e"),
        ] {
            assert_eq!(slug(text), slug_of_it, "{text}");
            assert!(
                slug(text).parse::<protocol::ids::TaskId>().is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_in_a_blockquote_begins_a_line() {
        let text = "one\r\ntwo\rthree\u{2028}four\n\n";
        assert_eq!(blockquote(text), "> one\n> two\n> three\n> four");
        assert_eq!(blockquote(""), "> ");
    }

    #[test]
    fn a_quoted_text_is_one_shell_word() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
