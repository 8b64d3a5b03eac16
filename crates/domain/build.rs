//! Compiles the runtime's `.proto` files into one descriptor set, from which payloads are decoded.

use std::path::PathBuf;
use std::{env, error::Error, fs};

const FILES: [&str; 7] = [
    "macp/v1/core.proto",
    "macp/modes/decision/v1/decision.proto",
    "macp/modes/proposal/v1/proposal.proto",
    "macp/modes/task/v1/task.proto",
    "macp/modes/handoff/v1/handoff.proto",
    "macp/modes/quorum/v1/quorum.proto",
    "macp/modes/multi_round/v1/multi_round.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let protos = PathBuf::from(env::var("DEP_MACP_PROTO_PROTO_DIR")?);
    let mut compiler = protox::Compiler::new([&protos])?;
    compiler.include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("macp_descriptor.bin");
    fs::write(out, compiler.encode_file_descriptor_set())?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
