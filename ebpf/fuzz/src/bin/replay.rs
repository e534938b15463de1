//! `replay TARGET FOLDER...`: tries every file of the folders once. `cargo xtask fuzz` builds it with the compiler's
//! coverage counters and asks what the corpus reaches.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

use weir_fuzz::Target;

fn main() -> ExitCode {
    match replay() {
        Ok(count) => {
            println!("{count} inputs");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replay() -> io::Result<usize> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let target: Target = name.parse().map_err(io::Error::other)?;
    let mut count = 0;
    for folder in arguments.map(PathBuf::from) {
        for entry in fs::read_dir(folder)? {
            target.run(&fs::read(entry?.path())?);
            count += 1;
        }
    }
    Ok(count)
}
