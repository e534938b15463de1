//! A real kube-apiserver and etcd, from `KUBEBUILDER_ASSETS`: what the test server's protocol tests assert holds for
//! them, and the Kubernetes source ends at the truth after what a real server can do to it. Without that folder each
//! is listed as ignored.
#![expect(clippy::unwrap_used, reason = "a test whose world cannot be set up has failed")]

#[expect(dead_code, reason = "shared with the tests of the test server, which use all of it")]
#[path = "../apiserver/client.rs"]
mod client;
#[path = "../apiserver/protocol.rs"]
mod protocol;
mod source;
#[expect(dead_code, reason = "shared with the tests against the test server, which use all of it")]
#[path = "../kubernetes/world.rs"]
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use weir_tests::apiserver::{ADMIN_TOKEN, Assets, RealServer};

use client::Client;
use protocol::{Fixture, for_each_test};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let assets = match Assets::find() {
        Ok(assets) => assets,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    if assets.is_none() {
        println!("not run: KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd");
    }
    // Each has a server of its own, which takes most of a core to start.
    arguments.test_threads.get_or_insert(1);
    let mut trials = source::trials(assets.as_ref());
    trials.push(trial(
        "protocol",
        assets.as_ref(),
        |assets| async move { every_protocol_test(&assets).await },
    ));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test with a server of its own; ignored where there is none to be had.
fn trial<F: Future<Output = ()>>(
    name: &str,
    assets: Option<&Assets>,
    test: impl FnOnce(Assets) -> F + Send + 'static,
) -> Trial {
    let own = assets.cloned();
    let run = move || {
        let Some(assets) = own else { return Err("KUBEBUILDER_ASSETS is not set".into()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test(assets));
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(assets.is_none())
}

/// All on one server: each keeps to its namespace.
async fn every_protocol_test(assets: &Assets) {
    let server = RealServer::start(assets).await.unwrap();
    macro_rules! run {
        ($($name:ident),* $(,)?) => {$(
            println!("protocol: {}", stringify!($name));
            protocol::$name(&Fixture::new(admin(&server), stringify!($name)).await).await;
        )*};
    }
    for_each_test!(run);
}

/// Whoever may do everything.
fn admin(server: &RealServer) -> Client {
    Client { address: server.address(), ca_pem: server.ca_pem(), token: Some(ADMIN_TOKEN.into()) }
}
