//! The repositories in which tasks have worktrees: found, checked, and numbered as tasks name them.

use std::path::{Path, PathBuf};

use supervisor_core::plan::{Hooks, Keep, OnConflict, RepoIx, RepoSpec};

use super::agents::Agents;
use super::decode::{At, was_meant};
use super::error::{Place, Sink, nearest};
use super::git_base::Found;
use super::low_repo::RepoKeys;
use super::names;
use super::preview::Preview;
use super::repo_read::{Reader, Repo, Sources, flags, hooks};
use super::scalars::{Named, Text};
use super::tree::shown;
use super::words::Isolation;
use super::work::{HooksWork, SalvageIgnored};

/// The name of the only repository of a batch file without `repos`.
const ONLY: &str = ".";

/// Where a task works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lodging {
    /// In the batch's one working folder.
    Folder,
    /// In a worktree of this repository.
    Worktree(RepoIx),
    /// What says so is wrong, and reported.
    Unclear,
}

/// All repositories, and those in use in the order of their first use.
#[derive(Debug)]
pub(super) struct Repos {
    /// Whether tasks have worktrees.
    pub(super) worktrees: bool,
    /// Where worktrees are made; `None`: in the state directory.
    pub(super) dir: Option<PathBuf>,
    /// Which of them stay.
    pub(super) keep: Keep,
    /// Which ignored files a salvage keeps.
    pub(super) salvage_ignored: SalvageIgnored,
    /// The commands around tasks without a worktree.
    pub(super) hooks: HooksWork,
    /// Their templates.
    pub(super) hook_texts: Vec<Text>,
    /// How a file gets worktrees that has none.
    without: String,
    /// The file names them.
    named: bool,
    known: Vec<Repo>,
    used: Vec<RepoSpec>,
}

impl Repos {
    /// Looks at every repository that the file names, used or not.
    pub(super) fn read(
        from: &Sources<'_>,
        agents: &Agents,
        preview: &mut Preview,
        sink: &mut Sink,
    ) -> Self {
        let keys = from.keys;
        let named = keys.repos.is_some() || was_meant(&keys.wrong, "repos");
        let written = keys.isolation.as_ref().map(|word| word.value);
        let worktrees = match written {
            Some(Isolation::Worktree) => true,
            Some(Isolation::None) => false,
            None => named || from.root.is_some(),
        };
        let mut repos = Self {
            worktrees,
            dir: None,
            keep: Keep::All,
            salvage_ignored: SalvageIgnored::default(),
            hooks: HooksWork::default(),
            hook_texts: Vec::new(),
            without: match written {
                Some(Isolation::None) => "remove it, or write `isolation: worktree`".to_owned(),
                Some(Isolation::Worktree) | None => format!(
                    "there is no git repository around {}: `git init` makes one",
                    from.folder.display()
                ),
            },
            named,
            known: Vec::new(),
            used: Vec::new(),
        };
        if !worktrees {
            repos.refuse_keys(from, sink);
            repos.hooks = hooks(from.hooks, &mut repos.hook_texts, sink);
            return repos;
        }
        let mut opened = Vec::new();
        if let Some(all) = &keys.repos {
            repos.read_named(from, all, &mut opened, agents, preview, sink);
        } else if !named {
            let place = keys.repo.as_ref().map(|repo| repo.place);
            let isolation = keys.isolation.as_ref().map(|word| word.place);
            let only = RepoKeys::default();
            let place = place.or(isolation).unwrap_or(from.top);
            let mut reader = Reader {
                from,
                agents,
                preview,
                sink,
            };
            let (repo, found) = reader.repo(ONLY, &only, from.folder, place);
            repos.known.push(repo);
            opened.extend(found.map(|found| (found, ONLY.to_owned())));
        }
        repos.read_worktrees(from, &opened, sink);
        repos
    }

