//! Isolation and delivery in batch files: keys held against real repositories, and what runs are told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{Repository, RepositoryInitOptions, Signature, Time};
use protocol::command::Adapter;
use protocol::git::{Freshness, Oid};
use protocol::ids::{AttemptNo, BatchId};
use supervisor::batch_file::pinned::keep_pinned;
use supervisor::batch_file::render::{
    DependencyResult, HookPoint, RenderContext, RenderError, Renderer, RepoContext,
};
use supervisor::batch_file::render_repo::Conflict;
use supervisor::batch_file::work::{
    AgentWork, BatchWork, RepoWork, SalvageIgnored, TaskWork, task_branch,
};
use supervisor::batch_file::{BatchFile, Request, Source, read, summary};
use supervisor_core::plan::{Condition, Hooks, Keep, OnConflict, PlannedTask, RepoIx, TaskSpec};

/// A repository whose commits have the same names every time.
fn repository(path: &Path, files: &[(&str, &str)]) -> Repository {
    let mut options = RepositoryInitOptions::new();
    let git = Repository::init_opts(path, options.initial_head("main")).unwrap();
    commit(&git, files, "first");
    git
}

fn commit(git: &Repository, files: &[(&str, &str)], message: &str) -> git2::Oid {
    let root = git.workdir().unwrap();
    let mut index = git.index().unwrap();
    for (name, content) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        index.add_path(Path::new(name)).unwrap();
    }
    index.write().unwrap();
    let tree = git.find_tree(index.write_tree().unwrap()).unwrap();
    let who = Signature::new("Tester", "tester@example.org", &Time::new(1_000_000_000, 0)).unwrap();
    let parent = git.head().ok().and_then(|head| head.peel_to_commit().ok());
    let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
    git.commit(Some("HEAD"), &who, &who, message, &tree, &parents)
        .unwrap()
}

fn branch(git: &Repository, name: &str) {
    let head = git.head().unwrap().peel_to_commit().unwrap();
    git.branch(name, &head, false).unwrap();
}

/// A repository that libgit2 does not read, by what its configuration says.
fn extended(path: &Path, extension: &str) {
    for folder in ["objects", "refs"] {
        std::fs::create_dir_all(path.join(".git").join(folder)).unwrap();
    }
    std::fs::write(path.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    let config = format!("[core]\n\trepositoryformatversion = 1\n[extensions]\n\t{extension}\n");
    std::fs::write(path.join(".git/config"), config).unwrap();
}

/// `app` and `web` with some history, and beside them repositories that are unfit in many ways.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let app = repository(
            &world.path("app"),
            &[("src/lib.rs", "1"), ("docs/a.md", "a")],
        );
        let head = app.head().unwrap().peel_to_commit().unwrap();
        app.tag_lightweight("v1", head.as_object(), false).unwrap();
        for name in ["release", "topic/a"] {
            branch(&app, name);
        }
        std::fs::create_dir(world.path("app/new")).unwrap();
        let web = repository(&world.path("web"), &[("page.html", "p"), ("b.html", "b")]);
        let head = web.head().unwrap().peel_to_commit().unwrap();
        web.tag_lightweight("v1", head.as_object(), false).unwrap();
        commit(&web, &[("page.html", "q")], "second");
        let shallow = repository(&world.path("shallow"), &[("a", "a")]);
        let only = shallow.head().unwrap().target().unwrap();
        std::fs::write(world.path("shallow/.git/shallow"), format!("{only}\n")).unwrap();
        let detached = repository(&world.path("detached"), &[("a", "a")]);
        let head = detached.head().unwrap().target().unwrap();
        detached.set_head_detached(head).unwrap();
        branch(
            &repository(&world.path("blocked"), &[("a", "a")]),
            "supervisor",
        );
        branch(&repository(&world.path("blocked2"), &[("a", "a")]), "batch");
        Repository::init(world.path("empty")).unwrap();
        Repository::init_bare(world.path("bare.git")).unwrap();
        extended(&world.path("sha256"), "objectformat = sha256");
        extended(&world.path("reftable"), "refstorage = reftable");
        let items: String = (0..100).map(|number| format!("{number}\n")).collect();
        std::fs::write(world.path("items.txt"), items).unwrap();
        std::fs::create_dir(world.path("plain")).unwrap();
        std::fs::write(world.path("plain/file"), "").unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Reads a text as `app/batch.yml`.
    fn read(&self, text: &str) -> BatchFile {
        self.try_read(text).unwrap_or_else(|said| panic!("{said}"))
    }

    fn try_read(&self, text: &str) -> Result<BatchFile, String> {
        std::fs::write(self.path("app/batch.yml"), format!("version: 1\n{text}")).unwrap();
        self.read_file("batch.yml")
            .map_err(|report| report.to_string())
    }

    fn read_file(&self, name: &str) -> Result<BatchFile, supervisor::batch_file::error::Report> {
        read(&Request {
            source: Source::File(Path::new(name)),
            current_dir: &self.path("app"),
            user_config: None,
            set: &[],
        })
    }

    fn take_fixtures(&self, folder: &str) -> Vec<String> {
        let fixtures = fixtures(folder);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&fixtures).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.ends_with(".expected") {
                std::fs::copy(fixtures.join(&name), self.path("app").join(&name)).unwrap();
            }
            names.extend(Some(name).filter(|name| name.ends_with(".yml")));
        }
        names.sort();
        names
    }

    fn head(&self, name: &str) -> String {
        let git = Repository::open(self.path(name)).unwrap();
        git.head().unwrap().target().unwrap().to_string()
    }
}

