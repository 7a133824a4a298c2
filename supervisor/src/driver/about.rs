//! The issue or pull request that a prompt is made of: its fetch, and what that left in the task's folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use protocol::command::Adapter;
use protocol::forge::{
    CommentAdapter, CommentWork, Fetch, FetchAdapter, ForgeItem, ITEM_FILE_MAX, ITEM_FILE_NAME,
    ITEM_VERSION,
};
use protocol::ids::TaskId;

use super::start::{StartError, path_text};
use crate::batch_file::render::{RenderContext, Rendered, Renderer};
use crate::batch_file::work::{BatchWork, FORGE_ENV, TaskWork};
use crate::store::StateDir;

/// Wall time of a fetch: five requests at their own limit.
const TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// Wall time of one try to post a comment; short, because the end of the batch waits for it.
const COMMENT_TIMEOUT_MS: u64 = 60 * 1000;

/// What the host of a fetch is told. `folder` lies in the repository whose `origin` counts.
///
/// # Errors
/// [`StartError`] for a task that is about nothing, or a reference that is none.
pub(super) fn fetch(
    renderer: &mut Renderer,
    batch: &BatchWork,
    task: &TaskWork,
    folder: &Path,
    context: RenderContext<'_>,
) -> Result<Rendered, StartError> {
    let (fetch, env) = subject(renderer, batch, task, folder, context)?;
    let timeout_ms = TIMEOUT_MS;
    Ok(Rendered {
        prompt: None,
        env,
        adapter: Adapter::Fetch(FetchAdapter { fetch, timeout_ms }),
    })
}

/// What the host of a comment is told; `folder` as for a fetch.
///
/// # Errors
/// As for [`fetch`].
pub(super) fn comment(
    renderer: &mut Renderer,
    batch: &BatchWork,
    task: &TaskWork,
    folder: &Path,
    context: RenderContext<'_>,
    (text, mark): (String, String),
) -> Result<Rendered, StartError> {
    let (about, env) = subject(renderer, batch, task, folder, context)?;
    let adapter = CommentAdapter {
        comment: CommentWork { about, text, mark },
        timeout_ms: COMMENT_TIMEOUT_MS,
    };
    Ok(Rendered {
        prompt: None,
        env,
        adapter: Adapter::Comment(adapter),
    })
}

/// What a task is about, and the environment in which the forge is asked.
fn subject(
    renderer: &mut Renderer,
    batch: &BatchWork,
    task: &TaskWork,
    folder: &Path,
    context: RenderContext<'_>,
) -> Result<(Fetch, BTreeMap<String, String>), StartError> {
    let about = renderer.reference(batch, task, context)?;
    let (kind, reference) = about.ok_or(StartError::Missing("issue or pull request"))?;
    let mut env = renderer.environment(batch, task, context)?;
    for name in FORGE_ENV {
        if let Some(value) = context.own_env.get(*name) {
            // What the batch file says of it wins.
            env.entry((*name).to_owned())
                .or_insert_with(|| value.clone());
        }
    }
    let fetch = Fetch {
        kind,
        reference,
        repo: Some(path_text(folder)),
    };
    Ok((fetch, env))
}

/// What the last fetch of the task left; `None` for a task that is about nothing.
///
/// # Errors
/// [`StartError::Item`] when it is not there, or not readable.
pub(super) fn read(
    dir: &StateDir,
    id: &TaskId,
    task: &TaskWork,
) -> Result<Option<ForgeItem>, StartError> {
    if task.about.is_none() {
        return Ok(None);
    }
    let path = dir.task(id).join(ITEM_FILE_NAME);
    match read_item(&path) {
        Ok(item) => Ok(Some(item)),
        Err(source) => Err(StartError::Item { path, source }),
    }
}

fn read_item(path: &Path) -> io::Result<ForgeItem> {
    // Nothing that an agent may have put there is waited for or followed.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(ITEM_FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ITEM_FILE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let item: ForgeItem = serde_json::from_slice(&bytes)?;
    if item.version != ITEM_VERSION {
        let text = format!("it has version {}, not {ITEM_VERSION}", item.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(item)
}
