//! A QEMU without a machine in it: real descriptors, real QMP, and misbehaviour on demand.
//!
//! It takes a QEMU command line, ignores what it does not know, opens its `-chardev socket` backends, and serves
//! `-mon` (QMP), `-serial`/`-device` (consoles) and `-qtest` on them, from one `poll` loop in one thread. It differs
//! from QEMU only where `-fake WORD[=VALUE]` says so (the words: `words.rs`; the test commands: `commands.rs`). It
//! ends by itself after 120 s, so that a broken test cannot leave it behind; it never dumps core.

#![expect(
    clippy::disallowed_methods,
    reason = "it owns no machine, and to end at once is what it is asked for"
)]

mod arguments;
mod burst;
mod commands;
mod console;
mod inherit;
mod json;
mod line;
mod machine;
mod monitor;
mod qmp;
mod qtest;
mod start;
mod words;

use std::env;
use std::io;
use std::io::Write;
use std::process;

use crate::arguments::Arguments;
use crate::words::Words;

fn main() {
    let given: Vec<_> = env::args_os().skip(1).collect();
    if let Some(answer) = start::information(&given) {
        complain_if_failed(&io::stdout().write_all(answer.as_bytes()));
        return;
    }
    let outcome = Arguments::parse(&given).and_then(|arguments| {
        let words = Words::parse(&arguments.words)?;
        start::misbehave_early(&words)?;
        start::power_on(arguments, words)
    });
    match outcome {
        Ok(mut machine) => machine.run(),
        Err(message) => {
            complain_if_failed(&writeln!(io::stderr(), "fake-qemu: {message}"));
            process::exit(1);
        }
    }
}

fn complain_if_failed(written: &io::Result<()>) {
    if written.is_err() {
        // Nobody reads what we say; a status is all that is left to say it with.
        process::exit(98);
    }
}
