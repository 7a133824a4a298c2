//! Links GCC's unwinder into the program instead of loading it as a library of its own, and the
//! program itself at a fixed address.
//!
//! std asks for `libgcc_s.so`, of which a Rust program needs a dozen functions. Loading it costs a
//! tenth of the life of a host that runs a trivial task, and there is one host per run. Where the
//! static form is not found everything works as before.
//!
//! A program that may lie anywhere has its tables of addresses filled in at each start, which makes
//! pages of them private to each process. Those of the MCP server alone would double what an idle
//! host costs, though a host never runs it; at a fixed address none of them is touched.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_gnu = target("OS") == "linux" && target("ENV") == "gnu";
    if is_gnu {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    let is_native = std::env::var("HOST") == std::env::var("TARGET");
    if is_native && is_gnu && has_static_unwinder() {
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