/// Files that are refused, each with what is said of it.
const BROKEN: &str = "tests/fixtures/delivery/broken";
/// Files that are taken.
const GOOD: &str = "tests/fixtures/delivery/good";

/// Reads a text as `batch.yml` of this folder.
fn read_in(folder: &Path, text: &str) -> Result<BatchFile, String> {
    std::fs::write(folder.join("batch.yml"), text).unwrap();
    let request = Request {
        source: Source::File(Path::new("batch.yml")),
        current_dir: folder,
        user_config: None,
        set: &[],
    };
    read(&request).map_err(|report| report.to_string())
}

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder)
}

/// Set `UPDATE_EXPECTED=1` to write the expected texts anew; then read the difference.
#[test]
fn each_broken_file_is_refused_with_place_and_way_out() {
    let world = World::new();
    let names = world.take_fixtures(BROKEN);
    assert!(names.len() >= 40, "{} fixtures", names.len());
    let root = world.path("");
    let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
    let mut differing = Vec::new();
    for name in &names {
        let report = world.read_file(name).err();
        let report = report.unwrap_or_else(|| panic!("{name} is accepted"));
        let code = if report.is_machines() { 10 } else { 3 };
        let said = format!("{report}exit {code}\n").replace(&root, "ROOT");
        let expected = fixtures(BROKEN).join(name.replace(".yml", ".expected"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{name} now says:\n{said}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn each_good_file_is_taken() {
    let world = World::new();
    let all = [
        "detached.yml",
        "everything.yml",
        "one-named.yml",
        "outside.yml",
        "plain.yml",
        "repos.yml",
        "subfolder.yml",
        "tag.yml",
    ];
    assert_eq!(world.take_fixtures(GOOD), all);
    for name in all {
        let read = world.read_file(name);
        assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
    }
    let below = good(&world, "subfolder.yml");
    assert_eq!(repo(&below, 0).folder, PathBuf::from("src"));
    let tag = repo(&good(&world, "tag.yml"), 0);
    assert_eq!((tag.watch, tag.base_name.as_deref()), (None, Some("v1")));
    let named = good(&world, "one-named.yml");
    assert_eq!(
        &*named.plan.repos[0].name, "web",
        "the only one need not be named"
    );
}

fn good(world: &World, name: &str) -> BatchFile {
    world.take_fixtures(GOOD);
    world
        .read_file(name)
        .unwrap_or_else(|report| panic!("{report}"))
}

fn task<'b>(batch: &'b BatchFile, id: &str) -> &'b PlannedTask {
    let mut tasks = batch.plan.tasks.iter();
    tasks.find(|task| task.id.as_str() == id).unwrap()
}

fn spec<'b>(batch: &'b BatchFile, id: &str) -> &'b TaskSpec {
    &batch.plan.specs[task(batch, id).spec.0 as usize]
}

