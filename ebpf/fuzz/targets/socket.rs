//! `weir_fuzz::socket`, guided by coverage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::Target::Socket.run(data));
