//! Copies of what forges answered: fresh ones spare the request, older ones the body of the answer
//! (`ETag`), and for a day they stand in where a forge can not be reached.
//!
//! The folder is the operator's alone, no link in it is followed, and what it holds is bounded. A copy
//! that can not be read, or is of something else, is no copy; a cache that can not be used costs
//! requests, never the fetch.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::answer::BODY_MAX;
use crate::plain::Folder;

/// Below the user's folder of caches.
const FOLDER: &str = "supervisor/forge";
/// Version of a copy; another one is no copy.
const VERSION: u32 = 1;
/// Longest time that a copy stands in for the forge, milliseconds: a day.
pub(super) const STAND_IN_MS: i64 = 24 * 3600 * 1000;
/// Most bytes of all copies together (256 MiB: thousands of issues).
const ALL_MAX: u64 = 256 << 20;
/// Most copies.
const COPIES_MAX: usize = 4096;
/// Largest copy: the body with every byte escaped would be more, and is then not kept.
const COPY_MAX: u64 = 2 * BODY_MAX;

/// The folder of copies.
#[derive(Debug)]
pub(super) struct Cache {
    folder: Folder,
}

/// One copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copy {
    version: u32,
    /// The whole address.
    url: String,
    /// The form.
    accept: String,
    /// Its mark, where the forge gave one.
    pub(super) etag: Option<String>,
    /// When the forge last said that this is how things stand, milliseconds since the Unix epoch.
    pub(super) seen_ms: i64,
    /// What it said.
    pub(super) body: String,
}

impl Copy {
    pub(super) fn new(url: &str, accept: &str, etag: Option<&str>, seen_ms: i64) -> Self {
        Self {
            version: VERSION,
            url: url.to_owned(),
            accept: accept.to_owned(),
            etag: etag.map(str::to_owned),
            seen_ms,
            body: String::new(),
        }
    }

    /// The form that it is in.
    pub(super) fn accept(&self) -> &str {
        &self.accept
    }

    /// How old it is; one from the future counts as too old for anything.
    pub(super) fn age_ms(&self, now_ms: i64) -> i64 {
        let age = now_ms.saturating_sub(self.seen_ms);
        if age < 0 { i64::MAX } else { age }
    }
}

impl Cache {
    /// Opens the folder, and makes it where it is missing; `None` where the environment names no home.
    ///
    /// # Errors
    /// What the file system says, and "permission denied" for a folder that others may write in.
    pub(super) fn open(variable: impl Fn(&str) -> Option<String>) -> io::Result<Option<Self>> {
        let named = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
        // A relative one is to be ignored, by the rules of these folders.
        let outer = named.filter(|path| path.is_absolute()).or_else(home);
        let Some(outer) = outer else {
            return Ok(None);
        };
        let folder = Folder::outer(&outer)?.make(FOLDER.as_ref())?.folder;
        if !folder.is_ours()? {
            let text = format!("{} may be written by others", folder.path().display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Some(Self { folder }))
    }

    /// The copy of this, whatever its age.
    pub(super) fn find(&self, url: &str, accept: &str) -> Option<Copy> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = self.folder.open(&name_of(url, accept), flags).ok()?;
        let mut bytes = Vec::new();
        file.take(COPY_MAX).read_to_end(&mut bytes).ok()?;
        let copy: Copy = serde_json::from_slice(&bytes).ok()?;
        let same = copy.version == VERSION && copy.url == url && copy.accept == accept;
        same.then_some(copy)
    }

    /// Keeps a copy in place of an older one, and lets the oldest go where there are too many.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn keep(&self, copy: &Copy) -> io::Result<()> {
        let bytes = serde_json::to_vec(copy)?;
        if bytes.len() as u64 > COPY_MAX {
            return Ok(());
        }
        let name = name_of(&copy.url, &copy.accept);
        let aside = format!("{name}.{}.new", std::process::id());
        match self.folder.remove(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.folder.create_new(&aside)?.write_all(&bytes)?;
        self.folder.rename(&aside, &name)?;
        self.trim()
    }

