//! What was done, and what went wrong.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Counts by name, shared by all players.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    done: Mutex<BTreeMap<&'static str, u64>>,
    lost: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Counts `count` more of something that was done, or of a fault that was injected.
    pub(crate) fn add(&self, what: &'static str, count: u64) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += count;
    }

    /// Counts something that was lost, or came out otherwise than it should.
    pub(crate) fn lost(&self, what: &str) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner).entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// All of it, one line a name.
    pub(crate) fn report(&self, took: Duration, machines: u64) -> String {
        let mut text = format!("{machines} machines at a time for {} s\n", took.as_secs());
        for (what, count) in &*self.done.lock().unwrap_or_else(PoisonError::into_inner) {
            let _to_a_string = writeln!(text, "{count:>12}  {what}");
        }
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_empty() {
            text.push_str("lost: nothing");
        }
        for (what, count) in &*lost {
            let _to_a_string = writeln!(text, "LOST {count:>7}  {what}");
        }
        text
    }
}
