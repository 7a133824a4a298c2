//! One repository of the batch file: its keys, held against what is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::git::Freshness;
use supervisor_core::plan::{Hooks, OnConflict, RepoIx, RepoSpec};

use super::agents::{Agents, environment};
use super::commands::commands;
use super::decode::{At, was_meant};
use super::error::{Fault, Place, Sink};
use super::files::Files;
use super::git_base::{Base, Found, Refusal, check_branch_name};
use super::low::BatchKeys;
use super::low_repo::{HookKeys, MergeKeys, RepoKeys};
use super::names;
use super::preview::{PREVIEW_ID, Preview};
use super::scalars::Text;
use super::template::is_template;
use super::tree::shown;
use super::words::ConflictWord;
use super::work::{HooksWork, RepoWork, TextRef, VerifyWork};

/// The branch that takes the merges where none is named.
const INTO: &str = "batch/{{ batch.id }}";

/// One repository of the file.
#[derive(Debug)]
pub(super) struct Repo {
    pub(super) name: String,
    /// The folder that is named.
    pub(super) folder: PathBuf,
    pub(super) hooks: Hooks,
    /// Its templates that are filled in for each of its tasks.
    pub(super) texts: Vec<Text>,
    /// Who resolves conflicts, by name.
    pub(super) resolver: Option<String>,
    /// Where it says that the task's own agent resolves conflicts.
    pub(super) own_resolver: Option<Place>,
    /// `None`: what is wrong is reported.
    pub(super) spec: Option<RepoSpec>,
    /// Its number, once a task works in it.
    pub(super) number: Option<RepoIx>,
}

/// What repositories are read from.
pub(super) struct Sources<'s> {
    /// The keys of the batch file.
    pub(super) keys: &'s BatchKeys,
    /// The hooks of all layers.
    pub(super) hooks: &'s HookKeys,
    /// The working folder.
    pub(super) folder: &'s Path,
    /// The git repository around it.
    pub(super) root: Option<&'s Path>,
    /// What the file's mistakes as a whole are shown at.
    pub(super) top: Place,
    /// Files read so far: they know what paths count from.
    pub(super) files: &'s Files,
}

impl Repo {
    /// One of which what is wrong is reported.
    pub(super) fn unclear(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            folder: PathBuf::new(),
            hooks: Hooks::default(),
            texts: Vec::new(),
            resolver: None,
            own_resolver: None,
            spec: None,
            number: None,
        }
    }
}

/// Reads one repository.
pub(super) struct Reader<'r, 's> {
    /// What it is read from.
    pub(super) from: &'r Sources<'s>,
    /// Agents by name.
    pub(super) agents: &'r Agents,
    /// Templates.
    pub(super) preview: &'r mut Preview,
    /// Where mistakes go.
    pub(super) sink: &'r mut Sink,
}

impl Reader<'_, '_> {
    /// The folder of a named repository, and where it is written.
    pub(super) fn folder(&mut self, keys: &At<RepoKeys>) -> Option<(PathBuf, Place)> {
        let Some(path) = &keys.value.path else {
            if !was_meant(&keys.value.wrong, "path") {
                let help = "add `path: ../web`, relative to the batch file";
                self.sink
                    .report(keys.key, "a repository without `path`", help);
            }
            return None;
        };
        let folder = self.from.files.resolve(&path.value.text, path.place.source);
        match std::fs::canonicalize(&folder) {
            Ok(folder) => Some((folder, path.place)),
            Err(error) => {
                let message = format!("the repository {} is not there: {error}", folder.display());
                let help = "`path` is relative to the batch file";
                self.sink.report_machine(path.place, message, help);
                None
            }
        }
    }

