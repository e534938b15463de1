//! The fuzz targets: they are outside the workspace, so nothing else builds them.

use anyhow::Result;

use super::Finding;
use crate::fuzz::{Tools, check_targets};
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace) -> Result<Finding> {
    match Tools::lookup(workspace) {
        Ok(tools) => check_targets(workspace, &tools).map(|()| Finding::Good),
        Err(reason) => Ok(Finding::NotRun(format!("{reason:#}"))),
    }
}
