//! The `supervisor` program: parse, run, exit code; everything else is the library's.

fn main() -> std::process::ExitCode {
    supervisor::cli::main(std::env::args_os())
}
