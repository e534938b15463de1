//! A machine in software: boots, runs its tests, is switched off. One that hangs is ended.

use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Arch;
use crate::suite::{Count, Outcome, Reader};

/// What is said by init (`init.sh`), and not by a test.
const MARK: &str = "weir-vm: ";

/// How a test ended.
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) count: Count,
    pub(super) took: Duration,
}

/// A program that does not outlive us.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// What a machine's clock says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// The time, more or less.
    Time,
    /// How many instructions were carried out, one for each nanosecond: the same in each run of the same kernel and programs.
    Instructions,
}

/// The command that boots a kernel with these files.
pub(super) fn command(arch: Arch, clock: Clock, kernel: &Path, initramfs: &Path) -> Command {
    let (program, machine, cpu, console) = match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "q35", "max", "ttyS0"),
        Arch::Arm64 => ("qemu-system-aarch64", "virt", "cortex-a57", "ttyAMA0"),
    };
    let mut command = Command::new(program);
    // In software, and the same everywhere: where machines are virtual themselves, the processor's help is not reliable.
    match clock {
        Clock::Time => {
            command.args(["-machine", machine, "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", "2"]);
        }
        Clock::Instructions => {
            // Nothing of chance: neither the processor's nor the kernel's.
            let cpu = if arch == Arch::X86_64 { "max,-rdrand,-rdseed" } else { cpu };
            command.args(["-machine", machine, "-accel", "tcg,thread=single", "-cpu", cpu, "-smp", "1"]);
            command.args(["-icount", "shift=0,sleep=off", "-seed", "1"]);
            command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
        }
    }
    command.args(["-m", "1024"]);
    command.args(["-nodefaults", "-no-reboot", "-nic", "none", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", "stdio"]).arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // What goes wrong in the kernel ends the machine, and with it the test that was running.
    let exact = if clock == Clock::Instructions { " nokaslr norandmaps weir.exact" } else { "" };
    command.arg("-append").arg(format!("console={console} quiet oops=panic panic=-1{exact}"));
    command
}

/// Runs the machine. What it says goes to `copy`; every test of `expected` is in the result, in this order.
///
/// # Errors
/// It cannot be started.
pub(super) fn run(
    command: &mut Command,
    expected: &[String],
    patience: Duration,
    copy: &mut impl Write,
) -> Result<Vec<Ended>> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = Owned(child.with_context(|| format!("cannot run {:?}", command.get_program()))?);
    let output = machine.0.stdout.take().context("a machine without a console")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let deadline = Instant::now() + patience;
    let mut console = Console::default();
    let reason = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                // Nobody may read us any more.
                let _ = copy.write_all(line.as_bytes()).and_then(|()| copy.flush());
                console.read(line.trim_end_matches(['\n', '\r']));
            }
            Err(RecvTimeoutError::Timeout) => {
                break format!("the machine was ended: it was not done after {} s", patience.as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => break "the machine stopped".to_owned(),
        }
    };
    Ok(console.conclude(expected, &reason))
}

/// A test under way.
struct Running {
    name: String,
    since: Instant,
    said: Vec<String>,
}

impl Running {
    /// What it said, counted.
    fn count(&self) -> (Count, Result<()>) {
        let mut count = Count::default();
        let mut reader = Reader::new(&mut count);
        let read = self.said.iter().try_for_each(|line| reader.read(line));
        (count, read)
    }
}

/// What a machine said so far.
#[derive(Default)]
struct Console {
    ended: Vec<Ended>,
    running: Option<Running>,
    lacks: Vec<String>,
}

impl Console {
    fn read(&mut self, line: &str) {
        // A test that ends in the middle of a line leaves that before it.
        let Some((before, said)) = line.split_once(MARK) else {
            self.keep(line);
            return;
        };
        self.keep(before);
        let words: Vec<&str> = said.split_whitespace().collect();
        match words[..] {
            ["begin", name] => {
                self.running = Some(Running { name: name.into(), since: Instant::now(), said: Vec::new() });
            }
            ["end", name, code] => self.end(name, code),
            ["no-module", name] => self.lacks.push(name.into()),
            _ => {}
        }
    }

