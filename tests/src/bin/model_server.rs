//! The scripted model as a program: `model_server SCRIPT RECORD` prints its URL and serves until its
//! stdin ends. See `model::script` for the script's words.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use supervisor_tests::model::script::Script;
use supervisor_tests::model::server::Server;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [script, record] = arguments.as_slice() else {
        return complain("usage: model_server SCRIPT RECORD", 2);
    };
    match serve(Path::new(script), Path::new(record)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("model_server {script}: {error}"), 3),
    }
}

fn serve(script: &Path, record: &Path) -> io::Result<()> {
    let script = Script::parse(&std::fs::read_to_string(script)?)?;
    let server = Server::start(script, record)?;
    writeln!(io::stdout(), "{}", server.url())?;
    let mut nothing = Vec::new();
    io::stdin().read_to_end(&mut nothing).map(drop)
}

fn complain(text: &str, code: u8) -> ExitCode {
    // There is nowhere left to say that stderr is gone.
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(code)
}
