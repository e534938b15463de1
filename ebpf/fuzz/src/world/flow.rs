//! Flows that a world begins with.

use arbitrary::Arbitrary;
use weir_ebpf::abi::{End as FlowEnd, Flow, Form, Path, Peer, Signs, Tuple};
use weir_ebpf::datapath::PacketTables as _;
use weir_ebpf::testing::MemoryTables;

use crate::pool::{End, Place, Transport};

/// A flow that was there before.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct FlowSeed {
    v6: bool,
    client: End,
    dialled: End,
    source: End,
    backend: End,
    protocol: Transport,
    redirect: bool,
    local: u8,
    hidden: bool,
    signs: [u8; 2],
}

impl FlowSeed {
    /// As the datapath itself enters flows: all rows or none, the client's last.
    pub(super) fn enter(&self, tables: &MemoryTables) {
        let (v6, protocol) = (self.v6, self.protocol.protocol());
        let (client, dialled, backend) = (self.client.peer(v6), self.dialled.peer(v6), self.backend.peer(v6));
        let mut flow = Flow::new(client, dialled, backend, super::service_id(0, v6), 0);
        let source = self.source.peer(v6);
        let addr = if self.hidden { Place::Node.addr(v6) } else { client.addr };
        flow.set_source(Peer { addr, port: source.port });
        if self.redirect {
            flow.set_path(Path::Redirect);
        }
        for (bit, end) in [(1, FlowEnd::Client), (2, FlowEnd::Backend)] {
            if self.local & bit != 0 {
                flow.set_local(end);
            }
        }
        let mut forms = vec![(Form::Received, self.signs[1]), (Form::Dialled, self.signs[0])];
        if flow.hides_client() && flow.path() == Path::Stack {
            forms.insert(1, (Form::Forwarded, 0));
        }
        let mut entered: Vec<Tuple> = Vec::new();
        for (form, signs) in forms {
            let key = flow.set_form(form, protocol);
            flow.signs = Signs(signs & 15);
            if tables.create_flow(&key, &flow).is_err() {
                entered.iter().for_each(|key| {
                    tables.delete_flow(key);
                });
                return;
            }
            entered.push(key);
        }
    }
}