    fn read_named(
        &mut self,
        from: &Sources<'_>,
        all: &At<Named<RepoKeys>>,
        opened: &mut Vec<(Found, String)>,
        agents: &Agents,
        preview: &mut Preview,
        sink: &mut Sink,
    ) {
        if let Some(repo) = &from.keys.repo {
            let help = "with `repos` each task names one of them: remove `repo`";
            sink.report(repo.key, "both `repo` and `repos`", help);
        }
        if all.value.0.is_empty() && !was_meant(&from.keys.wrong, "repos") {
            let help = "name at least one: `repos: {web: {path: ../web}}`";
            sink.report(all.key, "there are no repositories", help);
        }
        for (name, keys) in &all.value.0 {
            names::check_word(name, "a repository's name", keys.key, sink);
            let mut reader = Reader {
                from,
                agents,
                preview,
                sink,
            };
            let Some((folder, place)) = reader.folder(keys) else {
                self.known.push(Repo::unclear(name));
                continue;
            };
            let (repo, found) = reader.repo(name, &keys.value, &folder, place);
            self.known.push(repo);
            let Some(found) = found else {
                continue;
            };
            let twin = opened
                .iter()
                .find(|(it, _)| it.shared_dir() == found.shared_dir());
            if let Some((_, twin)) = twin {
                let message = format!("`{}` and `{}` are one repository", shown(twin), shown(name));
                let help = "name it once: its merges go one after another into one branch";
                sink.report(place, message, help);
            }
            opened.push((found, name.clone()));
        }
    }

    /// Keys that are about worktrees, where there are none.
    fn refuse_keys(&self, from: &Sources<'_>, sink: &mut Sink) {
        let keys = from.keys;
        let of = |place: Option<Place>, key: &'static str| place.map(|place| (place, key));
        let hook = |list: &Option<At<_>>| list.as_ref().map(|list: &At<_>| list.key);
        let written = [
            of(keys.repos.as_ref().map(|key| key.key), "repos"),
            of(keys.base.as_ref().map(|key| key.key), "base"),
            of(keys.freshness.as_ref().map(|key| key.key), "freshness"),
            of(keys.worktrees.as_ref().map(|key| key.key), "worktrees"),
            of(keys.merge.as_ref().map(|key| key.key), "merge"),
            of(hook(&from.hooks.after_create), "after_create"),
            of(hook(&from.hooks.before_remove), "before_remove"),
        ];
        for (place, key) in written.into_iter().flatten() {
            self.refuse_key(place, key, sink);
        }
    }

    /// Reports a key that means nothing for tasks without worktrees.
    pub(super) fn refuse_key(&self, place: Place, key: &str, sink: &mut Sink) {
        let message = format!("`{key}` means nothing without worktrees");
        sink.report(place, message, self.without.as_str());
    }

    fn read_worktrees(&mut self, from: &Sources<'_>, opened: &[(Found, String)], sink: &mut Sink) {
        let Some(keys) = &from.keys.worktrees else {
            return;
        };
        if let Some(word) = &keys.value.keep {
            self.keep = word.value.mean();
        }
        if let Some(word) = &keys.value.salvage_ignored {
            self.salvage_ignored = word.value.mean();
        }
        let Some(dir) = &keys.value.dir else {
            return;
        };
        let path = real(&from.files.resolve(&dir.value.text, dir.place.source));
        let inside = opened.iter().find(|(found, _)| {
            path.starts_with(&found.root) || path.starts_with(found.shared_dir())
        });
        if let Some((found, _)) = inside {
            let message = format!(
                "worktrees would lie in the repository {}",
                found.root.display()
            );
            let help = "name a folder outside, where no `git clean` reaches: `../worktrees`";
            sink.report(dir.place, message, help);
        } else if path.exists() && !path.is_dir() {
            let message = format!("{} is no folder", path.display());
            sink.report(
                dir.place,
                message,
                "name a folder; it is made when it is missing",
            );
        }
        self.dir = Some(path);
    }