fn work(batch: &BatchFile, id: &str) -> TaskWork {
    serde_json::from_str(&spec(batch, id).work).unwrap()
}

fn repo(batch: &BatchFile, number: usize) -> RepoWork {
    serde_json::from_str(&batch.plan.repos[number].work).unwrap()
}

fn settings(batch: &BatchFile) -> BatchWork {
    serde_json::from_str(&batch.plan.settings.work).unwrap()
}

fn oid(digit: &str) -> Oid {
    digit.repeat(40).try_into().unwrap()
}

#[test]
fn inside_a_repository_tasks_have_worktrees_with_the_values_of_the_manual() {
    let world = World::new();
    let batch = good(&world, "plain.yml");
    assert_eq!(batch.plan.settings.keep, Keep::All);
    assert_eq!(settings(&batch).worktrees, None);
    let usual = SalvageIgnored::AllButBuildOutput;
    assert_eq!(settings(&batch).salvage_ignored, usual);
    let [one] = batch.plan.repos.as_slice() else {
        panic!("{:?}", batch.plan.repos)
    };
    assert_eq!((&*one.name, one.verify, one.group), (".", false, 1));
    assert_eq!(one.on_conflict, OnConflict::Park);
    let work = repo(&batch, 0);
    assert_eq!(
        (work.path, work.folder),
        (world.path("app"), PathBuf::new())
    );
    assert_eq!(work.base.as_str(), world.head("app"));
    assert_eq!(work.watch.as_deref(), Some("refs/heads/main"));
    assert_eq!(work.freshness, Freshness::Warn);
    assert_eq!(work.into, "batch/{{ batch.id }}");
    let spec = spec(&batch, "a");
    assert_eq!(spec.worktree, Some(RepoIx(0)));
    assert!(!spec.changes, "a command need not change anything");
    assert_eq!((spec.review, spec.hooks), (None, Hooks::default()));
}

#[test]
fn every_key_of_delivery_reaches_the_plan() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    assert_eq!(batch.plan.settings.keep, Keep::Failed);
    assert_eq!(settings(&batch).salvage_ignored, SalvageIgnored::None);
    let dir = settings(&batch).worktrees.unwrap();
    assert_eq!(dir, world.path("elsewhere/worktrees"));
    let agent = |name: &str| {
        let all = &batch.plan.agents;
        all.iter().position(|agent| &*agent.name == name).unwrap()
    };
    let one = &batch.plan.repos[0];
    assert_eq!((one.verify, one.group), (true, 4));
    let OnConflict::Agent(Some(resolver)) = one.on_conflict else {
        panic!("{:?}", one.on_conflict)
    };
    assert_eq!(resolver.0 as usize, agent("coder"));
    let work_of_repo = repo(&batch, 0);
    assert_eq!(work_of_repo.freshness, Freshness::Rebase);
    assert_eq!(work_of_repo.verify[1].argv, ["make", "check"]);
    assert_eq!(work_of_repo.verify[2].timeout_ms, 1_200_000);
    assert_eq!(work_of_repo.hooks.before_run.len(), 3, "the batch's own");
    let included = [
        &work_of_repo.hooks.after_create,
        &work_of_repo.hooks.after_run,
        &work_of_repo.hooks.before_remove,
    ];
    assert!(included.iter().all(|hook| hook[0].argv[2] == "included"));
    let all = Hooks {
        after_create: true,
        before_run: true,
        after_run: true,
        before_remove: true,
    };
    let (a, b) = (spec(&batch, "a"), spec(&batch, "b"));
    assert_eq!((a.changes, a.hooks), (true, all));
    assert!(!b.changes, "of the defaults");
    let review = a.review.unwrap();
    assert_eq!(
        (review.agent.0 as usize, review.rounds),
        (agent("judge"), 5)
    );
    let a = work(&batch, "a");
    assert!(a.touches_enforce && !work(&batch, "b").touches_enforce);
    assert_eq!(a.outputs, ["out/a.json", "{{ task.id }}.txt"]);
    assert!(work(&batch, "b").reads_deps);
    assert_eq!(a.hooks.before_run.len(), 0, "those are the repository's");
}

