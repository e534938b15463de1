//! What can be wrong between the agent and an API server, in one line that says what to do about it.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use kube::core::Status;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

use super::backoff::{LATER, SOON};
use super::kind::Kind;

/// A clock that differs by more than this is worth a word.
const SKEW: Duration = Duration::from_secs(30);

/// Why a request, or the answer to it, failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The kubeconfig, the token or a certificate file cannot be used.
    Config(String),
    /// No connection, or it broke, or nothing came in time.
    Unreachable(String),
    /// The server's certificate cannot be believed.
    Certificate(Doubt, String),
    /// 401
    Unauthorized(String),
    /// 403: which kind, which verb, and what the server says.
    Forbidden(Kind, &'static str, String),
    /// 429, and how long the server asks to wait.
    Throttled(Option<Duration>),
    /// 5xx, and other codes that mean nothing here.
    Server(u16, String, Option<Duration>),
    /// 400 or 422: the server does not know a parameter.
    Rejected(String),
    /// 410, or a version from the future: what is known is too old to go on from.
    Expired,
    /// What the server sent is no answer of the Kubernetes API.
    Protocol(String),
    /// Another cluster's server, or one that lost its data.
    Cluster(String),
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Doubt {
    /// It is not of our cluster's CA.
    Issuer,
    /// It is not valid yet, or no longer, or this node's clock is wrong.
    Time,
    /// It is for other addresses.
    Name,
    /// Anything else.
    Other,
}

/// Faults of the same topic are said once in an outage, however often they come back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Topic {
    Config,
    Unreachable,
    Certificate(Doubt),
    Unauthorized,
    Forbidden(Kind),
    Throttled,
    Server,
    Rejected,
    Expired,
    Protocol,
    Cluster,
}

