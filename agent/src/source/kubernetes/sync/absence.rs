//! Kinds that not every server has: whether it has them, and what follows where it does not. There is nothing wrong then; it is
//! asked again after a while.

use serde::Deserialize;

use super::{Ended, Stop, Sync};
use crate::source::kubernetes::fault::Fault;
use crate::source::kubernetes::session::Session;
use crate::source::kubernetes::watches::Progress;

impl Sync {
    /// Whether the server has the kind at all. Anybody may ask that who may ask anything; where it is forbidden, the list tells.
    pub(super) async fn is_served(&self, session: &Session) -> Result<bool, Stop> {
        #[derive(Deserialize)]
        struct Served {
            resources: Vec<Resource>,
        }
        #[derive(Deserialize)]
        struct Resource {
            name: String,
        }
        let Some((path, name)) = self.kind.discovery() else { return Ok(true) };
        let body = match session.list(self.kind, path).await {
            Ok(body) => body,
            Err(Fault::Server(404, ..)) => return Ok(false),
            Err(Fault::Forbidden(..)) => return Ok(true),
            Err(fault) => return Err(fault.into()),
        };
        let served: Served =
            serde_json::from_slice(&body).map_err(|error| Fault::Protocol(error.to_string()))?;
        Ok(served.resources.iter().any(|resource| resource.name == name))
    }

    /// The server does not have the kind, so there are none. Of what it had a moment ago that is believed at the second time: a
    /// server that has just begun may not know all of its kinds yet.
    pub(super) async fn note_absence(&mut self) -> Result<Ended, Stop> {
        self.version = None;
        let had_it = self.progress == Some(Progress::Listed);
        if !std::mem::replace(&mut self.absent, true) && had_it {
            return Ok(Ended::Vanished);
        }
        let known = self.tools.known.clone();
        let (mut known, mut events) = (known.lock().await, Vec::new());
        known.begin_list(&self.scope);
        known.end_list(&self.scope, &mut events);
        self.send(events).await?;
        drop(known);
        self.tools.link.standing.good(&self.scope);
        self.backoff.reset();
        if self.progress != Some(Progress::Listed) {
            self.report(Progress::Listed);
        }
        Ok(Ended::Absent)
    }
}