#[test]
fn each_of_several_repositories_has_its_own_rules_over_those_of_the_batch() {
    let world = World::new();
    let batch = good(&world, "repos.yml");
    let names: Vec<&str> = batch.plan.repos.iter().map(|repo| &*repo.name).collect();
    assert_eq!(names, ["app", "web"]);
    let (app, web) = (repo(&batch, 0), repo(&batch, 1));
    assert_eq!((app.path, app.folder), (world.path("app"), "src".into()));
    assert_eq!((web.path, web.folder), (world.path("web"), PathBuf::new()));
    assert_eq!(app.base.as_str(), world.head("app"));
    assert_ne!(web.base.as_str(), world.head("web"), "a tag behind it");
    assert_eq!(
        (app.watch.as_deref(), web.watch),
        (Some("refs/heads/main"), None)
    );
    assert_eq!(
        (app.freshness, web.freshness),
        (Freshness::Warn, Freshness::Ignore)
    );
    assert_eq!(app.into, "shared/{{ batch.id }}");
    assert_eq!(web.into, "own/{{ batch.id }}");
    assert_eq!((app.verify.len(), web.verify.len()), (1, 0));
    assert!(
        batch
            .plan
            .repos
            .iter()
            .all(|it| it.on_conflict == OnConflict::Fail)
    );
    let command = |hook: &[supervisor::batch_file::work::VerifyWork]| hook[0].argv[2].clone();
    assert_eq!(command(&app.hooks.before_run), "top");
    assert_eq!(command(&web.hooks.before_run), "own");
    assert_eq!(command(&web.hooks.after_run), "top");
    let ids: Vec<&str> = batch
        .plan
        .tasks
        .iter()
        .map(|task| task.id.as_str())
        .collect();
    assert_eq!(
        ids,
        ["spec", "page-b.html", "page-page.html"],
        "globs look into the repository of the task"
    );
    assert_eq!(spec(&batch, "page-b.html").worktree, Some(RepoIx(1)));
    assert_eq!(batch.identity.root, world.path("app"));
}

#[test]
fn a_dependency_waits_for_the_merge_unless_it_says_otherwise() {
    let world = World::new();
    let text = "tasks:\n- {id: a, run: x}\n- {id: b, run: x, depends_on: [a]}\n\
                - {id: c, run: x, depends_on: {a: {condition: done}}}\n\
                - {id: d, run: x, depends_on: {a: , \"*\": {condition: finished}}}\n";
    let of = |batch: &BatchFile, id: &str| {
        let edges = task(batch, id).depends_on.iter();
        edges.map(|edge| edge.condition).collect::<Vec<_>>()
    };
    let batch = world.read(text);
    assert_eq!(of(&batch, "b"), [Condition::Merged]);
    assert_eq!(of(&batch, "c"), [Condition::Done]);
    let d = [Condition::Merged, Condition::Finished, Condition::Finished];
    assert_eq!(
        of(&batch, "d"),
        d,
        "of two conditions the stricter one counts"
    );
    let batch = world.read(&format!("isolation: none\n{text}"));
    assert_eq!(of(&batch, "b"), [Condition::Done]);
    let batch = good(&world, "outside.yml");
    assert_eq!(of(&batch, "b"), [Condition::Done], "nothing to merge");
}

