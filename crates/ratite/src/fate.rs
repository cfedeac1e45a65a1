//! What may end a machine's wait from outside: the end of its process, and its guest's panic.

use std::time::Duration;

use ratite_qmp::EventFilter;
use ratite_qmp::Listener;
use ratite_qmp::Subscription;
use serde_json::Value;
use serde_json::json;

use crate::exit::ProcessExit;
use crate::life::Life;

/// What a part that waits for a machine's guest can learn of the machine. Keeps nothing alive.
#[derive(Debug)]
pub(crate) struct Fate {
    life: Life,
    panics: Option<Listener>,
}

/// How long a process whose stream has ended is waited for: it is about to exit, and its status says more.
const EXIT_AFTER_END: Duration = Duration::from_millis(200);

impl Fate {
    /// The fate of the process with this `life`, whose guest's panics are heard by `panics`.
    pub(crate) fn new(life: Life, panics: Option<Listener>) -> Self {
        Self { life, panics }
    }

    /// Hears of panics after which the guest does not go on, and of the guest going on after all. The last of them stays.
    pub(crate) fn panics() -> (Listener, Subscription) {
        Listener::with_capacity(panic().or(EventFilter::named("RESUME")), 1)
    }

    /// Waits until the guest has panicked; for ever, if nobody would tell.
    pub(crate) async fn panicked(&self) -> Value {
        let Some(panics) = &self.panics else { return std::future::pending().await };
        while panics.ready(&panic(), Duration::MAX).await.is_ok() {
            if let Some(panic) = self.panic() {
                return panic;
            }
        }
        std::future::pending().await
    }

    /// What QEMU says of the guest's panic, if there was one and the guest has not gone on since.
    pub(crate) fn panic(&self) -> Option<Value> {
        let last = self.panics.as_ref()?.peek()?;
        panic().matches(&last).then(|| last.data())
    }

    /// How the process ended, if it has, or is about to.
    pub(crate) async fn exit(&self) -> Option<ProcessExit> {
        self.life.ends_soon(EXIT_AFTER_END).await.map(|exited| exited.status)
    }
}

/// A panic after which the guest does not go on. With `-action panic=none` it does, and QEMU says so: `action` is `run` then
/// (QEMU's documentation of GUEST_PANICKED).
fn panic() -> EventFilter {
    let after = |action| EventFilter::named("GUEST_PANICKED").data(json!({ "action": action }));
    after("pause").or(after("poweroff"))
}
