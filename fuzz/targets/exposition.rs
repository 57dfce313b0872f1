#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| kchaos::fuzz::exposition(text));
