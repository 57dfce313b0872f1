#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kchaos::fuzz::journal(bytes));