#[test]
fn without_a_repository_hooks_belong_to_the_task() {
    let world = World::new();
    let batch = good(&world, "outside.yml");
    assert!(batch.plan.repos.is_empty());
    let a = spec(&batch, "a");
    assert_eq!((a.worktree, a.changes, a.review), (None, false, None));
    assert!(a.hooks.before_run && a.hooks.after_run && !a.hooks.after_create);
    assert_eq!(work(&batch, "a").hooks.after_run[0].argv, ["y", "z"]);
}

#[test]
fn the_base_is_what_was_checked_out_also_where_that_is_no_branch() {
    let world = World::new();
    let batch = good(&world, "detached.yml");
    let work = repo(&batch, 0);
    assert_eq!(
        (work.base.as_str(), work.watch),
        (&*world.head("detached"), None)
    );
    let batch = world.read("base: main~0\ntasks: [{id: a, run: x}]\n");
    assert_eq!(repo(&batch, 0).base.as_str(), world.head("app"));
    let head = world.head("app");
    let batch = world.read(&format!(
        "base: {}\ntasks: [{{id: a, run: x}}]\n",
        &head[..10]
    ));
    assert_eq!(repo(&batch, 0).base.as_str(), head);
    assert_eq!(repo(&batch, 0).watch, None);
}

#[test]
fn a_working_tree_whose_git_folder_lies_elsewhere_is_the_repository() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().canonicalize().unwrap();
    let git = repository(&path.join("tree"), &[("a", "a\n")]);
    std::fs::rename(git.path(), path.join("apart")).unwrap();
    let link = format!("gitdir: {}\n", path.join("apart").display());
    std::fs::write(path.join("tree/.git"), link).unwrap();
    let text = "version: 1\nrepo: tree\ntasks: [{id: a, run: x}]\n";
    let batch = read_in(&path, text).unwrap();
    assert_eq!(
        repo(&batch, 0).path,
        path.join("tree").display().to_string()
    );
    assert_eq!(batch.identity.root, path.join("tree"));
}

#[test]
fn no_merges_go_to_a_branch_that_some_worktree_has_checked_out() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().canonicalize().unwrap();
    let git = repository(&path.join("r"), &[("a", "a\n")]);
    git.worktree("other", &path.join("other"), None).unwrap();
    let text = "version: 1\nrepo: r\nmerge: {into: other}\ntasks: [{id: a, run: x}]\n";
    let refused = read_in(&path, text).unwrap_err();
    assert!(refused.contains("is checked out"), "{refused}");
    std::fs::remove_dir_all(path.join("other")).unwrap();
    read_in(&path, text).unwrap();
}

#[test]
fn a_working_folder_whose_path_is_no_text_is_refused_with_the_way_out() {
    use std::os::unix::ffi::OsStrExt;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().canonicalize().unwrap();
    let path = path.join(std::ffi::OsStr::from_bytes(b"d\xff"));
    if std::fs::create_dir(&path).is_err() {
        // Some file systems take no such name.
        return;
    }
    repository(&path, &[("a", "a\n")]);
    let refused = read_in(&path, "version: 1\ntasks: [{id: a, run: x}]\n").unwrap_err();
    assert!(refused.contains("is not UTF-8"), "{refused}");
}

