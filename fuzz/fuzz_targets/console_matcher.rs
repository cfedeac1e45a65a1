//! Fuzzes `ratite_tests::fuzzing::console_matcher`, which says what is checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ratite_tests::fuzzing::console_matcher(data));
