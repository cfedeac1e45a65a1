//! A limit that says what it waited for.
//!
//! Every wait of this crate goes through [`within`], so that none can be without an end or without a name. Limits
//! run on tokio's monotonic clock.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::sleep;

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
/// The future is polled once even when the limit is zero; a limit of [`Duration::MAX`] never ends. The limit runs from the first
/// poll on, which has to be within a tokio runtime unless the future is ready at once.
///
/// # Errors
/// [`TimedOut`], naming `what`, once `limit` is over.
pub fn within<T>(
    limit: Duration,
    what: impl Display,
    future: impl Future<Output = T>,
) -> impl Future<Output = Result<T, TimedOut>> {
    Within { future, began: None, over: None, what, limit }
}

pin_project! {
    /// No `async fn`, which would have room for the future twice: as an argument, and as what is awaited.
    struct Within<F, D> {
        #[pin]
        future: F,
        began: Option<Instant>,
        #[pin]
        over: Option<Sleep>,
        what: D,
        limit: Duration,
    }
}

impl<F: Future, D: Display> Future for Within<F, D> {
    type Output = Result<F::Output, TimedOut>;

    #[expect(clippy::disallowed_methods, reason = "every limit is this one")]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut me = self.project();
        // Before the future, which may take its time on this very thread.
        let began = *me.began.get_or_insert_with(Instant::now);
        let had_budget = coop::has_budget_remaining();
        if let Poll::Ready(outcome) = me.future.poll(cx) {
            return Poll::Ready(Ok(outcome));
        }
        if me.over.is_none() {
            me.over.set(Some(sleep(me.limit.saturating_sub(began.elapsed()))));
        }
        let Some(over) = me.over.as_pin_mut() else { return Poll::Pending };
        // A future that uses up what its task may do in a turn would never come to its limit.
        let is_used_up = had_budget && !coop::has_budget_remaining();
        let over = if is_used_up { pin!(coop::unconstrained(over)).poll(cx) } else { over.poll(cx) };
        over.map(|()| Err(TimedOut::new(me.what, *me.limit)))
    }
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

    #[test]
    fn it_is_begun_outside_of_a_runtime_and_waited_for_within_one() {
        let waiting = within(Duration::from_millis(1), "it", std::future::pending::<()>());

        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert!(runtime.block_on(waiting).is_err());
    }

    #[tokio::test]
    async fn a_future_that_is_always_busy_comes_to_its_limit() {
        let (answers, mut queue) = tokio::sync::mpsc::unbounded_channel();
        let busy = async {
            loop {
                let _sent = answers.send(());
                queue.recv().await;
            }
        };

        assert!(within(Duration::from_millis(20), "end", busy).await.is_err());
    }

    #[tokio::test]
    async fn what_the_first_poll_takes_counts() {
        let limit = Duration::from_secs(1);
        let start = std::time::Instant::now();
        let slow = async {
            while start.elapsed() < limit {
                std::hint::spin_loop();
            }
            std::future::pending::<()>().await;
        };

        assert!(within(limit, "end", slow).await.is_err());

        assert!(start.elapsed() < 2 * limit, "{:?}", start.elapsed());
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