#[test]
fn a_batch_keeps_the_commit_that_it_began_with() {
    let world = World::new();
    let text = "base: main\ntasks: [{id: a, run: x}]\n";
    let before = world.read(text);
    let git = Repository::open(world.path("app")).unwrap();
    let moved = commit(&git, &[("more", "m")], "more").to_string();
    let mut after = world.read(text);
    assert_eq!(repo(&after, 0).base.as_str(), moved);
    let (old, new) = (&before.plan.repos[0], &mut after.plan.repos[0]);
    keep_pinned(old, new).unwrap();
    assert_eq!(old, new);

    let refused = |text: &str, what: &str| {
        let mut other = world.read(text);
        let error = keep_pinned(old, &mut other.plan.repos[0])
            .unwrap_err()
            .to_string();
        assert!(error.contains(what), "{error}");
    };
    let tasks = "tasks: [{id: a, run: x}]\n";
    refused(
        &format!("base: HEAD\n{tasks}"),
        "`base` of `.` can not change",
    );
    refused(
        &format!("base: main\nmerge: {{into: other}}\n{tasks}"),
        "`merge.into`",
    );
    refused(
        &format!("base: main\nrepo: ../web\n{tasks}"),
        "can not change: work lies in",
    );
    refused(
        &format!("base: main\nrepo: src\n{tasks}"),
        "the working folder in",
    );
    let mut same = world.read(&format!("base: release\nfreshness: ignore\n{tasks}"));
    keep_pinned(old, &mut same.plan.repos[0]).unwrap();
    let kept: RepoWork = serde_json::from_str(&same.plan.repos[0].work).unwrap();
    assert_eq!(kept.base_name.as_deref(), Some("main"));
    assert_eq!(
        kept.freshness,
        Freshness::Ignore,
        "what binds nobody follows the file"
    );
}

/// Renders for task `a` or another one in a worktree.
struct Stage<'b> {
    batch: &'b BatchFile,
    settings: BatchWork,
    repo: RepoWork,
    id: BatchId,
    env: BTreeMap<String, String>,
    deps: BTreeMap<protocol::ids::TaskId, DependencyResult>,
    base: Oid,
    commit: Oid,
}

impl<'b> Stage<'b> {
    fn new(batch: &'b BatchFile, number: usize) -> Self {
        Self {
            batch,
            settings: settings(batch),
            repo: repo(batch, number),
            id: "nightly-x".parse().unwrap(),
            env: BTreeMap::new(),
            deps: BTreeMap::new(),
            base: oid("a"),
            commit: oid("b"),
        }
    }

    fn context<'s>(&'s self, id: &str) -> RenderContext<'s>
    where
        'b: 's,
    {
        let planned = task(self.batch, id);
        RenderContext {
            batch: &self.id,
            batch_name: "nightly",
            task: &planned.id,
            attempt: AttemptNo(1),
            item: planned.item.as_deref(),
            slot: 2,
            model: None,
            deps: &self.deps,
            own_env: &self.env,
            repo: Some(RepoContext {
                work: &self.repo,
                worktree: "/worktrees/a",
                branch: Some("supervisor/nightly-x/a"),
                base: Some(&self.base),
                commit: Some(&self.commit),
            }),
            about: None,
            hand_off: None,
        }
    }

    fn agent(&self, name: &str) -> AgentWork {
        let mut agents = self.batch.plan.agents.iter();
        let agent = agents.find(|agent| &*agent.name == name).unwrap();
        serde_json::from_str(&agent.work).unwrap()
    }
}

#[test]
fn hooks_are_told_where_they_are() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    let stage = Stage::new(&batch, 0);
    let work = work(&batch, "a");
    let render = |point| {
        let rendered = Renderer::default()
            .hook(&stage.settings, &work, point, stage.context("a"))
            .unwrap();
        let Adapter::Hook(hook) = rendered.adapter else {
            panic!("{:?}", rendered.adapter)
        };
        (hook.commands, rendered.env)
    };
    let (commands, env) = render(HookPoint::BeforeRun);
    assert_eq!(commands[0].argv, ["sh", "-c", "echo a"]);
    assert_eq!(commands[1].argv, ["echo", "2"]);
    assert_eq!(commands[2].timeout_ms, 60_000);
    assert_eq!(commands[2].env["N"], "a");
    let repo = world.path("app").display().to_string();
    for (name, value) in [
        ("SUPERVISOR_REPO", repo.as_str()),
        ("SUPERVISOR_WORKTREE", "/worktrees/a"),
        ("SUPERVISOR_BRANCH", "supervisor/nightly-x/a"),
        ("SUPERVISOR_BASE", stage.base.as_str()),
        ("SUPERVISOR_COMMIT", stage.commit.as_str()),
        ("SUPERVISOR_TASK", "a"),
    ] {
        assert_eq!(env[name], value);
    }
    for point in [
        HookPoint::AfterCreate,
        HookPoint::AfterRun,
        HookPoint::BeforeRemove,
    ] {
        assert_eq!(render(point).0[0].argv[2], "included", "{}", point.word());
    }
}