    fn keep(&mut self, line: &str) {
        if let Some(running) = &mut self.running {
            running.said.push(line.to_owned());
        }
    }

    fn end(&mut self, name: &str, code: &str) {
        let Some(running) = self.running.take() else { return };
        let (count, read) = running.count();
        let outcome = match (read, code) {
            _ if running.name != name => Outcome::Failed(format!("it said that {name} ended")),
            (Err(wrong), _) => Outcome::Failed(format!("{wrong:#}")),
            (Ok(()), "0") if count.passed == 0 => Outcome::Failed("not a single test ran".into()),
            (Ok(()), "0") => Outcome::Passed,
            (Ok(()), _) if count.failed > 0 => Outcome::Failed(String::new()),
            (Ok(()), code) => Outcome::Failed(format!("exit code {code}")),
        };
        self.ended.push(Ended { name: running.name, outcome, count, took: running.since.elapsed() });
    }

    /// What did not end has failed.
    fn conclude(mut self, expected: &[String], reason: &str) -> Vec<Ended> {
        let mut all = Vec::new();
        for name in expected {
            if let Some(at) = self.ended.iter().position(|ended| ended.name == *name) {
                all.push(self.ended.remove(at));
                continue;
            }
            let (when, count, took) = match self.running.take_if(|running| running.name == *name) {
                Some(running) => ("while it ran", running.count().0, running.since.elapsed()),
                None => ("before it ran", Count::default(), Duration::ZERO),
            };
            let outcome = Outcome::Failed(format!("{reason} {when}"));
            all.push(Ended { name: name.clone(), outcome, count, took });
        }
        for ended in &mut all {
            ended.count.notes.extend(self.lacks.iter().map(|module| format!("module {module}: not loaded")));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";

    fn boot(script: &str, patience: Duration) -> Vec<Ended> {
        let expected = ["a".to_owned(), "b".to_owned()];
        run(Command::new("sh").args(["-c", script]), &expected, patience, &mut std::io::sink()).unwrap()
    }

    fn outcomes(ended: &[Ended]) -> Vec<&Outcome> {
        ended.iter().map(|ended| &ended.outcome).collect()
    }

    #[test]
    fn every_test_is_counted_by_itself() {
        let script = format!(
            "printf 'weir-vm: begin a\\r\\n{PASSED}\\r\\nweir-vm: end a 0\\r\\n';
             printf 'weir-vm: begin b\\n{PASSED}\\nno end of line weir-vm: end b 101\\n'"
        );
        let ended = boot(&script, Duration::from_secs(60));
        assert_eq!(outcomes(&ended), [&Outcome::Passed, &Outcome::Failed("exit code 101".into())]);
        assert_eq!((ended[0].count.passed, ended[1].count.passed), (2, 2));
    }

    #[test]
    fn what_did_not_end_has_failed() {
        let script = format!("echo 'weir-vm: begin a'; echo '{PASSED}'");
        let ended = boot(&script, Duration::from_secs(60));
        let [a, b] = outcomes(&ended)[..] else { panic!("not both") };
        assert_eq!(*a, Outcome::Failed("the machine stopped while it ran".into()));
        assert_eq!(*b, Outcome::Failed("the machine stopped before it ran".into()));
        assert_eq!(ended[0].count.passed, 2);
    }

    #[test]
    fn a_machine_that_hangs_is_ended() {
        let ended = boot("echo 'weir-vm: begin a'; exec sleep 600", Duration::from_millis(300));
        let Outcome::Failed(reason) = &ended[0].outcome else { panic!("{:?}", ended[0].outcome) };
        assert!(reason.contains("was ended"), "{reason}");
    }

    #[test]
    fn a_test_without_tests_and_a_module_that_is_missing_are_told() {
        let script = "echo 'weir-vm: no-module 03-veth'; echo 'weir-vm: begin a'; echo 'weir-vm: end a 0'";
        let ended = boot(script, Duration::from_secs(60));
        assert_eq!(ended[0].outcome, Outcome::Failed("not a single test ran".into()));
        assert_eq!(ended[0].count.notes, ["module 03-veth: not loaded"]);
    }
}
