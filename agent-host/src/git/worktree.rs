//! A linked worktree of ours: its folder, its entry under `worktrees` of the shared git folder, and
//! the two files by which they name each other.
//!
//! The entry is written by us and not by `git worktree add`: that one writes it in place, file by
//! file, and a second `git` that reads it meanwhile fails. Everything is found by the folder alone;
//! the name of the entry is whatever was free.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use protocol::git::Oid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::Hands;
use super::error::GitError;
use super::program::{Call, Git};
use super::{folder, locks, tree};

/// What `git worktree list` says of ours.
const REASON: &str = "in use by supervisor";
/// Most bytes of a file that holds one path or one ref.
const LINE_MAX: u64 = 16 << 10;
/// Most entries of the same name that are tried.
const NAMES_MAX: u32 = 100_000;
/// Longest name of an entry, characters: well below what file systems take.
const NAME_MAX: usize = 100;

/// A worktree of ours that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worktree {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Its entry under `worktrees`.
    pub(crate) admin: PathBuf,
}

impl Worktree {
    /// The worktree at this folder, its links put right and its own locks removed; `None` where the
    /// folder or the entry is gone.
    ///
    /// # Errors
    /// When a file of it can not be read or written.
    pub(crate) fn find(hands: &Hands, folder: &Path) -> Result<Option<Self>, GitError> {
        // A link in its place leads to what is not ours.
        if !fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir()) {
            return Ok(None);
        }
        let Some(admin) = entry_of(&hands.repo.common, folder)? else {
            return Ok(None);
        };
        let found = Self {
            folder: folder.to_owned(),
            admin,
        };
        found.link()?;
        locks::heal_worktree(&found.admin)?;
        Ok(Some(found))
    }

    /// As [`Worktree::find`], where it must be there.
    ///
    /// # Errors
    /// As [`Worktree::find`], and when it is gone.
    pub(crate) fn get(hands: &Hands, folder: &Path) -> Result<Self, GitError> {
        Self::find(hands, folder)?.ok_or_else(|| {
            let repo = hands.repo.path.display();
            let folder = folder.display();
            GitError::Unfit(format!("{folder} is no worktree of {repo} any more"))
        })
    }

    /// A call of `git` in it, whatever an agent made of its files.
    pub(crate) fn call<'a>(&self, git: &'a Git) -> Call<'a> {
        git.at(&self.folder)
            .env("GIT_DIR", &self.admin)
            .env("GIT_WORK_TREE", &self.folder)
    }

    /// What its `HEAD` says: a ref, or the name of a commit.
    ///
    /// # Errors
    /// When it can not be read.
    pub(crate) fn head(&self) -> Result<Head, GitError> {
        let path = self.admin.join("HEAD");
        let text = read_line(&path).map_err(GitError::file("read", &path))?;
        Ok(match text.strip_prefix("ref: ") {
            Some(reference) => Head::On(reference.trim().to_owned()),
            None => Head::At(text),
        })
    }

    /// Whether an agent made a repository of its own in place of the link to ours.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.folder.join(".git").is_dir()
    }

    /// Makes folder and entry name each other. A repository in place of the link stays: calls in the
    /// worktree name the entry themselves.
    fn link(&self) -> Result<(), GitError> {
        let dotgit = self.folder.join(".git");
        let back = self.admin.join("gitdir");
        for (path, prefix, target) in [
            (&dotgit, "gitdir: ", self.admin.as_path()),
            (&back, "", dotgit.as_path()),
        ] {
            let mut line = prefix.as_bytes().to_owned();
            line.extend_from_slice(target.as_os_str().as_bytes());
            line.push(b'\n');
            let stays = path.is_dir() || names(path, prefix, target);
            if stays || fs::read(path).is_ok_and(|now| now == line) {
                continue;
            }
            replace(path, &line).map_err(GitError::file("write", path))?;
        }
        Ok(())
    }
}

/// Where a worktree's `HEAD` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// On this ref.
    On(String),
    /// Detached, at this commit.
    At(String),
}

/// Makes a worktree at a commit, on a branch that is there, or detached. Its entry is written aside
/// and put in place as a whole: whoever lists the worktrees meanwhile never reads half an entry, and
/// those that are made at the same time never share a name. It is locked against `git worktree prune`.
/// Returns what the checkout complained of.
///
/// # Errors
/// When something can not be written, or `git` can not check it out. What is there then is removed by
/// the next [`clear`].
pub(crate) fn add(
    hands: &Hands,
    folder: &Path,
    branch: Option<&str>,
    commit: &Oid,
) -> Result<(Worktree, Vec<u8>), GitError> {
    fs::create_dir_all(folder).map_err(GitError::file("make", folder))?;
    let folder = fs::canonicalize(folder).map_err(GitError::file("find", folder))?;
    let head = match branch {
        Some(branch) => format!("ref: {branch}\n"),
        None => format!("{commit}\n"),
    };
    let aside = aside(hands, &folder, "new");
    tree::remove(&aside)?;
    write_entry(hands, &aside, &folder, &head)?;
    let there = Worktree {
        admin: put_in_place(hands, &aside, &folder)?,
        folder,
    };
    there.link()?;
    let call = there.call(&hands.git).args(["reset", "-q", "--hard"]);
    let call = call.args(["--no-recurse-submodules", commit.as_str()]);
    let told = call.one_of(&[0])?.err;
    Ok((there, told))
}