#[test]
fn a_repositorys_environment_lies_between_batch_and_agent() {
    let world = World::new();
    let batch = good(&world, "repos.yml");
    let stage = Stage::new(&batch, 0);
    let rendered = Renderer::default()
        .verify(
            &stage.settings,
            &work(&batch, "spec"),
            stage.context("spec"),
        )
        .unwrap();
    assert_eq!(rendered.env["A"], "batch");
    assert_eq!(rendered.env["B"], "app spec");
}

#[test]
fn the_proof_of_a_merge_runs_the_commands_of_its_repository() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    let stage = Stage::new(&batch, 0);
    let work = work(&batch, "a");
    let mut renderer = Renderer::default();
    let rendered = renderer
        .merge_verify(&stage.settings, &work, stage.context("a"))
        .unwrap();
    let Adapter::Verify(verify) = rendered.adapter else {
        panic!("{:?}", rendered.adapter)
    };
    assert_eq!(verify.commands[0].argv, ["sh", "-c", "cargo test"]);
    assert_eq!(verify.commands[2].env["A"], "nightly-x");
    let nowhere = RenderContext {
        repo: None,
        ..stage.context("a")
    };
    let error = renderer.merge_verify(&stage.settings, &work, nowhere);
    assert!(matches!(error, Err(RenderError::NoWorktree)));
}

#[test]
fn the_batch_branch_is_a_name_that_git_takes() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    let mut stage = Stage::new(&batch, 0);
    let branch = |stage: &Stage<'_>| {
        Renderer::default().batch_branch(&stage.settings, &stage.repo, &stage.id, "nightly")
    };
    assert_eq!(branch(&stage).unwrap(), "refs/heads/nightly/nightly-mon");
    stage.repo.into = "batch/{{ batch.id }}".to_owned();
    assert_eq!(branch(&stage).unwrap(), "refs/heads/batch/nightly-x");
    for bad in ["a..{{ batch.id }}", "x y", "supervisor/x", ""] {
        stage.repo.into = bad.to_owned();
        let error = branch(&stage).unwrap_err();
        assert!(matches!(error, RenderError::BranchName { .. }), "{error}");
    }
    stage.repo.into = "{{ task.id }}".to_owned();
    let error = branch(&stage).unwrap_err();
    assert!(matches!(error, RenderError::Template { .. }), "{error}");
}

#[test]
fn outputs_are_files_below_the_working_folder_and_others_know_where_they_are_saved() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    let mut stage = Stage::new(&batch, 0);
    let mut a = work(&batch, "a");
    let mut renderer = Renderer::default();
    let outputs = renderer.outputs(&stage.settings, &a, stage.context("a"));
    assert_eq!(outputs.unwrap(), ["out/a.json", "a.txt"]);
    a.outputs = vec!["../{{ task.id }}".to_owned()];
    let error = renderer.outputs(&stage.settings, &a, stage.context("a"));
    assert!(matches!(error, Err(RenderError::BadOutput(_))));

    let saved = DependencyResult {
        result: String::new(),
        outputs: BTreeMap::from([("a.txt".to_owned(), "/state/a.txt".to_owned())]),
    };
    stage.deps.insert("a".parse().unwrap(), saved);
    let run = stage.agent("run");
    let rendered = renderer
        .start(
            &stage.settings,
            &run,
            &work(&batch, "b"),
            stage.context("b"),
        )
        .unwrap();
    let Adapter::Command(command) = rendered.adapter else {
        panic!("{:?}", rendered.adapter)
    };
    assert_eq!(command.argv[2], "cat /state/a.txt");
}

