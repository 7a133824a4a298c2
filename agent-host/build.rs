//! Links GCC's unwinder into the program instead of loading it as a library of its own.
//!
//! std asks for `libgcc_s.so`, of which a Rust program needs a dozen functions. Loading it costs a
//! tenth of the life of a host that runs a trivial task, and there is one host per run. Where the
//! static form is not found everything works as before.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_native = std::env::var("HOST") == std::env::var("TARGET");
    if is_native && target("OS") == "linux" && target("ENV") == "gnu" && has_static_unwinder() {
        println!("cargo::rustc-link-lib=dylib=gcc_eh");
    }
}

/// Whether the C compiler, which links for rustc, has the library: it then prints its full path.
fn has_static_unwinder() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "a build script has no process layer"
    )]
    let asked = Command::new("cc")
        .arg("-print-file-name=libgcc_eh.a")
        .output();
    let path = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    path.is_ok_and(|path| Path::new(&path).is_absolute())
}
