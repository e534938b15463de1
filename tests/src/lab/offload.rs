//! Devices without the help that virtual ones give each other. With it no checksum is ever computed and no segment cut
//! inside of one machine, and a translation that spoils either goes unnoticed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::netns::Netns;

/// What is switched off: checksums of what is received and sent, segments that the device cuts, those put together.
const FEATURES: [&str; 6] = ["rx", "tx", "sg", "tso", "gso", "gro"];

/// Every device of the namespace but loopback from now on receives and sends packets as they would be on a wire.
pub(super) fn ensure_off(netns: &Netns) -> Result<()> {
    netns.enter(|| {
        let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
        for device in parse_devices(&devices).filter(|device| *device != "lo") {
            let mut command = Command::new("ethtool");
            command.args(["-K", device]).args(FEATURES.iter().flat_map(|feature| [feature, "off"]));
            run(&mut command)?;
        }
        Ok(())
    })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run ethtool (package ethtool)")?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The names in `/proc/net/dev`: two lines of headings, then `  name: numbers`.
fn parse_devices(text: &str) -> impl Iterator<Item = &str> {
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_name() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2\nflannel-v6.1: 0 0\n";
        assert_eq!(parse_devices(text).collect::<Vec<_>>(), ["lo", "flannel-v6.1"]);
    }
}
