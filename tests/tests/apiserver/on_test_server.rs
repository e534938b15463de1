//! What holds for every API server, for the test server.

use weir_tests::apiserver::ApiServer;

use super::client::Client;
use super::protocol::{self, Fixture, for_each_test};

macro_rules! run {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            let server = ApiServer::start().await.unwrap();
            protocol::$name(&Fixture::new(Client::of(&server), stringify!($name)).await).await;
        }
    )*};
}

for_each_test!(run);
