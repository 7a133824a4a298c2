//! A report as Markdown and as one HTML file: templates in the program, everything that goes in is
//! escaped, and long lists are cut with a word about the rest.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tera::{Context, Kwargs, State, Tera, Value};

use super::Report;
use super::escape;
use super::part::{
    BatchPart, HostPart, IncidentPart, Need, RepoPart, SalvagePart, TaskPart, WorktreePart,
};
use crate::view::time::{Span, Stamp};

/// Rows of the table of tasks: more than a person reads; `status --all` has all of them.
const ROWS_MAX: usize = 500;
/// Tasks whose story is told.
const STORIES_MAX: usize = 100;
/// Lines of every other list.
const LINES_MAX: usize = 50;
/// Merge commits of one branch.
const COMMITS_MAX: usize = 200;
/// Most columns of an id in the table; longer ones push the rest of their line.
const ID_WIDTH_MAX: usize = 32;

const MARKDOWN: &str = "report.md";
const HTML: &str = "report.html";

/// A template of ours can not be filled: a defect, which a test with every key would show.
#[derive(Debug, thiserror::Error)]
#[error("the report can not be laid out")]
pub struct RenderError(#[from] tera::Error);

/// What the templates get: the report, its long lists cut.
#[derive(Serialize)]
struct Page<'a> {
    made: Stamp,
    task: Option<&'a str>,
    batch: &'a BatchPart,
    needs: &'a [Need],
    needs_more: usize,
    rows: Vec<&'a TaskPart>,
    rows_more: usize,
    stories: Vec<&'a TaskPart>,
    stories_more: usize,
    repos: Vec<RepoPage<'a>>,
    incidents: &'a [IncidentPart],
    incidents_before: usize,
    worktrees: &'a [WorktreePart],
    worktrees_more: usize,
    salvaged: &'a [SalvagePart],
    salvaged_more: usize,
    hosts: &'a [HostPart],
    hosts_more: usize,
    id_width: usize,
    merges: bool,
    has_usage: bool,
    version: &'static str,
    counts: String,
}

#[derive(Serialize)]
struct RepoPage<'a> {
    #[serde(flatten)]
    repo: &'a RepoPart,
    last: &'a [super::part::MergedPart],
    earlier: usize,
    waiting: &'a [String],
    waiting_more: usize,
}

/// The first ones, and how many more there are.
fn first<T>(all: &[T], max: usize) -> (&[T], usize) {
    let cut = all.len().min(max);
    (&all[..cut], all.len() - cut)
}

impl<'a> Page<'a> {
    fn new(report: &'a Report) -> Self {
        let report = &report.0;
        let (rows, rows_more) = ranked(report.tasks.iter().collect(), ROWS_MAX);
        // A report about one task tells its story however smooth it was.
        let told = |it: &&TaskPart| {
            let has_one = !it.attempts.is_empty() || it.merge.is_some() || it.needs_operator;
            report.task.is_some() || (has_one && !it.smooth)
        };
        let (stories, stories_more) =
            ranked(report.tasks.iter().filter(told).collect(), STORIES_MAX);
        let (needs, needs_more) = first(&report.needs, LINES_MAX);
        let (worktrees, worktrees_more) = first(&report.worktrees, LINES_MAX);
        let (salvaged, salvaged_more) = first(&report.salvaged, LINES_MAX);
        let (hosts, hosts_more) = first(&report.hosts, LINES_MAX);
        let widest = rows.iter().map(|row| row.id.len()).max();
        Self {
            made: report.made,
            task: report.task.as_deref(),
            batch: &report.batch,
            needs,
            needs_more,
            has_usage: report.batch.used.is_any(),
            merges: rows.iter().any(|row| row.merge.is_some()),
            rows,
            rows_more,
            stories,
            stories_more,
            repos: report.repos.iter().map(RepoPage::new).collect(),
            incidents: &report.incidents,
            incidents_before: report.incidents_before,
            worktrees,
            worktrees_more,
            salvaged,
            salvaged_more,
            hosts,
            hosts_more,
            id_width: widest.unwrap_or(0).clamp(4, ID_WIDTH_MAX),
            version: protocol::version::BUILD,
            counts: report.batch.counts.sentence(),
        }
    }
}

impl<'a> RepoPage<'a> {
    fn new(repo: &'a RepoPart) -> Self {
        let earlier = repo.merged.len().saturating_sub(COMMITS_MAX);
        let (waiting, waiting_more) = first(&repo.unmerged, LINES_MAX);
        Self {
            repo,
            last: &repo.merged[earlier..],
            earlier,
            waiting,
            waiting_more,
        }
    }
}