    fn trim(&self) -> io::Result<()> {
        let mut all: Vec<_> = self
            .folder
            .entries(COPIES_MAX * 2)?
            .into_iter()
            .filter(|(_, facts)| facts.is_file())
            .collect();
        // The newest first; what was left aside by a killed process ages like the rest.
        all.sort_by_key(|(_, facts)| std::cmp::Reverse(facts.modified().unwrap_or(UNIX_EPOCH)));
        let mut bytes = 0;
        for (number, (name, facts)) in all.iter().enumerate() {
            bytes += facts.len();
            if number >= COPIES_MAX || bytes > ALL_MAX {
                match self.folder.remove(name) {
                    // Another process was faster.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// The name of a copy's file: 64 bits of FNV-1a. The copy itself says what it is of.
fn name_of(url: &str, accept: &str) -> String {
    let bytes = url.bytes().chain([0]).chain(accept.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn open(home: &Path) -> io::Result<Option<Cache>> {
        let home = home.display().to_string();
        Cache::open(|name| (name == "XDG_CACHE_HOME").then(|| home.clone()))
    }

    fn copy(url: &str) -> Copy {
        Copy {
            body: "body".to_owned(),
            ..Copy::new(url, "json", Some("\"1\""), 5)
        }
    }

    #[test]
    fn a_copy_comes_back_and_one_of_something_else_does_not() {
        let home = tempfile::tempdir().unwrap();
        let cache = open(home.path()).unwrap().unwrap();
        cache.keep(&copy("one")).unwrap();
        assert_eq!(cache.find("one", "json"), Some(copy("one")));
        assert_eq!(cache.find("one", "diff"), None);
        let folder = home.path().join(FOLDER);
        let (one, two) = (name_of("one", "json"), name_of("two", "json"));
        std::fs::rename(folder.join(one), folder.join(&two)).unwrap();
        assert_eq!(
            cache.find("two", "json"),
            None,
            "the same hash is not enough"
        );
        std::fs::write(folder.join(&two), "{half").unwrap();
        assert_eq!(cache.find("two", "json"), None);
        cache.keep(&copy("two")).unwrap();
        assert_eq!(cache.find("two", "json"), Some(copy("two")));
    }

    #[test]
    fn copies_are_the_operators_alone_and_no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let cache = open(home.path()).unwrap().unwrap();
        let folder = home.path().join(FOLDER);
        let target = home.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        let name = name_of("one", "json");
        symlink(&target, folder.join(&name)).unwrap();
        assert_eq!(cache.find("one", "json"), None);
        cache.keep(&copy("one")).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(&name)), 0o600);
        let set = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&folder, set(0o777)).unwrap();
        assert!(open(home.path()).is_err(), "others could put copies there");
    }

    #[test]
    fn a_folder_that_is_a_link_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("elsewhere")).unwrap();
        symlink("elsewhere", home.path().join("supervisor")).unwrap();
        assert!(open(home.path()).is_err());
    }

    #[test]
    fn the_oldest_copies_go_where_there_are_too_many() {
        let home = tempfile::tempdir().unwrap();
        let cache = open(home.path()).unwrap().unwrap();
        let folder = home.path().join(FOLDER);
        cache.keep(&copy("old")).unwrap();
        let old = std::fs::File::options();
        let old = { old }
            .append(true)
            .open(folder.join(name_of("old", "json")));
        old.unwrap().set_modified(UNIX_EPOCH).unwrap();
        for number in 1..COPIES_MAX {
            std::fs::write(folder.join(format!("{number}.json")), "").unwrap();
        }
        cache.keep(&copy("new")).unwrap();
        assert_eq!(cache.find("old", "json"), None);
        assert_eq!(cache.find("new", "json"), Some(copy("new")));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), COPIES_MAX);
    }

    #[test]
    fn without_a_home_there_is_no_cache_and_a_copy_from_the_future_is_too_old() {
        assert!(Cache::open(|_| None).unwrap().is_none());
        assert_eq!(copy("x").age_ms(7), 2);
        assert_eq!(copy("x").age_ms(4), i64::MAX);
    }
}
