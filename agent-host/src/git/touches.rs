//! Which changed files a task was not to touch.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use protocol::git::PATHS_MAX;

use super::commit::Change;
use super::error::GitError;

/// Changed files that no glob names, themselves or by a folder above them; at most [`PATHS_MAX`].
///
/// # Errors
/// When a glob is none.
pub(super) fn outside(globs: &[String], changes: &[Change]) -> Result<Vec<String>, GitError> {
    let globs = set(globs)?;
    let outside = changes.iter().filter(|change| {
        let mut names = change.path.ancestors();
        !names.any(|name| !name.as_os_str().is_empty() && globs.is_match(name))
    });
    let names = outside.map(|change| change.path.to_string_lossy().into_owned());
    Ok(names.take(PATHS_MAX).collect())
}

/// `*` and `?` stay within one segment, as where the plan compares the globs of two tasks.
fn set(globs: &[String]) -> Result<GlobSet, GitError> {
    let mut set = GlobSetBuilder::new();
    for text in globs {
        let trimmed = text.trim_start_matches("./").trim_end_matches('/');
        let glob = GlobBuilder::new(trimmed).literal_separator(true).build();
        set.add(glob.map_err(|error| GitError::Unfit(format!("touches: {error}")))?);
    }
    let set = set.build();
    set.map_err(|error| GitError::Unfit(format!("touches: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::commit::Now;
    use super::*;

    #[test]
    fn a_glob_names_its_whole_subtree_and_a_star_one_segment() {
        let changes = ["src/a.rs", "src/deep/b.rs", "docs/c.md", "d.md"].map(|path| Change {
            path: path.into(),
            before: None,
            now: Now::File,
        });
        let outside = |globs: &[&str]| {
            let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
            outside(&globs, &changes).unwrap()
        };
        assert_eq!(outside(&["src", "docs/"]), ["d.md"]);
        assert_eq!(outside(&["src/*.rs", "**/*.md"]), ["src/deep/b.rs"]);
        assert_eq!(outside(&["**"]), [""; 0]);
        assert_eq!(outside(&[]).len(), 4);
    }
}
