//! What a person or a monitoring system can see of a running agent.

mod metrics;
mod report;
mod serve;

pub use metrics::Metrics;
pub use report::{FlowReport, NetworkReport, Report, ReportedDevice, ReportedProblem, SharedReport};
pub use serve::{ask, serve_metrics, serve_report, socket_path};
