//! A limit that says what it waited for.
//!
//! Every wait of this crate goes through [`within`], so that none can be without an end or without a name. Limits
//! run on tokio's monotonic clock.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

/// A wait that came to its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} within {limit:?}")]
pub struct TimedOut {
    /// What was waited for, as a noun phrase: "reply to `query-status`".
    pub what: String,
    /// How long it was waited for.
    pub limit: Duration,
}

impl TimedOut {
    /// Says that `what` did not come within `limit`.
    pub fn new(what: impl Display, limit: Duration) -> Self {
        Self { what: what.to_string(), limit }
    }
}

/// Waits for `future`, at most for `limit`.
///
/// The future is polled once even when the limit is zero; a limit of [`Duration::MAX`] never ends.
///
/// # Errors
/// [`TimedOut`], naming `what`, once `limit` is over. The future is dropped then.
pub async fn within<T>(
    limit: Duration,
    what: impl Display,
    future: impl Future<Output = T>,
) -> Result<T, TimedOut> {
    tokio::time::timeout(limit, future).await.map_err(|_| TimedOut::new(what, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_over_names_what_it_waited_for() {
        let limit = Duration::from_millis(20);

        let outcome = within(limit, "greeting", std::future::pending::<()>()).await;

        let timed_out = outcome.unwrap_err();
        assert_eq!(timed_out.to_string(), "no greeting within 20ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_zero_limit_takes_what_is_ready() {
        assert_eq!(within(Duration::ZERO, "it", async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_limit_does_not_overflow() {
        assert_eq!(within(Duration::MAX, "it", async { 7 }).await, Ok(7));
    }
}
