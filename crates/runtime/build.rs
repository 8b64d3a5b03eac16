//! Generates the protocol's messages and the client from the runtime's own `.proto` files.
//!
//! **Invariant:** no `protoc` is needed; protox compiles in Rust.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const CORE: &str = "macp/v1/core.proto";
const MODES: [&str; 6] = ["decision", "handoff", "multi_round", "proposal", "quorum", "task"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let protos = PathBuf::from(env::var("DEP_MACP_PROTO_PROTO_DIR")?);
    let server = env::var_os("CARGO_FEATURE_SERVER").is_some();

    let mut files = vec![CORE.to_owned()];
    if server {
        files.extend(MODES.iter().map(|mode| format!("macp/modes/{mode}/v1/{mode}.proto")));
    }
    let mut descriptors = protox::compile(files, [&protos])?;
    // Comments would become doc tests and links of ours; the `.proto` files have them.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }

    tonic_prost_build::configure()
        .build_server(server)
        .generate_default_stubs(true)
        .codec_path("crate::codec::SmallCodec")
        .compile_fds(descriptors)?;
    // A stale file of another feature set would be included silently.
    if !server {
        for mode in MODES {
            let out = PathBuf::from(env::var("OUT_DIR")?).join(format!("macp.modes.{mode}.v1.rs"));
            if out.exists() {
                fs::remove_file(out)?;
            }
        }
    }
    Ok(())
}
