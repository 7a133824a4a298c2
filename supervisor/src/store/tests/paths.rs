//! Where things are, and that only their owner gets there.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use protocol::ids::{AttemptNo, BatchId, Generation};

use crate::store::{Disk, OpenAs, RealDisk, StateDir, StateRoot, StoreError};

fn root(vars: &[(&str, &Path)]) -> Result<StateRoot, StoreError> {
    StateRoot::from_vars(|name| {
        let found = vars.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

fn id(text: &str) -> BatchId {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_state_is_where_xdg_says() {
    let home = Path::new("/home/a");
    let by_home = root(&[("HOME", home)]).unwrap();
    assert_eq!(by_home.path(), Path::new("/home/a/.local/state/supervisor"));
    let by_xdg = root(&[("HOME", home), ("XDG_STATE_HOME", Path::new("/s"))]).unwrap();
    assert_eq!(by_xdg.path(), Path::new("/s/supervisor"));
    let relative = root(&[("HOME", home), ("XDG_STATE_HOME", Path::new("s"))]).unwrap();
    assert_eq!(relative, by_home, "a path that is not absolute is not used");
    assert!(matches!(root(&[]), Err(StoreError::NoHome)));
    assert!(matches!(
        root(&[("HOME", Path::new(""))]),
        Err(StoreError::NoHome)
    ));
}

#[test]
fn every_file_of_a_batch_has_its_place() {
    let dir = root(&[("HOME", Path::new("/h"))])
        .unwrap()
        .batch(&id("b-1"));
    let base = PathBuf::from("/h/.local/state/supervisor/batches/b-1");
    assert_eq!(dir.path(), base);
    let run = dir.run(&"m-a.b".parse().unwrap(), AttemptNo(2), Generation(17));
    assert_eq!(run, base.join("tasks/m-a.b/attempts/2/runs/17"));
    let names = [
        (dir.batch_file(), "batch.yml"),
        (dir.inputs(), "inputs"),
        (dir.segment(1), "journal/000001.jsonl"),
        (dir.segment(12_345_678), "journal/12345678.jsonl"),
        (dir.reserve(), "journal/reserve"),
        (dir.checkpoint(), "checkpoint.json"),
        (dir.lock(), "lock"),
        (dir.inbox(), "inbox"),
        (dir.hosts_log(), "hosts.log"),
        (dir.supervisor_log(), "supervisor.log"),
    ];
    for (path, name) in names {
        assert_eq!(path, base.join(name));
    }
}

#[test]
fn folders_and_files_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("run");
    std::fs::create_dir(&runtime).unwrap();
    let vars = [("HOME", folder.path()), ("XDG_RUNTIME_DIR", &runtime)];
    let root = root(&vars).unwrap();
    root.create().unwrap();
    root.create().unwrap();
    let dir = root.batch(&id("b-1"));
    dir.create(&RealDisk).unwrap();
    dir.create(&RealDisk).unwrap();
    let folders = [
        root.path().to_owned(),
        root.batches(),
        root.index(),
        runtime.join("supervisor"),
        dir.path().to_owned(),
        dir.journal(),
        dir.inputs(),
        dir.inbox(),
        dir.tasks(),
    ];
    for folder in folders {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    drop(RealDisk.open(&dir.checkpoint(), OpenAs::New).unwrap());
    assert_eq!(mode(&dir.checkpoint()), 0o600);
}

#[test]
fn a_state_folder_open_to_others_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&[("XDG_STATE_HOME", folder.path())]).unwrap();
    std::fs::create_dir(root.path()).unwrap();
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
    root.create().unwrap();
    assert_eq!(mode(root.path()), 0o700);
}

#[test]
fn a_link_in_place_of_the_state_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let root = root(&[("XDG_STATE_HOME", folder.path())]).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.path()).unwrap();
    let error = root.create().unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn files_are_never_opened_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    std::fs::write(&target, b"precious").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for how in [OpenAs::Read, OpenAs::Write, OpenAs::New] {
        assert!(RealDisk.open(&link, how).is_err(), "{how:?}");
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

#[test]
fn a_link_in_place_of_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    std::fs::create_dir(&target).unwrap();
    RealDisk.create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(RealDisk.create_dir(&link).is_err());
    // Above the folder a link is the operator's own.
    RealDisk.create_dir(&link.join("below")).unwrap();
}

#[test]
fn the_socket_is_in_the_runtime_folder_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("run");
    let vars = [("HOME", folder.path()), ("XDG_RUNTIME_DIR", &runtime)];
    let root = root(&vars).unwrap();
    let beside = root.batch(&id("b-1")).path().join("sock");
    assert_eq!(
        root.socket(&id("b-1")),
        beside,
        "the runtime folder is not there"
    );
    std::fs::create_dir(&runtime).unwrap();
    root.create().unwrap();
    assert_eq!(root.socket(&id("b-1")), runtime.join("supervisor/b-1.sock"));
}

#[test]
fn a_socket_path_is_never_too_long_for_the_kernel() {
    let long = id(&"x".repeat(96));
    let other = id(&"y".repeat(96));
    let root = root(&[("HOME", Path::new("/home/somebody"))]).unwrap();
    let (socket, next) = (root.socket(&long), root.socket(&other));
    assert!(socket.as_os_str().len() <= 100, "{}", socket.display());
    assert!(socket.starts_with(root.path()));
    assert_ne!(socket, next);
}

#[test]
fn the_real_disk_does_what_the_seam_says() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::at(folder.path().join("b"));
    dir.create(&RealDisk).unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let missing = RealDisk.open(&a, OpenAs::Read).map(|_| ()).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    let mut file = RealDisk.open(&a, OpenAs::New).unwrap();
    let twice = RealDisk.open(&a, OpenAs::New).map(|_| ()).unwrap_err();
    assert_eq!(twice.kind(), std::io::ErrorKind::AlreadyExists);
    file.write_at(0, b"0123456789").unwrap();
    file.write_at(3, b"xyz").unwrap();
    file.sync().unwrap();
    file.truncate(8).unwrap();
    let mut bytes = [0; 20];
    assert_eq!(file.read_at(2, &mut bytes).unwrap(), 6);
    assert_eq!(&bytes[..6], b"2xyz67");
    assert_eq!((file.len().unwrap(), file.is_empty().unwrap()), (8, false));
    RealDisk.rename(&a, &b).unwrap();
    RealDisk.sync_dir(dir.path()).unwrap();
    let mut names = RealDisk.list(dir.path()).unwrap();
    names.sort();
    assert_eq!(names, ["b", "inbox", "inputs", "journal", "tasks"]);
    assert_eq!(RealDisk.open(&b, OpenAs::Write).unwrap().len().unwrap(), 8);
    RealDisk.remove(&b).unwrap();
    assert!(RealDisk.remove(&b).is_err());
}
