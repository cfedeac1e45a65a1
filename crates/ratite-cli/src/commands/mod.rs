//! The verbs, one a file, and what surrounds each of them: the runtime, the signals, and the net that catches a bug.

mod accel;
mod agent;
mod cmd;
mod console;
mod demo;
mod dialogue;
mod doctor;
mod events;
mod keys;
mod log;
mod ls;
mod paper;
mod qom;
mod run;
mod screenshot;
mod shell;
mod stop;
mod template;
mod wait;

use std::fs::File;
use std::io;
use std::panic;
use std::panic::AssertUnwindSafe;

use tokio::runtime::Builder;

use crate::args::Cli;
use crate::args::Verb;
use crate::diagnostics;
use crate::report::Failure;
use crate::signals::Signals;

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    diagnostics::show()?;
    catching(|| {
        check_room()?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::System)?;
        runtime.block_on(async {
            let mut signals = Signals::listen().map_err(Failure::System)?;
            match cli.verb {
                Verb::Accel(accel) => accel::accel(&accel, &mut signals).await,
                Verb::Agent(agent) => agent::agent(agent, &mut signals).await,
                Verb::Demo(demo) => demo::demo(&demo, &mut signals).await,
                Verb::Completions(words) => paper::completions(&words),
                Verb::Man(words) => paper::manual(&words.folder),
                Verb::Doctor(doctor) => unless_signalled(&mut signals, doctor::doctor(&doctor)).await,
                Verb::Ls(ls) => unless_signalled(&mut signals, ls::ls(&ls)).await,
                Verb::Console(console) => console::console(&console, &mut signals).await,
                Verb::Log(log) => unless_signalled(&mut signals, log::log(&log)).await,
                Verb::Stop(stop) => unless_signalled(&mut signals, stop::stop(&stop)).await,
                Verb::Wait(wait) => unless_signalled(&mut signals, wait::wait(&wait)).await,
                Verb::Qom(qom) => qom::qom(qom, &mut signals).await,
                Verb::Run(run) => run::run(*run, &mut signals).await,
                Verb::Template(words) => template::template(words, &mut signals).await,
                Verb::Shell(shell) => shell::shell(shell, &mut signals).await,
                Verb::Cmd(cmd) => unless_signalled(&mut signals, cmd::cmd(&cmd)).await,
                Verb::Events(events) => unless_signalled(&mut signals, events::events(&events)).await,
                Verb::Screenshot(words) => screenshot::screenshot(&words, &mut signals).await,
                Verb::Keys(words) => keys::keys(&words, &mut signals).await,
            }
        })
    })
}

/// What a verb does, up to a signal; for verbs that leave nothing to be ended.
async fn unless_signalled(
    signals: &mut Signals,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        outcome = work => outcome,
    }
}

/// How many descriptors a runtime that hears signals takes, with some to spare.
const RUNTIME: usize = 8;

/// Refuses to begin without the descriptors for a runtime, where tokio would panic.
fn check_room() -> Result<(), Failure> {
    let opened: io::Result<Vec<File>> = (0..RUNTIME).map(|_| File::open("/dev/null")).collect();
    opened.map(drop).map_err(Failure::System)
}

/// Turns a panic into a [`Failure::Bug`]. Unwinding drops the machine on its way, and that ends it.
fn catching(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Failure::Bug(words.unwrap_or_else(|| "it panicked without a word".into())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::exit_code;

    #[test]
    fn a_panic_is_reported_as_a_bug() {
        let outcome = catching(|| panic!("a wrong {}", "turn"));

        assert!(matches!(&outcome, Err(Failure::Bug(words)) if words == "a wrong turn"), "{outcome:?}");
        assert_eq!(exit_code(&outcome), 70);
    }
}
