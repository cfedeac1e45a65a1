//! `ratite template create`: from a machine that is ready to a template, or back.

use ratite::Exit;
use ratite::Machine;
use ratite::Making;
use ratite::RamTransfer;
use ratite::ShutdownError;
use ratite::Template;
use ratite::qmp::within;

use crate::commands::run::Clock;
use crate::copy::Reins;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;
use crate::verdict;
use crate::verdict::Cause;

/// Freezes the machine, which ends it, and stores what it was. A machine that was not frozen goes on.
pub(super) async fn freeze(
    making: Making,
    machine: &Machine,
    reins: Reins,
    clock: Clock,
    signals: &mut Signals,
) -> Result<Template, Failure> {
    let stored = async {
        // Nobody else is to pause it, or to have it go on, meanwhile.
        let _held = reins.lock().await;
        making.store(machine).await
    };
    let stored = tokio::select! {
        biased;
        signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
        stored = within(clock.left(), "template", stored) => stored,
    };
    match stored {
        Ok(Ok(template)) => Ok(template),
        Ok(Err(error)) => {
            let doing = "make a template of the machine".into();
            Err(Failure::Conversation { doing, source: Box::new(error), exit: None })
        }
        Err(_) => {
            let what = "the machine was not frozen".into();
            Err(Failure::TimedOut { what, limit: clock.limit, source: None, exit: None, console: None })
        }
    }
}

/// Why the machine is being ended, after that.
pub(super) fn cause(frozen: &Result<Template, Failure>) -> Cause {
    match frozen {
        Err(Failure::Signal { signal, .. }) => Cause::Signal(*signal),
        Err(Failure::TimedOut { .. }) => Cause::TimeOver,
        _ => Cause::Ready,
    }
}

/// The same failure, with how QEMU ended then.
pub(super) fn with_end(failure: Failure, end: Result<Exit, ShutdownError>) -> Failure {
    match failure {
        Failure::Signal { signal, .. } => Failure::Signal { signal, source: end.err() },
        Failure::TimedOut { what, limit, source, console, .. } => {
            Failure::TimedOut { what, limit, source, exit: verdict::exit(end), console }
        }
        Failure::Conversation { doing, source, .. } => {
            Failure::Conversation { doing, source, exit: verdict::exit(end) }
        }
        other => other,
    }
}

/// Tells that it is made, and in which way its machines come to their memory.
pub(super) fn tell(name: &str, template: &Template) {
    report::remark(&format!(
        "the template `{name}` is made; `ratite template spawn {name}` runs a machine of it"
    ));
    if let RamTransfer::Streamed { because } | RamTransfer::Placed { because } = template.ram() {
        report::remark(&format!("each of its machines reads all of its memory first: {because}"));
    }
}