/// Where an entry is written, or goes to be removed: beside those that `git` sees, by a name that the
/// next work for the same folder finds again.
fn aside(hands: &Hands, folder: &Path, what: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    let name = format!("supervisor-{what}-{:016x}", hasher.finish());
    hands.repo.common.join(name)
}

fn write_entry(hands: &Hands, entry: &Path, folder: &Path, head: &str) -> Result<(), GitError> {
    fs::create_dir_all(entry).map_err(GitError::file("make", entry))?;
    let mut gitdir = folder.join(".git").into_os_string().into_vec();
    gitdir.push(b'\n');
    let files: [(&str, &[u8]); 4] = [
        ("HEAD", head.as_bytes()),
        ("commondir", b"../..\n"),
        ("gitdir", &gitdir),
        ("locked", REASON.as_bytes()),
    ];
    for (name, bytes) in files {
        let path = entry.join(name);
        fs::write(&path, bytes).map_err(GitError::file("write", &path))?;
    }
    carry_over(hands, entry)
}

/// Gives a new worktree what `git` keeps for each: which part of the files is checked out.
fn carry_over(hands: &Hands, entry: &Path) -> Result<(), GitError> {
    let from = hands.repo.raw.path();
    let patterns = from.join("info/sparse-checkout");
    if patterns.is_file() {
        let to = entry.join("info");
        fs::create_dir_all(&to).map_err(GitError::file("make", &to))?;
        let to = to.join("sparse-checkout");
        fs::copy(&patterns, &to).map_err(GitError::file("write", &to))?;
    }
    let settings = from.join("config.worktree");
    if settings.is_file() {
        let to = entry.join("config.worktree");
        fs::copy(&settings, &to).map_err(GitError::file("write", &to))?;
        // These two are about the other worktree. Exit 5: it does not say.
        for key in ["core.worktree", "core.bare"] {
            let call = hands.git.at(entry).args(["config", "-f"]).args([&to]);
            call.args(["--unset-all", key]).one_of(&[0, 5])?;
        }
    }
    Ok(())
}

/// Moves an entry to where `git` looks, under the first name that is free.
fn put_in_place(hands: &Hands, aside: &Path, folder: &Path) -> Result<PathBuf, GitError> {
    let entries = hands.repo.common.join("worktrees");
    fs::create_dir_all(&entries).map_err(GitError::file("make", &entries))?;
    let name = plain(folder);
    for number in 0..NAMES_MAX {
        let path = match number {
            0 => entries.join(&name),
            _ => entries.join(format!("{name}-{number}")),
        };
        match renameat_with(CWD, aside, CWD, &path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(GitError::file("make", &path)(error.into())),
            Ok(()) => return Ok(path),
        }
    }
    let text = format!("{} holds too many entries {name}", entries.display());
    Err(GitError::Unfit(text))
}

/// A name that is also part of a ref's name, as `git` wants it of an entry.
fn plain(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.chars().map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => c,
        _ => '-',
    });
    plain.take(NAME_MAX).collect()
}

/// Makes room for a worktree: what a killed making left goes, and what is not of ours is in the way.
///
/// # Errors
/// When something else is there, or can not be removed.
pub(crate) fn clear(hands: &Hands, folder: &Path) -> Result<(), GitError> {
    let is_ours = entry_of(&hands.repo.common, folder)?.is_some();
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut items| items.next().is_none());
    if !is_ours && fs::symlink_metadata(folder).is_ok() && !is_empty() {
        return Err(GitError::Unfit(format!(
            "{} is in the way: it is no worktree of {}; move it away",
            folder.display(),
            hands.repo.path.display()
        )));
    }
    remove(hands, folder).map(drop)
}

