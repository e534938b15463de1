//! Running programs, and colours where there is a terminal.

use std::env;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use owo_colors::{OwoColorize as _, Style as Colour};

use crate::workspace::Workspace;

/// Colours, or none: not into files, and not against `NO_COLOR` (no-color.org).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// For text that goes there.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        Self { colours: stream.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    /// What is as it should be.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint(text, Colour::new().green())
    }

    /// What is not.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint(text, Colour::new().red().bold())
    }

    /// What nobody knows yet.
    pub(crate) fn open(self, text: &str) -> String {
        self.paint(text, Colour::new().yellow())
    }

    /// A heading.
    pub(crate) fn heading(self, text: &str) -> String {
        self.paint(text, Colour::new().bold())
    }

    fn paint(self, text: &str, colour: Colour) -> String {
        if self.colours { text.style(colour).to_string() } else { text.into() }
    }
}

/// The cargo that runs this xtask, in the workspace's root.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root);
    // What `cargo run` says about this package would make other builds differ from those of a plain cargo.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it in the open.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs it silently; what it said comes with the error.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        bail!("{} failed ({}):\n{}", describe(command), output.status, said.trim_end());
    }
    Ok(())
}

/// What it says on standard output; what it says otherwise comes with the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", describe(command), output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether it runs and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Becomes that program, so that signals and the exit code are its own. Returns only if it cannot be started.
pub(crate) fn replace_process(mut command: Command) -> Error {
    let error = command.exec();
    anyhow!(error).context(format!("cannot run {}", describe(&command)))
}

/// As a person would have typed it.
pub(crate) fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str()).to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Says what is about to be done, on the stream that is not the result.
pub(crate) fn announce(what: &str) {
    eprintln!("{} {what}", Style::of(&io::stderr()).heading("==>"));
}
