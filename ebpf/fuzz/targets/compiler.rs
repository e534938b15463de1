//! `weir_fuzz::compiler`, guided by coverage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::Target::Compiler.run(data));