/// At most `max` tasks in the order of the plan: what needs the operator before what did not go
/// smoothly before the rest.
fn ranked(tasks: Vec<&TaskPart>, max: usize) -> (Vec<&TaskPart>, usize) {
    let more = tasks.len().saturating_sub(max);
    if more == 0 {
        return (tasks, 0);
    }
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by_key(|&at| (!tasks[at].needs_operator, tasks[at].smooth));
    order.truncate(max);
    order.sort_unstable();
    (order.into_iter().map(|at| tasks[at]).collect(), more)
}

/// The report as Markdown that also reads well in a terminal, times in this zone.
///
/// # Errors
/// [`RenderError`]: the template does not fit the report.
pub fn markdown(report: &Report, zone: &TimeZone) -> Result<String, RenderError> {
    let mut tera = engine(zone);
    tera.set_escape_fn(escape::write_markdown);
    tera.register_filter("code", |text: &str, _: Kwargs, _: &State| {
        Value::safe_string(&escape::code_span(text))
    });
    tera.add_raw_template(MARKDOWN, include_str!("report.md.tera"))?;
    fill(&tera, MARKDOWN, report)
}

/// The report as one HTML file that needs nothing else: no script, no network; times in this zone.
///
/// # Errors
/// [`RenderError`]: the template does not fit the report.
pub fn html(report: &Report, zone: &TimeZone) -> Result<String, RenderError> {
    let mut tera = engine(zone);
    tera.register_filter("prose", |text: &str, _: Kwargs, _: &State| {
        Value::safe_string(&escape::html_prose(text))
    });
    tera.add_raw_template(HTML, include_str!("report.html.tera"))?;
    fill(&tera, HTML, report)
}

fn fill(tera: &Tera, name: &str, report: &Report) -> Result<String, RenderError> {
    let context = Context::from_serialize(&Page::new(report))?;
    Ok(tera.render(name, &context)?)
}

/// What both templates can use.
fn engine(zone: &TimeZone) -> Tera {
    let mut tera = Tera::new();
    let day = zone.clone();
    tera.register_filter("date", move |text: &str, _: Kwargs, _: &State| {
        moment(text, &day, "%a %Y-%m-%d %H:%M %Z")
    });
    let clock = zone.clone();
    tera.register_filter("clock", move |text: &str, _: Kwargs, _: &State| {
        moment(text, &clock, "%a %H:%M:%S")
    });
    tera.register_filter("span", |millis: u64, _: Kwargs, _: &State| {
        Span(Duration::from_millis(millis)).to_string()
    });
    tera.register_filter("short", |text: &str, _: Kwargs, _: &State| {
        text.chars().take(12).collect::<String>()
    });
    tera.register_filter("bytes", |bytes: u64, _: Kwargs, _: &State| size(bytes));
    tera.register_filter("count", |number: u64, _: Kwargs, _: &State| counted(number));
    tera.register_filter("dollars", |number: f64, _: Kwargs, _: &State| {
        format!("{number:.2} USD")
    });
    tera.register_filter("pad", |text: String, kwargs: Kwargs, _: &State| {
        let width = kwargs.must_get::<usize>("width")?;
        Ok::<_, tera::Error>(format!("{text:width$}"))
    });
    tera.register_filter("right", |text: String, kwargs: Kwargs, _: &State| {
        let width = kwargs.must_get::<usize>("width")?;
        Ok::<_, tera::Error>(format!("{text:>width$}"))
    });
    tera.register_filter("dashes", |width: usize, _: Kwargs, _: &State| {
        "-".repeat(width)
    });
    tera.autoescape_on([".md", ".html"]);
    tera
}

/// A moment as the reader's clock shows it; as it is where that is not possible.
fn moment(text: &str, zone: &TimeZone, format: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// A size in the unit that leaves at most four digits.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut left = bytes;
    let mut said = format!("{bytes} bytes");
    for unit in units {
        if left < 1024 {
            break;
        }
        let (whole, tenth) = (left / 1024, left % 1024 * 10 / 1024);
        said = format!("{whole}.{tenth} {unit}");
        left = whole;
    }
    said
}

/// A number with a space between each three digits.
fn counted(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(counted(0), "0");
        assert_eq!(counted(999), "999");
        assert_eq!(counted(1_234_567), "1 234 567");
        assert_eq!(size(12), "12 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(200 << 20), "200.0 MiB");
        assert!(size(u64::MAX).ends_with("EiB"));
    }

    #[test]
    fn a_moment_is_shown_in_the_readers_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at = "2026-01-02T23:04:05.678Z";
        assert_eq!(moment(at, &zone, "%a %H:%M:%S"), "Sat 01:04:05");
        assert_eq!(moment("?", &zone, "%a"), "?");
    }
}
