//! Builds the eBPF object that the agent embeds, `$OUT_DIR/weir-programs.o`, unless the agent is built without the
//! feature `kernel` (its pure modules need no BPF toolchain).

use std::env;
use std::error::Error;
use std::path::Path;

use weir_toolchain::{ObjectRequest, find_toolchain, inputs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    if let Err(error) = build() {
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let agent = env::var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&agent).parent().ok_or("the agent's folder is not in a workspace")?;
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let object = Path::new(&env::var("OUT_DIR")?).join("weir-programs.o");

    let toolchain = find_toolchain(workspace)?;
    for input in inputs(workspace, &toolchain) {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    // One folder for debug and release builds of the agent: the object is the same.
    let target_dir = workspace.join("target/bpf").join(&arch);
    let log = env::var_os("CARGO_FEATURE_LOG").is_some();
    let request = ObjectRequest { workspace, target_dir: &target_dir, arch: &arch, log, object: &object };
    for line in toolchain.build_object(&request)?.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}