    /// The repository that these keys mean, and what was found of it.
    pub(super) fn repo(
        &mut self,
        name: &str,
        keys: &RepoKeys,
        folder: &Path,
        place: Place,
    ) -> (Repo, Option<Found>) {
        let mut repo = Repo {
            folder: folder.to_owned(),
            ..Repo::unclear(name)
        };
        let merge = self.merge(keys);
        let (on_conflict, resolver) = self.on_conflict(&merge);
        let is_own = |word: &&At<ConflictWord>| word.value == ConflictWord::Agent;
        let own = merge.on_conflict.as_ref().filter(is_own);
        repo.own_resolver = own.filter(|_| merge.agent.is_none()).map(|word| word.place);
        repo.resolver = resolver;
        let own_hooks = keys.hooks.as_ref().map(|hooks| hooks.value.clone());
        let all_hooks = own_hooks.unwrap_or_default().over(self.from.hooks);
        let hooks = hooks(&all_hooks, &mut repo.texts, self.sink);
        repo.hooks = flags(&hooks);
        let env = environment(keys.env.as_ref(), &mut repo.texts, self.sink);
        let resolve = merge.prompt.as_ref().map(|prompt| {
            repo.texts.push(prompt.value.clone());
            TextRef::Inline(prompt.value.text.clone())
        });
        let verify = self.merge_verify(&merge);
        let into = self.branch_name(&merge);
        repo.texts.retain(|text| is_template(&text.text));
        let Some((found, base)) = self.open(keys, folder, place) else {
            return (repo, None);
        };
        let into_place = merge.into.as_ref().map_or(place, |into| into.place);
        if let Some(Err(refusal)) = into.map(|filled| found.check_into(&filled, &base)) {
            self.refuse(into_place, refusal);
        }
        let work = RepoWork {
            path: found.root.clone(),
            folder: found.folder.clone(),
            base: base.commit.clone(),
            base_name: self.base_name(keys).map(|base| base.value.text.clone()),
            watch: base.branch.clone(),
            freshness: self.freshness(keys, &base),
            into: merge
                .into
                .map_or_else(|| INTO.to_owned(), |into| into.value.text),
            verify,
            resolve,
            hooks,
            env,
        };
        repo.spec = Some(RepoSpec {
            name: Arc::from(name),
            verify: !work.verify.is_empty(),
            group: merge.group.map_or(1, |group| group.value.unsigned()),
            on_conflict,
            work: names::json_text(&work),
        });
        (repo, Some(found))
    }

    fn refuse(&mut self, place: Place, refusal: Refusal) {
        match refusal.fault {
            Fault::File => self.sink.report(place, refusal.message, refusal.help),
            Fault::Machine => self
                .sink
                .report_machine(place, refusal.message, refusal.help),
        }
    }

    fn base_name<'k>(&'k self, keys: &'k RepoKeys) -> Option<&'k At<Text>> {
        keys.base.as_ref().or(self.from.keys.base.as_ref())
    }

    fn open(&mut self, keys: &RepoKeys, folder: &Path, place: Place) -> Option<(Found, Base)> {
        if !folder.is_dir() {
            // Of the working folder that is reported; a path of `repos` is there, but no folder.
            if self.from.keys.repos.is_some() {
                let message = format!("{} is no folder", folder.display());
                self.sink
                    .report(place, message, "name the folder of a git repository");
            }
            return None;
        }
        let found = match Found::around(folder) {
            Ok(found) => found,
            Err(refusal) => {
                self.refuse(place, refusal);
                return None;
            }
        };
        let name = self.base_name(keys);
        let place = name.map_or(place, |name| name.place);
        match found.base(name.map(|name| name.value.text.as_str())) {
            Ok(base) => Some((found, base)),
            Err(refusal) => {
                self.refuse(place, refusal);
                None
            }
        }
    }

    fn freshness(&mut self, keys: &RepoKeys, base: &Base) -> Freshness {
        let written = keys
            .freshness
            .as_ref()
            .or(self.from.keys.freshness.as_ref());
        let Some(word) = written else {
            return Freshness::Warn;
        };
        let freshness = word.value.mean();
        if freshness == Freshness::Rebase && base.branch.is_none() {
            let message = "the base is no branch: there is nothing that could move on";
            let help = "name a branch as `base`, or remove `freshness`";
            self.sink.report(word.place, message, help);
        }
        freshness
    }