    /// Where a task works that names this repository, or none.
    pub(super) fn of_task(
        &mut self,
        name: Option<&At<Text>>,
        task: Place,
        agents: &mut Agents,
        sink: &mut Sink,
    ) -> Lodging {
        if !self.worktrees {
            return Lodging::Folder;
        }
        let at = match name {
            Some(name) => self.find(name, sink),
            None if self.known.len() == 1 => Some(0),
            None => {
                if !self.known.is_empty() {
                    let message = "a task without `repo`, in a batch of several repositories";
                    let help = format!("add `repo: NAME`, one of {}", self.names());
                    sink.report(task, message, help);
                }
                None
            }
        };
        at.map_or(Lodging::Unclear, |at| self.number(at, agents))
    }

    fn find(&self, name: &At<Text>, sink: &mut Sink) -> Option<usize> {
        let text = &name.value.text;
        let at = self.known.iter().position(|repo| repo.name == *text);
        if at.is_some() && self.named {
            return at;
        }
        if !self.named {
            let message = "the file has no `repos` that a task could name";
            let help = "remove `repo` from the task, or add `repos: {web: {path: ../web}}`";
            sink.report(name.place, message, help);
        } else if !self.known.is_empty() {
            let known = self.known.iter().map(|repo| repo.name.as_str());
            let help = match nearest(text, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known repositories: {}", self.names()),
            };
            let message = format!("no repository is called `{}`", shown(text));
            sink.report(name.place, message, help);
        }
        None
    }

    fn names(&self) -> String {
        let names: Vec<String> = self
            .known
            .iter()
            .map(|it| format!("`{}`", it.name))
            .collect();
        names.join(", ")
    }

    fn number(&mut self, at: usize, agents: &mut Agents) -> Lodging {
        let repo = &mut self.known[at];
        if let Some(number) = repo.number {
            return Lodging::Worktree(number);
        }
        let Some(mut spec) = repo.spec.take() else {
            return Lodging::Unclear;
        };
        if let Some(resolver) = &repo.resolver {
            spec.on_conflict = OnConflict::Agent(Some(agents.number(resolver)));
        }
        let number = RepoIx(super::tasks::index(self.used.len()));
        repo.number = Some(number);
        self.used.push(spec);
        Lodging::Worktree(number)
    }

    fn used(&self, number: RepoIx) -> Option<&Repo> {
        self.known.iter().find(|repo| repo.number == Some(number))
    }

    /// The folder that globs of a task count from, where it is not the working folder.
    pub(super) fn folder(&self, lodging: Lodging) -> Option<&Path> {
        match lodging {
            Lodging::Worktree(number) => self.used(number).map(|repo| repo.folder.as_path()),
            Lodging::Folder | Lodging::Unclear => None,
        }
    }

    /// The templates that are filled in for each task that works there.
    pub(super) fn texts(&self, lodging: Lodging) -> &[Text] {
        match lodging {
            Lodging::Folder => &self.hook_texts,
            Lodging::Worktree(number) => self.used(number).map_or(&[], |repo| &repo.texts),
            Lodging::Unclear => &[],
        }
    }

    /// Which commands run around the work there.
    pub(super) fn hook_flags(&self, lodging: Lodging) -> Hooks {
        match lodging {
            Lodging::Folder => flags(&self.hooks),
            Lodging::Worktree(number) => self
                .used(number)
                .map_or_else(Hooks::default, |repo| repo.hooks),
            Lodging::Unclear => Hooks::default(),
        }
    }

    /// Where it is written that a task's own agent resolves conflicts there.
    pub(super) fn own_resolver(&self, lodging: Lodging) -> Option<Place> {
        match lodging {
            Lodging::Worktree(number) => self.used(number)?.own_resolver,
            Lodging::Folder | Lodging::Unclear => None,
        }
    }

    /// The repositories in use.
    pub(super) fn into_specs(self) -> Vec<RepoSpec> {
        self.used
    }
}

/// An absolute path without links and dots, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut known = path;
    loop {
        if let Ok(real) = std::fs::canonicalize(known) {
            return rest.iter().rev().fold(real, |path, name| match name {
                std::path::Component::ParentDir => {
                    path.parent().map(Path::to_owned).unwrap_or(path)
                }
                other => path.join(other),
            });
        }
        let (Some(parent), Some(last)) = (known.parent(), known.components().next_back()) else {
            return path.to_owned();
        };
        rest.push(last);
        known = parent;
    }
}
