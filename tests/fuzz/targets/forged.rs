#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| persist_crash_testing::fuzz::forged(data));
