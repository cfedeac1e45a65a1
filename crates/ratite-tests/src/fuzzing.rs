//! What the fuzzers try and the tests replay: one function for each place where bytes from outside come in.
//!
//! Each takes any bytes at all and panics where a promise is broken; what it compares with is a second, naive
//! implementation. The fuzzers are in `fuzz/`, which also says how each function reads its bytes.

mod address;
mod codec;
mod console_matcher;
mod event_filter;
mod json_source;
mod pieces;
mod qtest_reader;

pub use address::address;
pub use codec::codec;
pub use console_matcher::console_matcher;
pub use event_filter::event_filter;
pub use qtest_reader::qtest_reader;