#[test]
fn a_reviewer_gets_the_operators_words_too() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    let stage = Stage::new(&batch, 0);
    let (judge, a) = (stage.agent("judge"), work(&batch, "a"));
    let rendered = Renderer::default()
        .review(
            &stage.settings,
            &judge,
            &a,
            Some("all good\n"),
            Some("mind the edges"),
            stage.context("a"),
        )
        .unwrap();
    let prompt = rendered.prompt.unwrap();
    for part in [
        "    p\n",
        "all good",
        "Is a right?",
        "    mind the edges\n",
        stage.commit.as_str(),
    ] {
        assert!(prompt.contains(part), "{part:?} is not in\n{prompt}");
    }
    assert_eq!(rendered.env["SUPERVISOR_COMMIT"], stage.commit.as_str());
    let error = Renderer::default().review(
        &stage.settings,
        &stage.agent("run"),
        &a,
        None,
        None,
        stage.context("a"),
    );
    assert!(matches!(error, Err(RenderError::Mismatch)));
}

#[test]
fn a_resolver_gets_the_conflict_and_the_operators_words() {
    let world = World::new();
    let batch = good(&world, "everything.yml");
    let stage = Stage::new(&batch, 0);
    let (tip, files) = (
        oid("c"),
        BTreeMap::from([("x\ny".to_owned(), "both".to_owned())]),
    );
    let conflict = Conflict {
        tip: &tip,
        files: &files,
        packet: "/packet",
        disproof: Some("2 tests failed\n"),
    };
    let coder = stage.agent("coder");
    let rendered = Renderer::default()
        .resolve(
            &stage.settings,
            &coder,
            &work(&batch, "a"),
            conflict,
            stage.context("a"),
        )
        .unwrap();
    let prompt = rendered.prompt.unwrap();
    for part in [
        "- `x y`: both\n",
        "    2 tests failed\n",
        "/packet/theirs",
        "Mind a.",
        tip.as_str(),
    ] {
        assert!(prompt.contains(part), "{part:?} is not in\n{prompt}");
    }
}

#[test]
fn a_plan_shows_repositories_branches_and_pairs_that_stay_apart() {
    let world = World::new();
    let batch = world.read(
        "repos: {app: {path: .}, web: {path: ../web}}\ntasks:\n\
         - {id: a, run: x, repo: app, touches: [\"src/**\"]}\n\
         - {id: b, run: x, repo: app, touches: [\"src/lib.rs\"]}\n\
         - {id: c, run: x, repo: web, touches: [\"src/lib.rs\"]}\n\
         - {id: d, run: x, repo: app, touches: [\"docs/**\"]}\n\
         - {id: e, run: x, repo: app}\n",
    );
    let summary = summary(&batch.plan);
    assert_eq!(summary.apart.pairs, [("a".to_owned(), "b".to_owned())]);
    assert!(!summary.apart.more);
    let app = &summary.repos[0];
    assert_eq!(
        (app.name.as_str(), app.base.as_str()),
        ("app", &*world.head("app"))
    );
    assert_eq!(app.branch.as_deref(), Some("main"));
    let c = summary.tasks.iter().find(|task| task.id == "c").unwrap();
    assert_eq!(c.repo.as_deref(), Some("web"));
    let id = "c".parse().unwrap();
    assert_eq!(
        c.branch.as_deref(),
        Some(&*task_branch("{{ batch.id }}", &id))
    );
}

#[test]
fn a_plan_of_many_overlapping_tasks_names_so_many_pairs_and_no_more() {
    let world = World::new();
    let batch = world.read(
        "tasks: [{id: \"t-{{ item }}\", foreach: {file: items.txt}, run: x, touches: [\"a\"]}]\n"
            .replace("items.txt", "../items.txt")
            .as_str(),
    );
    assert_eq!(summary(&batch.plan).apart.pairs.len(), 1_000);
    assert!(summary(&batch.plan).apart.more);
}
