//! Where the bridge is: socket and file in the run's folder, and what the agent's environment says.
//!
//! A run's folder may have a longer path than a socket's address can hold (108 bytes), so the
//! address leads through the open folder. So there is no folder of sockets elsewhere that would
//! have to be swept: a killed host leaves a socket that nobody listens at, in a folder that is
//! never used again.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;

use protocol::bridge::{
    BRIDGE_ENV, BRIDGE_FILE_NAME, BRIDGE_FILE_VERSION, BRIDGE_SOCKET_NAME, BridgeFile,
};

use crate::plain::Folder;
use crate::process;

/// Name of the program that agents call.
const PROGRAM: &str = "agent-host";
/// Random bytes of a token.
const TOKEN_SIZE: usize = 16;

/// Makes socket and file; returns the listening socket and the token that opens it.
///
/// # Errors
/// What the file system or the kernel says.
pub(super) fn make(folder: &Folder) -> io::Result<(UnixListener, String)> {
    let listener = UnixListener::bind(folder.reach(BRIDGE_SOCKET_NAME))?;
    folder.set_private(BRIDGE_SOCKET_NAME)?;
    let token = token()?;
    let socket = folder.path().join(BRIDGE_SOCKET_NAME);
    let file = BridgeFile {
        v: BRIDGE_FILE_VERSION,
        socket: socket.display().to_string(),
        token: token.clone(),
    };
    let mut line = serde_json::to_vec(&file)?;
    line.push(b'\n');
    folder.create_new(BRIDGE_FILE_NAME)?.write_all(&line)?;
    Ok((listener, token))
}

/// Removes both.
pub(super) fn remove(folder: &Folder) {
    for name in [BRIDGE_SOCKET_NAME, BRIDGE_FILE_NAME] {
        // What can not be removed opens nothing any more.
        drop(folder.remove(name));
    }
}

fn token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_SIZE];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Tells the agent's environment of the bridge, and sees to it that this program is on its `PATH`.
pub(super) fn tell(env: &mut BTreeMap<String, String>, cwd: &str, file: String) {
    env.insert(BRIDGE_ENV.to_owned(), file);
    let path = env
        .get("PATH")
        .map_or(process::DEFAULT_PATH, String::as_str);
    if process::resolve(PROGRAM, path, cwd).is_some() {
        return;
    }
    let own = std::env::current_exe();
    let folder = own.ok().and_then(|own| Some(own.parent()?.to_owned()));
    if let Some(folder) = folder.filter(|folder| folder.join(PROGRAM).exists()) {
        let path = format!("{path}:{}", folder.display());
        env.insert("PATH".to_owned(), path);
    }
}
