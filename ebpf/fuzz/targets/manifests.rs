//! `weir_fuzz::manifests`, guided by coverage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::Target::Manifests.run(data));
