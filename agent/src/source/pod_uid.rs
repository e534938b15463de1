//! By which a pod is known to its node before it has an address: the kubelet names the pod's cgroup by it.

use std::fmt;

/// `metadata.uid` of a pod (a UUID, RFC 9562), or the MD5 digest of a static pod's manifest: 128 bits either way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(u128);

impl PodUid {
    /// 32 hexadecimal digits: all together, or as a UUID with `-` between its parts, or with `_`, which stands for it in the
    /// names of systemd's slices.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const SEPARATORS: [usize; 4] = [8, 13, 18, 23];
        let bytes = text.as_bytes();
        let is_uuid = match bytes.len() {
            32 => false,
            36 => true,
            _ => return None,
        };
        let mut value = 0_u128;
        for (at, &byte) in bytes.iter().enumerate() {
            if is_uuid && SEPARATORS.contains(&at) {
                if !matches!(byte, b'-' | b'_') {
                    return None;
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16)?;
            value = value << 4 | u128::from(digit);
        }
        Some(Self(value))
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_in_each_of_its_spellings() {
        let uid = PodUid::parse("0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d").unwrap();
        assert_eq!(uid.to_string(), "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d");
        for text in [
            "0b6fcf3e_7a0c_4a4e_9d7d_1f0a6e2b3c4d",
            "0B6FCF3E-7A0C-4A4E-9D7D-1F0A6E2B3C4D",
            "0b6fcf3e7a0c4a4e9d7d1f0a6e2b3c4d",
        ] {
            assert_eq!(PodUid::parse(text), Some(uid), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "0b6fcf3e",
            "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4",
            "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4g",
            "0b6fcf3e.7a0c.4a4e.9d7d.1f0a6e2b3c4d",
            "0b6fcf3e-7a0c-4a4e-9d7d01f0a6e2b3c4d",
            "+b6fcf3e7a0c4a4e9d7d1f0a6e2b3c4d",
            "éb6fcf3e7a0c4a4e9d7d1f0a6e2b3c4",
        ] {
            assert_eq!(PodUid::parse(text), None, "{text}");
        }
    }
}
