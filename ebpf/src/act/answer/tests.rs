//! Answers, against the RFCs that say what they are.

use super::*;
use crate::abi::DropReason;
use crate::datapath::packet::Verdict;
use crate::testing::{Outcome, apply};
use crate::wire::{TCP_ACK, TCP_FIN, TCP_SYN, parse};

const REFUSAL: Verdict = Verdict::Answer(Answer::Refusal(DropReason::NoEndpoint));

/// An Ethernet frame of IPv4 from 192.0.2.1 to 198.51.100.7 with this payload.
fn frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = 20 + u16::try_from(payload.len()).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let src = crate::abi::Addr::from(std::net::IpAddr::from([192, 0, 2, 1]));
    let dst = crate::abi::Addr::from(std::net::IpAddr::from([198, 51, 100, 7]));
    frame.extend(ipv4_header(src, dst, protocol, u32::from(length)));
    frame.extend(payload);
    frame
}

fn tcp(sequence: u32, acknowledgment: u32, flags: u8, data: usize) -> Vec<u8> {
    let mut segment = vec![0xc0, 0, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgment.to_be_bytes());
    segment.extend([5 << 4, flags, 1, 0, 0, 0, 0, 0]);
    segment.resize(20 + data, 7);
    frame(6, &segment)
}

fn answered(frame: &[u8], verdict: &Verdict) -> (Outcome, Vec<u8>) {
    let packet = parse(frame, ETHERNET, 0x0800).unwrap();
    let mut frame = frame.to_vec();
    let outcome = apply(&mut frame, &packet, verdict);
    (outcome, frame)
}

fn sum(bytes: &[u8]) -> Sum {
    bytes.chunks(2).fold(Sum::ZERO, |sum, pair| {
        sum.word(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    })
}

#[test]
fn a_reset_is_as_rfc_9293_says() {
    // Flags, bytes of payload; sequence, acknowledgment and flags of the reset.
    let cases = [
        (TCP_SYN, 0, (0, 101, TCP_RST | TCP_ACK)),
        (TCP_SYN, 8, (0, 109, TCP_RST | TCP_ACK)),
        (TCP_FIN, 3, (0, 104, TCP_RST | TCP_ACK)),
        (TCP_ACK, 5, (900, 0, TCP_RST)),
        (TCP_SYN | TCP_ACK, 0, (900, 0, TCP_RST)),
    ];
    for (flags, data, (sequence, acknowledgment, expected)) in cases {
        let (outcome, reply) = answered(&tcp(100, 900, flags, data), &REFUSAL);
        assert_eq!((outcome, reply.len()), (Outcome::Answered, 54), "{flags:x}");
        assert_eq!(&reply[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        assert_eq!(&reply[26..34], [198, 51, 100, 7, 192, 0, 2, 1]);
        assert_eq!(&reply[34..38], [0, 80, 0xc0, 0]);
        assert_eq!(u32::from_be_bytes(*reply[38..].first_chunk().unwrap()), sequence, "{flags:x}");
        assert_eq!(u32::from_be_bytes(*reply[42..].first_chunk().unwrap()), acknowledgment, "{flags:x}");
        assert_eq!(reply[47], expected);
        assert_eq!(sum(&reply[14..34]).checksum(), 0, "the header's checksum");
        let pseudo = sum(&reply[26..34]).word(u16::from_ne_bytes([0, 6])).word(20_u16.to_be());
        assert_eq!(pseudo.and(sum(&reply[34..])).checksum(), 0, "the segment's checksum");
    }
}

#[test]
fn who_is_no_host_is_not_answered() {
    for (first, answered) in [(0, false), (1, true), (126, true), (127, false), (223, true), (224, false)] {
        assert_eq!(is_a_hosts(std::net::IpAddr::from([first, 0, 0, 1]).into()), answered, "{first}");
    }
    for (text, answered) in
        [("::", false), ("::1", false), ("::2", true), ("ff02::1", false), ("fe80::1", true)]
    {
        assert_eq!(is_a_hosts(text.parse::<std::net::IpAddr>().unwrap().into()), answered, "{text}");
    }
    let mut sent = frame(17, &[0x82, 0x35, 0, 53, 0, 8, 0, 0]);
    sent[26..30].copy_from_slice(&[127, 0, 0, 1]);
    for verdict in [REFUSAL, Verdict::Answer(Answer::TimeExceeded)] {
        assert_eq!(answered(&sent, &verdict), (Outcome::Dropped(None), sent.clone()));
    }
}

#[test]
fn a_reset_is_not_answered() {
    let (outcome, _) = answered(&tcp(100, 900, TCP_RST, 0), &REFUSAL);
    assert_eq!(outcome, Outcome::Dropped(None));
}

#[test]
fn a_datagram_is_quoted_up_to_what_an_error_may_hold() {
    for (data, quoted) in [(0_usize, 28), (1, 28), (4, 32), (31, 56), (519, 544), (520, 548), (1400, 548)] {
        let mut datagram = vec![0x82, 0x35, 0, 53, 0, 0, 0, 0];
        datagram.resize(8 + data, 9);
        let sent = frame(17, &datagram);
        let (outcome, reply) = answered(&sent, &REFUSAL);
        assert_eq!((outcome, reply.len()), (Outcome::Answered, 14 + 28 + quoted), "{data}");
        assert_eq!(&reply[34..36], [3, 3]);
        assert_eq!(&reply[42..], &sent[14..14 + quoted], "{data}");
        assert_eq!(sum(&reply[34..]).checksum(), 0, "{data}");
        assert_eq!(sum(&reply[14..34]).checksum(), 0, "{data}");
    }
}

#[test]
fn an_echo_comes_back_with_its_content() {
    let mut request = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3];
    let check = sum(&request).checksum().to_ne_bytes();
    request[2..4].copy_from_slice(&check);
    let (outcome, reply) = answered(&frame(1, &request), &Verdict::Answer(Answer::EchoReply));
    assert_eq!(outcome, Outcome::Answered);
    assert_eq!((reply[34], &reply[38..]), (0, &request[4..]));
    assert_eq!(&reply[26..34], [198, 51, 100, 7, 192, 0, 2, 1]);
    assert_eq!((sum(&reply[34..]).checksum(), sum(&reply[14..34]).checksum()), (0, 0));
}
