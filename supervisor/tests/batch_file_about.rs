//! Tasks about issues and pull requests in batch files: what is read, and what agents are told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use protocol::forge::{ForgeComment, ForgeItem, ForgeKind, ITEM_VERSION, Reference};
use protocol::ids::AttemptNo;
use supervisor::batch_file::render::{RenderContext, RenderError, Renderer};
use supervisor::batch_file::work::{AgentWork, BatchWork, TaskWork};
use supervisor::batch_file::{BatchFile, Request, Source, read};

const HEAD: &str = "version: 1\nisolation: none\nagents:\n  coder: {kind: command, command: [cat]}\n\
                    tasks:\n";

fn file(tasks: &str) -> BatchFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("batch.yml");
    std::fs::write(&path, format!("{HEAD}{tasks}")).unwrap();
    let request = Request {
        source: Source::File(&path),
        current_dir: folder.path(),
        user_config: None,
        set: &[],
    };
    read(&request).unwrap_or_else(|report| panic!("{report}"))
}

fn issue() -> ForgeItem {
    ForgeItem {
        version: ITEM_VERSION,
        kind: ForgeKind::Issue,
        reference: "owner/repo#12".to_owned(),
        url: "https://forge.example/12".to_owned(),
        number: 12,
        title: "A title".to_owned(),
        body: "a body {{ vars.secret }}".to_owned(),
        author: "somebody".to_owned(),
        state: "open".to_owned(),
        labels: vec!["bug".to_owned()],
        comments: vec![ForgeComment {
            author: "other".to_owned(),
            created: "today".to_owned(),
            body: "a comment".to_owned(),
        }],
        comments_left_out: 0,
        pull: None,
        warnings: Vec::new(),
    }
}

/// The first task of a file, and everything that renders it.
struct Stage {
    batch: BatchFile,
    settings: BatchWork,
    agent: AgentWork,
    task: TaskWork,
}

impl Stage {
    fn of(tasks: &str) -> Self {
        let batch = file(tasks);
        let plan = &batch.plan;
        let spec = &plan.specs[plan.tasks[0].spec.0 as usize];
        Self {
            settings: serde_json::from_str(&plan.settings.work).unwrap(),
            agent: serde_json::from_str(&plan.agents[spec.agent.0 as usize].work).unwrap(),
            task: serde_json::from_str(&spec.work).unwrap(),
            batch,
        }
    }

    fn with<T>(&self, about: Option<&ForgeItem>, act: impl FnOnce(RenderContext<'_>) -> T) -> T {
        let planned = &self.batch.plan.tasks[0];
        act(RenderContext {
            batch: &"nightly-x".parse().unwrap(),
            batch_name: "nightly",
            task: &planned.id,
            attempt: AttemptNo(1),
            item: planned.item.as_deref(),
            slot: 0,
            model: None,
            deps: &BTreeMap::new(),
            own_env: &BTreeMap::new(),
            repo: None,
            about,
            hand_off: None,
        })
    }

    fn prompt(&self, about: Option<&ForgeItem>) -> Result<String, RenderError> {
        self.with(about, |context| {
            let rendered =
                Renderer::default().start(&self.settings, &self.agent, &self.task, context);
            rendered.map(|rendered| rendered.prompt.unwrap())
        })
    }

    fn reference(&self) -> Result<Option<(ForgeKind, Reference)>, RenderError> {
        self.with(None, |context| {
            Renderer::default().reference(&self.settings, &self.task, context)
        })
    }
}

#[test]
fn an_issue_makes_the_prompt_by_the_built_in_text() {
    let stage = Stage::of("  - {id: a, agent: coder, prompt: {issue: \"owner/repo#12\"}}\n");
    assert!(stage.batch.plan.specs[0].fetch);
    let told = stage.prompt(Some(&issue())).unwrap();
    for part in [
        "owner/repo#12",
        "> A title",
        "> a body {{ vars.secret }}",
        "> a comment",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_text_of_the_file_says_what_the_agent_is_told() {
    let text = "{{ issue.number }} {{ issue.labels | join(sep=',') }} {{ task.id }} \
                {% for c in issue.comments %}{{ c.author }}{% endfor %}";
    let tasks =
        format!("  - {{id: a, agent: coder, prompt: {{issue: \"#12\", text: \"{text}\"}}}}\n");
    assert_eq!(
        Stage::of(&tasks).prompt(Some(&issue())).unwrap(),
        "12 bug a other"
    );
}

#[test]
fn items_of_a_foreach_name_their_issues() {
    let stage = Stage::of(
        "  - id: \"i-{{ item }}\"\n    foreach: {items: [3, 4]}\n    agent: coder\n    \
         prompt: {issue: \"owner/repo#{{ item }}\"}\n",
    );
    let (kind, reference) = stage.reference().unwrap().unwrap();
    assert_eq!((kind, reference.number), (ForgeKind::Issue, 3));
    let wrong = Stage::of(
        "  - {id: a, agent: coder, vars: {x: nothing}, prompt: {pr: \"{{ vars.x }}\"}}\n",
    );
    let error = wrong.reference().unwrap_err();
    assert_eq!(error.to_string(), "`nothing` names no pull request");
}

#[test]
fn nothing_is_told_of_what_was_not_fetched() {
    let stage = Stage::of("  - {id: a, agent: coder, prompt: {issue: \"#12\"}}\n");
    assert!(matches!(
        stage.prompt(None),
        Err(RenderError::NotFetched(ForgeKind::Issue))
    ));
    let other = ForgeItem {
        kind: ForgeKind::Pr,
        ..issue()
    };
    assert!(stage.prompt(Some(&other)).is_err());
}

#[test]
fn other_tasks_fetch_nothing() {
    let stage = Stage::of("  - {id: a, agent: coder, prompt: do it}\n");
    assert!(!stage.batch.plan.specs[0].fetch);
    assert_eq!(stage.reference().unwrap(), None);
    assert_eq!(stage.prompt(None).unwrap(), "do it");
}
