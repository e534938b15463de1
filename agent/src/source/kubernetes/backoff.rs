//! How long to wait after something failed.

use std::time::Duration;

/// The wait after a first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait for a server that is away or overloaded. Short, because a node that hears of no changes sends
/// traffic to pods that are gone: it costs the server at most one small request a second from each node
/// ([`super::link`] sees to it that it is one).
pub(super) const SOON: Duration = Duration::from_secs(1);

/// The longest wait for what a person has to mend: credentials, rights, certificates.
pub(super) const LATER: Duration = Duration::from_secs(10);

/// The longest that a server's `Retry-After` is followed.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Another failure: how long to wait, at most `cap` or as long as the server asked for. Jitter takes up to half
    /// of it away, or a whole cluster would come back at the same moment.
    pub(super) fn fail(&mut self, cap: Duration, asked: Option<Duration>) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(cap);
        self.failures += 1;
        let wait = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        asked.map_or(wait, |asked| wait.max(asked.min(LONGEST)))
    }

    /// It works.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_begin_anew() {
        let mut backoff = Backoff::default();
        let mut longest = FIRST;
        for _ in 0..20 {
            let wait = backoff.fail(SOON, None);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?}, {longest:?}");
            longest = (longest * 2).min(SOON);
        }
        let asked = Duration::from_secs(7);
        assert_eq!(backoff.fail(SOON, Some(asked)), asked);
        assert_eq!(backoff.fail(SOON, Some(asked * 100)), LONGEST);
        backoff.reset();
        assert!(backoff.fail(SOON, None) <= FIRST);
    }
}
