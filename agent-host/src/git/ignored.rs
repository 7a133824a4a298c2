//! Which files of a worktree are ignored, as `git` itself says, and which of those are kept all the
//! same.

use std::collections::HashSet;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::error::GitError;
use super::folder;
use super::program::Git;

/// Where a folder lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    /// Among what is not ignored.
    Plain,
    /// Among what is ignored.
    Ignored,
    /// Among what is ignored and kept as a whole.
    Wanted,
}

/// The ignored files of one worktree.
#[derive(Debug)]
pub(super) struct Ignored {
    /// Paths; those of folders end in a slash and stand for everything below.
    listed: HashSet<Vec<u8>>,
    keep: GlobSet,
    /// What of that is not kept all the same.
    drop: GlobSet,
}

impl Ignored {
    /// Asks `git`, with the worktree's own index: what is tracked is not ignored. A folder that holds
    /// nothing but ignored files counts as ignored. An index that `git` can not read, or a worktree
    /// without a git folder, ignores nothing: then everything is kept.
    ///
    /// # Errors
    /// When a glob is none.
    pub(super) fn of(
        git: &Git,
        admin: Option<&Path>,
        worktree: &Path,
        keep: &[String],
    ) -> Result<Self, GitError> {
        let (keep, drop) = globs(keep)?;
        let out = match admin {
            Some(admin) => listing(git, admin, worktree).unwrap_or_default(),
            None => Vec::new(),
        };
        let paths = out.split(|&byte| byte == 0);
        let listed = paths
            .filter(|path| !path.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        Ok(Self { listed, keep, drop })
    }

    /// Ignores nothing.
    pub(super) fn nothing() -> Self {
        Self {
            listed: HashSet::new(),
            keep: GlobSet::empty(),
            drop: GlobSet::empty(),
        }
    }

    /// Whether both say the same.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        self.listed == other.listed
    }

    /// Where the folder or file lies that has this path, in a folder that lies in `region`.
    pub(super) fn region(&self, region: Region, path: &[u8], is_folder: bool) -> Region {
        let is_listed = || match is_folder {
            true => self.listed.contains(&[path, b"/"].concat()),
            false => self.listed.contains(path),
        };
        match region {
            Region::Wanted => Region::Wanted,
            Region::Plain if !is_listed() => Region::Plain,
            Region::Plain | Region::Ignored if self.is_wanted(path) => Region::Wanted,
            Region::Plain | Region::Ignored => Region::Ignored,
        }
    }

    /// Whether a folder among what is ignored can hold something that is kept.
    pub(super) fn may_keep(&self) -> bool {
        !self.keep.is_empty()
    }

    /// A pattern also names what is below: the path or a folder above it matches.
    fn is_wanted(&self, path: &[u8]) -> bool {
        let ends = (0..=path.len()).filter(|&at| at == path.len() || path[at] == b'/');
        let mut kept = false;
        for end in ends {
            let path = folder::path(&path[..end]);
            if self.drop.is_match(&path) {
                return false;
            }
            kept |= self.keep.is_match(path);
        }
        kept
    }
}

/// What is kept, and what of that is not.
fn globs(rules: &[String]) -> Result<(GlobSet, GlobSet), GitError> {
    let (mut keep, mut drop) = (GlobSetBuilder::new(), GlobSetBuilder::new());
    for rule in rules {
        let (set, glob) = match rule.strip_prefix('!') {
            Some(glob) => (&mut drop, glob),
            None => (&mut keep, rule.as_str()),
        };
        let built = GlobBuilder::new(glob.trim_end_matches('/'))
            .literal_separator(true)
            .build();
        let built =
            built.map_err(|error| GitError::Unfit(format!("`{rule}` is not a glob: {error}")))?;
        set.add(built);
    }
    let whole = |globs: GlobSetBuilder| {
        globs
            .build()
            .map_err(|error| GitError::Unfit(format!("the globs of ignored files: {error}")))
    };
    Ok((whole(keep)?, whole(drop)?))
}

fn listing(git: &Git, admin: &Path, worktree: &Path) -> Result<Vec<u8>, GitError> {
    git.at(worktree)
        .env("GIT_DIR", admin)
        .env("GIT_WORK_TREE", worktree)
        .args([
            "ls-files",
            "-z",
            "--others",
            "--ignored",
            "--exclude-standard",
            "--directory",
        ])
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(listed: &[&str], keep: &[&str]) -> Ignored {
        let rules: Vec<String> = keep.iter().map(|&rule| rule.to_owned()).collect();
        let (keep, drop) = globs(&rules).unwrap();
        Ignored {
            listed: listed.iter().map(|path| path.as_bytes().to_vec()).collect(),
            keep,
            drop,
        }
    }

    #[test]
    fn all_that_is_ignored_is_kept_but_what_a_rule_takes_out() {
        let rules = ignored(
            &["target/", ".env", "notes/"],
            &["**", "!**/target", "!*.o"],
        );
        let file = |region, path: &str| rules.region(region, path.as_bytes(), false);
        let folder = |region, path: &str| rules.region(region, path.as_bytes(), true);
        assert_eq!(file(Region::Plain, ".env"), Region::Wanted);
        assert_eq!(folder(Region::Plain, "notes"), Region::Wanted);
        assert_eq!(folder(Region::Plain, "target"), Region::Ignored);
        assert_eq!(file(Region::Ignored, "target/debug/x"), Region::Ignored);
    }

    #[test]
    fn what_is_ignored_is_kept_only_by_a_rule() {
        let rules = ignored(
            &["target/", ".env", "a/x.o"],
            &[".env", "target/report/*.xml", "**/cache"],
        );
        let file = |region, path: &str| rules.region(region, path.as_bytes(), false);
        let folder = |region, path: &str| rules.region(region, path.as_bytes(), true);
        assert_eq!(file(Region::Plain, "src/a"), Region::Plain);
        assert_eq!(file(Region::Plain, ".env"), Region::Wanted);
        assert_eq!(file(Region::Plain, "a/x.o"), Region::Ignored);
        assert_eq!(folder(Region::Plain, "target"), Region::Ignored);
        assert_eq!(
            file(Region::Plain, "target"),
            Region::Plain,
            "a file, not the folder"
        );
        assert_eq!(file(Region::Ignored, "target/o"), Region::Ignored);
        assert_eq!(file(Region::Ignored, "target/report/a.xml"), Region::Wanted);
        assert_eq!(folder(Region::Ignored, "target/b/cache"), Region::Wanted);
        assert_eq!(file(Region::Wanted, "target/b/cache/f"), Region::Wanted);
    }
}
