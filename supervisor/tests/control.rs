//! The control socket with real clients: what a request becomes, and who may ask.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::path::PathBuf;
use std::time::Duration;

use protocol::ids::MessageId;
use supervisor::control::client::{self, ClientError};
use supervisor::control::server::{self, Asked, Server};
use supervisor::control::wire::{CONTROL_VERSION, Reply, Request, Want};
use supervisor::store::lock::lock;
use supervisor::store::{Holder, Lock, RealDisk, StateDir};
use tokio::sync::mpsc;

const BATCH: &str = "some-batch";
const SOON: Option<Duration> = Some(Duration::from_secs(20));

struct World {
    _dir: tempfile::TempDir,
    lock: Lock,
    socket: PathBuf,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::at(dir.path());
    state.create(&RealDisk).unwrap();
    let socket = dir.path().join("s.sock");
    let holder = Holder {
        pid: std::process::id(),
        start_ticks: 1,
        socket: socket.clone(),
        guardian: None,
    };
    let lock = lock(&state, &holder).unwrap();
    World {
        _dir: dir,
        lock,
        socket,
    }
}

fn serve(world: &World) -> (Server, mpsc::Receiver<Asked>) {
    let (asking, asked) = mpsc::channel(server::REQUESTS_MAX);
    let listener = server::bind(&world.socket, &world.lock).unwrap();
    (
        Server::start(listener, BATCH.parse().unwrap(), asking),
        asked,
    )
}

fn request(want: Want) -> Request {
    Request {
        v: CONTROL_VERSION,
        batch: BATCH.parse().unwrap(),
        want,
    }
}

/// Sends a request from a thread of its own and collects every reply.
fn ask(
    socket: PathBuf,
    request: Request,
) -> tokio::task::JoinHandle<Result<Vec<Reply>, ClientError>> {
    tokio::task::spawn_blocking(move || {
        let mut replies = client::send(&socket, &request)?;
        let mut all = Vec::new();
        while let Some(reply) = replies.next(SOON)? {
            all.push(reply);
        }
        Ok(all)
    })
}

fn done(line: &str) -> Reply {
    Reply::Done {
        lines: vec![line.to_owned()],
    }
}

#[tokio::test]
async fn a_request_reaches_the_loop_and_its_reply_the_client() {
    let world = world();
    let (server, mut asked) = serve(&world);
    let want = Want::Pause {
        tasks: None,
        now: true,
    };
    let client = ask(world.socket.clone(), request(want.clone()));
    let got = asked.recv().await.unwrap();
    assert_eq!(got.want, want);
    assert_eq!(got.pid, Some(std::process::id()));
    assert!(got.caller.tell(done("paused")));
    drop(got);
    assert_eq!(client.await.unwrap().unwrap(), [done("paused")]);
    server.close().await;
}

#[tokio::test]
async fn a_client_that_waits_gets_every_move_and_then_an_end() {
    let world = world();
    let (_server, mut asked) = serve(&world);
    let want = Want::Steer {
        tasks: vec!["a".parse().unwrap()],
        mode: protocol::command::SteerMode::Boundary,
        text: "look left".to_owned(),
        expires_ms: None,
        wait: Some(supervisor::control::wire::Rung::Seen),
    };
    let client = ask(world.socket.clone(), request(want));
    let got = asked.recv().await.unwrap();
    let moved = |state: &str| Reply::Moved {
        id: MessageId(1),
        state: state.to_owned(),
        at_ms: 5,
    };
    let told = [
        Reply::Messages {
            ids: vec![MessageId(1)],
            at_ms: 4,
        },
        moved("sent"),
        moved("seen"),
        done("m1 seen"),
    ];
    for reply in &told {
        assert!(got.caller.tell(reply.clone()));
    }
    assert_eq!(client.await.unwrap().unwrap(), told);
}

#[tokio::test]
async fn a_connection_that_ends_early_is_an_error_and_not_an_answer() {
    let world = world();
    let (_server, mut asked) = serve(&world);
    let client = ask(world.socket.clone(), request(Want::Watch));
    drop(asked.recv().await.unwrap());
    let outcome = client.await.unwrap();
    assert!(matches!(outcome, Err(ClientError::Closed)), "{outcome:?}");
}

#[tokio::test]
async fn the_last_replies_are_handed_over_before_the_server_closes() {
    let world = world();
    let (server, mut asked) = serve(&world);
    let client = ask(world.socket.clone(), request(Want::Watch));
    let got = asked.recv().await.unwrap();
    assert!(got.caller.tell(done("over")));
    drop(got);
    server.close().await;
    assert_eq!(client.await.unwrap().unwrap(), [done("over")]);
    let late = ask(world.socket.clone(), request(Want::Watch))
        .await
        .unwrap();
    assert!(
        matches!(late, Err(ClientError::NoSupervisor { .. })),
        "{late:?}"
    );
}

#[tokio::test]
async fn another_batch_and_another_version_are_refused() {
    let world = world();
    let (_server, _asked) = serve(&world);
    let refusal = |request| async {
        let replies = ask(world.socket.clone(), request).await.unwrap().unwrap();
        match &replies[..] {
            [Reply::Refused { code, text }] => (*code, text.clone()),
            other => panic!("{other:?}"),
        }
    };
    let mut other_batch = request(Want::Activity);
    other_batch.batch = "other-batch".parse().unwrap();
    let (code, text) = refusal(other_batch).await;
    assert_eq!(code, 6);
    assert!(
        text.contains("other-batch") && text.contains(BATCH),
        "{text}"
    );
    let mut newer = request(Want::Activity);
    newer.v += 1;
    assert_eq!(refusal(newer).await.0, 8);
}

#[tokio::test]
async fn what_an_earlier_supervisor_left_is_replaced_but_nothing_else_is() {
    let world = world();
    drop(std::os::unix::net::UnixListener::bind(&world.socket).unwrap());
    assert!(world.socket.exists());
    let (server, _asked) = serve(&world);
    server::unbind(&world.socket, &world.lock);
    assert!(!world.socket.exists());
    server.close().await;
    std::fs::write(&world.socket, "precious").unwrap();
    server::unbind(&world.socket, &world.lock);
    assert!(server::bind(&world.socket, &world.lock).is_err());
    assert_eq!(std::fs::read_to_string(&world.socket).unwrap(), "precious");
}

#[tokio::test]
async fn only_the_owner_may_use_the_socket_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = world();
    let (_server, _asked) = serve(&world);
    let mode = std::fs::metadata(&world.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
