//! Fuzzes `ratite_tests::fuzzing::qtest_reader`, which says what is checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ratite_tests::fuzzing::qtest_reader(data));