impl Fault {
    /// The error of a request that got no answer.
    pub(super) fn of_client(error: &kube::Error) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut last = error.to_string();
        while let Some(error) = source {
            if let Some(tls) = find_tls(error) {
                return Self::of_tls(tls);
            }
            if error.is::<kube::client::AuthError>() {
                return Self::Config(error.to_string());
            }
            last = error.to_string();
            source = error.source();
        }
        Self::Unreachable(last)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(reason) => Self::of_certificate(reason),
            // It is ours that the server does not like.
            rustls::Error::AlertReceived(alert) if is_of_our_certificate(*alert) => {
                Self::Unauthorized(format!("TLS alert {alert:?}"))
            }
            _ => Self::Unreachable(format!("TLS: {error}")),
        }
    }

    fn of_certificate(reason: &CertificateError) -> Self {
        use CertificateError as Reason;
        let clock = || format!("this node's clock says {}", http_date(SystemTime::now()));
        let (doubt, why) = match reason {
            Reason::UnknownIssuer | Reason::BadSignature => (
                Doubt::Issuer,
                "its certificate is not signed by the cluster's CA: check that this is an address of this \
                 cluster, and the CA in the kubeconfig or the service account"
                    .into(),
            ),
            Reason::ExpiredContext { not_after: at, .. } => (
                Doubt::Time,
                format!(
                    "its certificate ended on {}: renew it, or set the clock; {}",
                    http_time(*at),
                    clock()
                ),
            ),
            Reason::NotValidYetContext { not_before: at, .. } => (
                Doubt::Time,
                format!("its certificate begins on {}: set the clock; {}", http_time(*at), clock()),
            ),
            Reason::Expired | Reason::NotValidYet => {
                (Doubt::Time, format!("{reason}: renew it, or set the clock; {}", clock()))
            }
            Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
                (Doubt::Name, format!("{reason}: give one of the addresses that it is for with --api-server"))
            }
            _ => (Doubt::Other, format!("its certificate: {reason}")),
        };
        Self::Certificate(doubt, why)
    }

    /// An answer that is no success. `verb`: `list` or `watch`.
    pub(super) fn of_answer(
        kind: Kind,
        verb: &'static str,
        code: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let status: Option<Status> = serde_json::from_slice(body).ok();
        let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut fault = match status {
            Some(status) => Self::of_status(kind, verb, code.as_u16(), &status),
            None => Self::of_code(kind, verb, code.as_u16(), String::new(), None),
        };
        match &mut fault {
            Self::Throttled(wait) | Self::Server(_, _, wait) => {
                *wait = asked.map(Duration::from_secs).or(*wait);
            }
            Self::Unauthorized(message) => {
                if let Some(skew) = clock_skew(headers) {
                    message.push_str(&skew);
                }
            }
            _ => {}
        }
        fault
    }

    /// A `Status` object, as the answer (`code` is then the answer's) or within a watch.
    pub(super) fn of_status(kind: Kind, verb: &'static str, code: u16, status: &Status) -> Self {
        let details = status.details.as_ref();
        let too_large = details.is_some_and(|details| {
            details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
        });
        if too_large || status.reason == "Expired" {
            return Self::Expired;
        }
        let asked = details.map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
        let asked = asked.map(|seconds| Duration::from_secs(seconds.into()));
        Self::of_code(kind, verb, code, status.message.clone(), asked)
    }

    fn of_code(kind: Kind, verb: &'static str, code: u16, message: String, asked: Option<Duration>) -> Self {
        match code {
            400 | 422 => Self::Rejected(message),
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(kind, verb, message),
            410 => Self::Expired,
            429 => Self::Throttled(asked),
            code => Self::Server(code, message, asked),
        }
    }

    /// Whether another connection, perhaps to another server, may help.
    pub(super) fn is_servers(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Unreachable(_)
                | Self::Certificate(..)
                | Self::Unauthorized(_)
                | Self::Server(..)
                | Self::Protocol(_)
                | Self::Cluster(_)
        )
    }

    /// Whether the server is in order, and will not tell this: a right is missing, or it does not have the kind.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Forbidden(..) | Self::Rejected(_) | Self::Server(400..=499, ..))
    }

    /// The longest wait before the next attempt, and what the server asked for.
    pub(super) fn patience(&self) -> (Duration, Option<Duration>) {
        match self {
            Self::Server(400..=499, _, asked) => (LATER, *asked),
            Self::Throttled(asked) | Self::Server(_, _, asked) => (SOON, *asked),
            Self::Unreachable(_) | Self::Expired | Self::Protocol(_) | Self::Cluster(_) => (SOON, None),
            Self::Config(_)
            | Self::Certificate(..)
            | Self::Unauthorized(_)
            | Self::Forbidden(..)
            | Self::Rejected(_) => (LATER, None),
        }
    }

    /// What it is about.
    pub(super) fn topic(&self) -> Topic {
        match self {
            Self::Config(_) => Topic::Config,
            Self::Unreachable(_) => Topic::Unreachable,
            Self::Certificate(doubt, _) => Topic::Certificate(*doubt),
            Self::Unauthorized(_) => Topic::Unauthorized,
            Self::Forbidden(kind, ..) => Topic::Forbidden(*kind),
            Self::Throttled(_) => Topic::Throttled,
            Self::Server(..) => Topic::Server,
            Self::Rejected(_) => Topic::Rejected,
            Self::Expired => Topic::Expired,
            Self::Protocol(_) => Topic::Protocol,
            Self::Cluster(_) => Topic::Cluster,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => write!(f, "its credentials cannot be used: {why}"),
            Self::Unreachable(why) => write!(
                f,
                "not reachable ({why}): check that it runs and that this node has a way to it, or give another \
                 address with --api-server"
            ),
            Self::Certificate(_, why) | Self::Cluster(why) => f.write_str(why),
            Self::Unauthorized(why) => {
                write!(
                    f,
                    "does not accept our credentials (401): {why}; renew the token or the client certificate"
                )
            }
            Self::Forbidden(kind, verb, why) => write!(
                f,
                "RBAC does not allow to {verb} {}: bind a ClusterRole with list and watch on it to our user ({why})",
                kind.resource()
            ),
            Self::Throttled(_) => f.write_str("overloaded (429)"),
            Self::Server(code, why, _) if why.is_empty() => write!(f, "answers {code}"),
            Self::Server(code, why, _) => write!(f, "answers {code}: {why}"),
            Self::Rejected(why) => write!(f, "does not understand the request: {why}"),
            Self::Expired => f.write_str("no longer knows the version that we watched from"),
            Self::Protocol(why) => write!(f, "sent no answer of the Kubernetes API: {why}"),
        }
    }
}

/// rustls' error, if this one is it or wraps it: [`std::io::Error`] does not show what it wraps as its source.
fn find_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let inner: &'a (dyn std::error::Error + 'static) = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    find_tls(inner)
}

