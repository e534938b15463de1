//! Connections that a policy revokes, between real sockets: whoever waits on either end hears of it, unless it is kept.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use weir_agent::tables::{PolicyStore as _, PolicyWrite};
use weir_ebpf::abi::{Counter, PodPolicy};

use crate::guarded::{FRIEND, SERVER, STRANGER, World, at, connect, echo, speaks};

/// Far longer than a packet takes to be sent again: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends of a connection from the friend to the server.
fn connected(world: &World, server: &str, port: u16) -> (TcpStream, TcpStream) {
    let listener = world.server.enter(|| Ok(TcpListener::bind(at(server, port))?)).unwrap();
    let client = connect(&world.friend, server, port).expect("it is allowed");
    let (served, _) = listener.accept().unwrap();
    for end in [&client, &served] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
        end.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (client, served)
}

/// Reads until there is an end of it, and says which.
fn wait(end: &TcpStream) -> JoinHandle<Option<ErrorKind>> {
    let mut end = end.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        loop {
            match end.read(&mut bytes) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error.kind()),
            }
        }
    })
}

fn revoke(world: &mut World) {
    world.set_pod("friend", "other", FRIEND);
    world.sync();
}

fn allow(world: &mut World) {
    world.set_pod("friend", "client", FRIEND);
    world.sync();
}

#[test]
fn both_ends_hear_of_it_whoever_speaks_first() {
    let mut world = World::new("reset-both");
    world.serve();
    for server in SERVER {
        for server_speaks in [false, true] {
            let (mut client, mut served) = connected(&world, server, 8080);
            let waiting = [wait(&client), wait(&served)];
            (&client).write_all(b"hello").unwrap();
            revoke(&mut world);
            let speaker = if server_speaks { &mut served } else { &mut client };
            speaker.write_all(b"still there?").unwrap();
            for waiting in waiting {
                assert_eq!(waiting.join().unwrap(), Some(ErrorKind::ConnectionReset), "{server}");
            }
            allow(&mut world);
        }
    }
    assert!(world.counters()[&Counter::Reset] >= 4);
}

#[test]
fn a_stream_in_large_pieces_ends_on_both_sides() {
    let mut world = World::new("reset-bulk");
    world.serve();
    for server in SERVER {
        let (mut client, served) = connected(&world, server, 8080);
        let reader = wait(&served);
        let writer = std::thread::spawn(move || {
            let bytes = vec![7; 1 << 18];
            loop {
                if let Err(error) = client.write_all(&bytes) {
                    return error.kind();
                }
            }
        });
        // As long as it flows, nobody can say where it stops.
        std::thread::sleep(Duration::from_millis(100));
        revoke(&mut world);
        assert_eq!(reader.join().unwrap(), Some(ErrorKind::ConnectionReset), "{server}");
        let written = writer.join().unwrap();
        assert!(matches!(written, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{written:?}");
        allow(&mut world);
    }
}

#[test]
fn what_is_kept_goes_on_while_nothing_new_begins() {
    let mut world = World::new("reset-keep");
    world.serve();
    let device = world.stage.index("server");
    for server in SERVER {
        echo(&world.server, server, 8080);
        let mut connection = connect(&world.friend, server, 8080).expect("it is allowed");
        assert!(speaks(&mut connection));
        world.set_pod("friend", "other", FRIEND);
        let mut row = world.store.snapshot().unwrap().pods[&device];
        row.policy.flags |= PodPolicy::KEEP_INGRESS;
        world.store.write_policy(&PolicyWrite::Pod(device, Some(row))).unwrap();
        world.sync();
        assert!(speaks(&mut connection), "{server}");
        assert!(connect(&world.friend, server, 8080).is_none());
        assert!(connect(&world.stranger, server, 8080).is_none(), "{STRANGER:?}");
        assert!(speaks(&mut connection), "{server}");
        row.policy.flags = 0;
        world.store.write_policy(&PolicyWrite::Pod(device, Some(row))).unwrap();
        assert!(!speaks(&mut connection), "it is kept no longer");
        allow(&mut world);
    }
}