/// Removes a worktree. Its folder and its entry each leave their place as a whole, so cut off anywhere
/// there is no half of one, and the next time goes on. What was the folder goes last: as long as it is
/// there, a removal is under way. Returns whether anything was there.
///
/// # Errors
/// When something can not be removed.
pub(crate) fn remove(hands: &Hands, folder: &Path) -> Result<bool, GitError> {
    let going = going(folder)?;
    for place in [folder, &going] {
        if let Some(mount) = tree::mounted_in(place)? {
            return Err(GitError::Unfit(format!(
                "{} stays: another file system is mounted at {}, `umount` it first",
                place.display(),
                mount.display()
            )));
        }
    }
    let entry = entry_of(&hands.repo.common, folder)?;
    let mut existed = leave(folder, &going)?;
    let real = real(folder).unwrap_or_else(|| folder.to_owned());
    let old = aside(hands, &real, "old");
    existed |= tree::remove(&old)? | tree::remove(&aside(hands, &real, "new"))?;
    if let Some(admin) = entry {
        fs::rename(&admin, &old).map_err(GitError::file("remove", &admin))?;
        existed |= tree::remove(&old)?;
    }
    Ok(tree::remove(&going)? || existed)
}

/// Takes a folder out of its place. Returns whether it was there.
fn leave(folder: &Path, going: &Path) -> Result<bool, GitError> {
    if fs::symlink_metadata(folder).is_err() {
        return Ok(false);
    }
    tree::remove(going)?;
    match fs::rename(folder, going) {
        Ok(()) => Ok(true),
        // A folder from a lower layer of an overlay does not move.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => tree::remove(folder),
        Err(error) => Err(GitError::file("move aside", folder)(error)),
    }
}

/// Where the folder of a worktree goes to be removed: something is there when that was cut off.
///
/// # Errors
/// When the path is not absolute.
pub(crate) fn going(folder: &Path) -> Result<PathBuf, GitError> {
    folder::aside(folder, "removed")
}

/// Where a branch is checked out: the folder whose git folder says so.
///
/// # Errors
/// When the entries can not be read.
pub(crate) fn holder_of(hands: &Hands, branch: &str) -> Result<Option<PathBuf>, GitError> {
    let line = format!("ref: {branch}");
    let common = &hands.repo.common;
    for admin in entries(common)?.into_iter().chain([common.clone()]) {
        if read_line(&admin.join("HEAD")).is_ok_and(|head| head == line) {
            let Target(named) = target(&admin.join("gitdir"), "");
            let folder = named.as_deref().and_then(Path::parent);
            return Ok(Some(folder.unwrap_or(&hands.repo.path).to_owned()));
        }
    }
    Ok(None)
}

/// The entry of a folder: the one that names it, or the one that it names, where that entry's own
/// folder is gone (it was moved here).
///
/// # Errors
/// When the entries can not be read.
pub(crate) fn entry_of(common: &Path, folder: &Path) -> Result<Option<PathBuf>, GitError> {
    let dotgit = folder.join(".git");
    let mut claims = None;
    for admin in entries(common)? {
        if names(&admin.join("gitdir"), "", &dotgit) {
            return Ok(Some(admin));
        }
        if names(&dotgit, "gitdir: ", &admin) && !target(&admin.join("gitdir"), "").is_dir_of() {
            claims = Some(admin);
        }
    }
    Ok(claims)
}

fn entries(common: &Path) -> Result<Vec<PathBuf>, GitError> {
    let folder = common.join("worktrees");
    let failed = || GitError::file("read", &folder);
    let items = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed())?,
    };
    let items: Result<Vec<PathBuf>, io::Error> = items.map(|item| Ok(item?.path())).collect();
    items.map_err(failed())
}

/// What a file that holds one path names.
struct Target(Option<PathBuf>);

impl Target {
    /// Whether the folder of the `.git` that it names is there.
    fn is_dir_of(&self) -> bool {
        let folder = self.0.as_deref().and_then(Path::parent);
        folder.is_some_and(Path::is_dir)
    }
}

fn target(file: &Path, prefix: &str) -> Target {
    let text = fs::read(file).ok();
    let path = text.as_deref().and_then(|text| {
        let text = text.strip_prefix(prefix.as_bytes())?.trim_ascii_end();
        let path = Path::new(std::ffi::OsStr::from_bytes(text));
        Some(file.parent()?.join(path))
    });
    Target(path)
}

/// Whether a file names this path, by whatever way links lead to it.
fn names(file: &Path, prefix: &str, path: &Path) -> bool {
    let Target(Some(named)) = target(file, prefix) else {
        return false;
    };
    if named == path {
        return true;
    }
    real(&named).is_some_and(|named| real(path) == Some(named))
}

/// A path with all links above it followed; the thing itself need not be there.
fn real(path: &Path) -> Option<PathBuf> {
    let parent = fs::canonicalize(path.parent()?).ok()?;
    Some(parent.join(path.file_name()?))
}

fn replace(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".supervisor");
    fs::write(&aside, line)?;
    fs::rename(&aside, path)
}

fn read_line(path: &Path) -> io::Result<String> {
    let text = crate::run::read_bounded(path, LINE_MAX)?;
    Ok(text.trim_end().to_owned())
}