/// Whether a server says with this that it cannot use our certificate.
fn is_of_our_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

/// A moment as people and HTTP write it; a certificate's may lie where no clock goes.
fn http_time(time: UnixTime) -> String {
    /// The end of the year 9999, which [`httpdate`] still writes.
    const LAST_S: u64 = 253_402_300_799;
    http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs().min(LAST_S)))
}

fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

/// How far this node's clock is from the server's, if that may be why a token is not valid.
fn clock_skew(headers: &HeaderMap) -> Option<String> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let server = httpdate::parse_http_date(date).ok()?;
    let now = SystemTime::now();
    let (skew, word) = match now.duration_since(server) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (skew > SKEW).then(|| format!(" (this node's clock is {} s {word} the server's)", skew.as_secs()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, headers: &[(header::HeaderName, String)], body: &serde_json::Value) -> Fault {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let code = StatusCode::from_u16(code).unwrap();
        Fault::of_answer(Kind::EndpointSlice, "list", code, &headers, body.to_string().as_bytes())
    }

    #[test]
    fn rights_that_are_missing_are_named() {
        let message = "endpointslices.discovery.k8s.io is forbidden: User \"weir\" cannot list";
        let fault = answer(403, &[], &json!({"kind": "Status", "reason": "Forbidden", "message": message}));
        let text = fault.to_string();
        assert!(
            text.starts_with("RBAC does not allow to list endpointslices.discovery.k8s.io: bind "),
            "{text}"
        );
        assert!(text.ends_with(&format!("({message})")), "{text}");
    }

    #[test]
    fn certificates_and_what_to_do_about_them() {
        use CertificateError as Reason;
        let text = |reason: Reason| Fault::of_tls(&rustls::Error::InvalidCertificate(reason)).to_string();
        let second = |s| UnixTime::since_unix_epoch(Duration::from_secs(s));
        let expired = text(Reason::ExpiredContext { time: second(1), not_after: second(946_684_800) });
        let words = "its certificate ended on Sat, 01 Jan 2000 00:00:00 GMT: renew it, or set the clock; ";
        assert!(expired.starts_with(words), "{expired}");
        let early = text(Reason::NotValidYetContext { time: second(1), not_before: second(u64::MAX) });
        assert!(
            early.starts_with("its certificate begins on Fri, 31 Dec 9999 23:59:59 GMT: set "),
            "{early}"
        );
        assert!(text(Reason::UnknownIssuer).contains("not signed by the cluster's CA: check "));
        assert!(text(Reason::NotValidForName).contains("--api-server"));
    }

    #[test]
    fn a_certificate_of_ours_is_renewed_not_looked_for_on_the_network() {
        let expired = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        let text = Fault::of_tls(&expired).to_string();
        assert!(text.contains("CertificateExpired; renew the token or the client certificate"), "{text}");
        let other = rustls::Error::AlertReceived(AlertDescription::InternalError);
        assert!(matches!(Fault::of_tls(&other), Fault::Unreachable(_)));
    }

    #[test]
    fn a_clock_that_is_wrong_is_named() {
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(7200));
        let text = answer(401, &[(header::DATE, date)], &json!({"message": "Unauthorized"})).to_string();
        assert!(text.contains("clock is 7") && text.contains(" s behind the server's)"), "{text}");
        let date = httpdate::fmt_http_date(SystemTime::now());
        let text = answer(401, &[(header::DATE, date)], &json!({"message": "Unauthorized"})).to_string();
        assert!(!text.contains("clock"), "{text}");
    }

    #[test]
    fn what_the_server_asks_for_is_heard() {
        let asks = |fault: Fault| fault.patience().1.map(|wait| wait.as_secs());
        assert_eq!(asks(answer(429, &[(header::RETRY_AFTER, "3".into())], &json!({}))), Some(3));
        let body = json!({"message": "busy", "details": {"retryAfterSeconds": 2}});
        assert_eq!(asks(answer(503, &[], &body)), Some(2));
        assert_eq!(asks(answer(500, &[], &json!("no status"))), None);
    }

    #[test]
    fn versions_from_the_past_and_from_the_future() {
        assert_eq!(answer(410, &[], &json!({})), Fault::Expired);
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        let body = json!({"reason": "Timeout", "code": 504, "details": {"causes": causes}});
        assert_eq!(answer(504, &[], &body), Fault::Expired);
    }
}
