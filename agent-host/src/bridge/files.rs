//! Files that an agent names as its work.

use std::path::{Component, Path, PathBuf};

use protocol::bridge::{ARTIFACT_PATH_MAX, ARTIFACTS_MAX};

/// The named files relative to the working folder; each must be there now.
///
/// # Errors
/// Which one is not taken, and why, for the agent.
pub(super) fn check(cwd: &Path, named: &[String]) -> Result<Vec<String>, String> {
    if named.len() > ARTIFACTS_MAX {
        return Err(format!("a result names at most {ARTIFACTS_MAX} files"));
    }
    named.iter().map(|name| check_one(cwd, name)).collect()
}

fn check_one(cwd: &Path, name: &str) -> Result<String, String> {
    let path = Path::new(name);
    let below = path.strip_prefix(cwd).unwrap_or(path);
    let mut plain = PathBuf::new();
    for part in below.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(format!("`{name}` is not below the working folder"));
            }
        }
    }
    let text = plain.to_string_lossy().into_owned();
    if text.is_empty() || text.len() > ARTIFACT_PATH_MAX {
        return Err(format!(
            "the path of a file has 1 to {ARTIFACT_PATH_MAX} bytes, `{}` has not",
            protocol::report::excerpt(name, 80)
        ));
    }
    // A link counts as itself: what it leads to is not looked at.
    match cwd.join(&plain).symlink_metadata() {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("`{name}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("out")).unwrap();
        std::fs::write(folder.path().join("out/a.txt"), "a").unwrap();
        folder
    }

    #[test]
    fn files_below_the_working_folder_are_named_relative_to_it() {
        let folder = folder();
        let absolute = folder.path().join("out/a.txt").display().to_string();
        for name in ["out/a.txt", "./out//a.txt", &absolute] {
            let named = check(folder.path(), &[name.to_owned()]);
            assert_eq!(named, Ok(vec!["out/a.txt".to_owned()]), "{name}");
        }
    }

    #[test]
    fn what_is_elsewhere_absent_or_too_much_is_refused() {
        let folder = folder();
        for name in ["../x", "out/../../x", "/etc/passwd", "absent", "", "."] {
            let refused = check(folder.path(), &[name.to_owned()]);
            assert!(refused.is_err(), "{name}: {refused:?}");
        }
        let long = "x".repeat(ARTIFACT_PATH_MAX + 1);
        assert!(check(folder.path(), &[long]).is_err());
        let many = vec!["out/a.txt".to_owned(); ARTIFACTS_MAX + 1];
        assert!(check(folder.path(), &many).is_err());
        assert!(check(folder.path(), &many[1..]).is_ok());
    }
}