    /// The repository's own rules for merges, and those of the batch where it has none.
    fn merge(&mut self, keys: &RepoKeys) -> MergeKeys {
        let top = self.from.keys.merge.as_ref().map(|merge| &merge.value);
        let below = top.cloned().unwrap_or_default();
        let Some(own) = keys.merge.as_ref().map(|merge| merge.value.clone()) else {
            self.refuse_lone_group(&below);
            return below;
        };
        let merged = MergeKeys {
            into: own.into.or(below.into),
            verify: own.verify.or(below.verify),
            group: own.group.or(below.group),
            on_conflict: own.on_conflict.or(below.on_conflict),
            agent: own.agent.or(below.agent),
            prompt: own.prompt.or(below.prompt),
            wrong: [own.wrong, below.wrong].concat(),
        };
        self.refuse_lone_group(&merged);
        merged
    }

    /// Merges share a proof: without one a group is nothing.
    fn refuse_lone_group(&mut self, merge: &MergeKeys) {
        let Some(group) = &merge.group else {
            return;
        };
        if merge.verify.is_none() && !was_meant(&merge.wrong, "verify") {
            let help = "add `verify: [...]` to `merge`, or remove `group`";
            self.sink
                .report(group.key, "`group` means nothing without `verify`", help);
        }
    }

    /// What happens to conflicts, and by name who resolves them where that is said.
    fn on_conflict(&mut self, merge: &MergeKeys) -> (OnConflict, Option<String>) {
        let word = merge.on_conflict.as_ref().map(|word| word.value);
        if word != Some(ConflictWord::Agent) && !was_meant(&merge.wrong, "on_conflict") {
            let keys = [(&merge.agent, "agent"), (&merge.prompt, "prompt")];
            for (key, name) in keys {
                if let Some(key) = key {
                    let message = format!("`{name}` means nothing: no agent resolves conflicts");
                    let help = "add `on_conflict: agent` to `merge`, or remove it";
                    self.sink.report(key.key, message, help);
                }
            }
        }
        match word {
            None | Some(ConflictWord::Park) => (OnConflict::Park, None),
            Some(ConflictWord::Fail) => (OnConflict::Fail, None),
            Some(ConflictWord::Agent) => (OnConflict::Agent(None), self.resolver(merge)),
        }
    }

    fn resolver(&mut self, merge: &MergeKeys) -> Option<String> {
        let name = merge.agent.as_ref()?;
        let text = &name.value.text;
        let agent = self.agents.find(text, name.place, self.sink)?;
        if agent.prompt_is_script {
            let message = format!("the agent `{}` has no script of its own", shown(text));
            let help = "an agent that resolves conflicts is told what conflicts, not what to play";
            self.sink.report(name.place, message, help);
        }
        Some(text.clone())
    }

    fn merge_verify(&mut self, merge: &MergeKeys) -> Vec<VerifyWork> {
        let mut texts = Vec::new();
        let verify = commands(merge.verify.as_ref(), &mut texts, self.sink);
        for text in &texts {
            // Only whether it can be filled in.
            drop(self.preview.fill_for_batch(text, self.sink));
        }
        verify
    }

    /// The name of the batch branch, with what stands for the batch's id; `None`: it is reported.
    fn branch_name(&mut self, merge: &MergeKeys) -> Option<String> {
        let Some(into) = &merge.into else {
            return Some(INTO.replace("{{ batch.id }}", PREVIEW_ID));
        };
        let filled = self.preview.fill_for_batch(&into.value, self.sink)?;
        match check_branch_name(&filled) {
            Ok(()) => Some(filled),
            Err(refusal) => {
                self.refuse(into.place, refusal);
                None
            }
        }
    }
}

/// The hooks that the keys mean; their texts that may be templates go to `texts`.
pub(super) fn hooks(keys: &HookKeys, texts: &mut Vec<Text>, sink: &mut Sink) -> HooksWork {
    HooksWork {
        after_create: commands(keys.after_create.as_ref(), texts, sink),
        before_run: commands(keys.before_run.as_ref(), texts, sink),
        after_run: commands(keys.after_run.as_ref(), texts, sink),
        before_remove: commands(keys.before_remove.as_ref(), texts, sink),
    }
}

/// Which hooks there are.
pub(super) fn flags(hooks: &HooksWork) -> Hooks {
    Hooks {
        after_create: !hooks.after_create.is_empty(),
        before_run: !hooks.before_run.is_empty(),
        after_run: !hooks.after_run.is_empty(),
        before_remove: !hooks.before_remove.is_empty(),
    }
}
