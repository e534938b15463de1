//! On loopback: what works is counted, and what delivers nothing cannot look fast.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use super::*;

fn spec(workload: Workload, to: SocketAddr) -> Spec {
    let workers = 2;
    let (warm_up_ms, limit_ms, limit_count) = (5, 60, 1_000_000);
    Spec { workload, to, workers, warm_up_ms, limit_ms, limit_count, server_pid: std::process::id() }
}

#[test]
fn a_server_that_answers_is_counted() {
    for (workload, to) in serve(Ipv4Addr::LOCALHOST.into(), true).unwrap() {
        let sample = measure(&spec(workload, to)).unwrap();
        assert_eq!(sample.failure, None, "{workload}");
        assert!(sample.delivered > 0, "{workload}: {sample:?}");
        assert!(sample.rate() > 0.0 && sample.client_cpu_ns > 0, "{workload}: {sample:?}");
    }
}

#[test]
fn a_bound_on_the_count_ends_it() {
    let at = serve(Ipv4Addr::LOCALHOST.into(), true).unwrap();
    let (workload, to) = at.into_iter().find(|(workload, _)| *workload == Workload::Established).unwrap();
    let sample = measure(&Spec { limit_count: 10, limit_ms: 2_000, ..spec(workload, to) }).unwrap();
    assert_eq!(sample.delivered, 10);
    assert!(sample.elapsed_ns < 1_000_000_000, "the time that it took, not the time that it had: {sample:?}");
}

/// Takes connections and bytes as fast as it can, and delivers nothing: by what is sent it would be the fastest.
fn black_hole() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _request = stream.read(&mut [0; 4096]);
            });
        }
    });
    at
}

#[test]
fn a_subject_that_delivers_nothing_is_not_fast() {
    for workload in [Workload::Connect, Workload::Established, Workload::Stream] {
        let sample = measure(&spec(workload, black_hole())).unwrap();
        assert_eq!((sample.delivered, sample.rate()), (0, 0.0), "{workload}: {sample:?}");
        assert!(sample.failed > 0 && sample.failure.is_some(), "{workload}: {sample:?}");
    }
}

#[test]
fn a_query_without_an_answer_is_not_fast() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sample = measure(&spec(Workload::UdpConnect, socket.local_addr().unwrap())).unwrap();
    assert_eq!((sample.delivered, sample.rate()), (0, 0.0), "{sample:?}");
    assert!(sample.failed > 0, "{sample:?}");
}

#[test]
fn a_wrong_reply_does_not_count() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; server::REQUEST];
            // an echo, as from a path that sends everything back
            let _echoed = stream.read_exact(&mut request).and_then(|()| stream.write_all(&request));
        }
    });
    let sample = measure(&spec(Workload::Connect, at)).unwrap();
    assert_eq!((sample.delivered, sample.rate()), (0, 0.0), "{sample:?}");
    assert_eq!(sample.failure.as_deref(), Some("another question's answer"));
}
