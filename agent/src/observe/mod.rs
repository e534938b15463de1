//! What a person or a monitoring system can see of a running agent.

mod drops;
mod health;
mod hold;
mod metrics;
mod report;
mod serve;
mod socket;

pub use drops::{
    Clocks, DropEnd, DropRecord, DropRule, Explainer, Followed, Known, Say, SharedDrops, Talker, read_drops,
    serve_drops,
};
pub use health::{Health, HealthCheck, serve_health, serve_health_checks};
pub use hold::{Hold, HoldReport, Off, holds};
pub use metrics::{InKernel, Metrics};
pub use report::{
    FlowReport, HeldDevice, NetworkReport, PlaceReport, PolicyReport, Report, ReportedDevice,
    ReportedProblem, SharedReport,
};
pub use serve::{ask, serve_metrics, serve_report, socket_path};
