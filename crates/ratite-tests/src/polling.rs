//! Futures polled by hand, so that they can be dropped at each point at which their caller may go away.
//!
//! A future stands still only where it was polled and said "not yet". There it can go before its waker was called or
//! after it; both are steps here, and a test that tries each number of steps has tried every such point.

use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use ratite::qmp::within;
use tokio::sync::Notify;

use crate::scenario::PATIENCE;

/// Takes at most so many steps with `future`, and drops it if it has not come to its end by then.
///
/// The steps are a poll, the wait until it wants to be polled again, the next poll, and so on. It is polled with a waker
/// of its own, so that nothing else can wake it.
///
/// # Panics
/// If it says "not yet" and then does not call its waker.
pub async fn after_steps<T>(steps: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(bell.clone());
    for step in 0..steps {
        if step % 2 == 1 {
            within(PATIENCE, "call of the waker", bell.0.notified()).await.expect("who waits is woken");
        } else if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
    }
    None
}

/// Makes `attempt` with 0, 1, 2, … steps until it says that its future came to its end, and returns the number of steps.
///
/// # Panics
/// If it never does.
pub async fn at_every_point(mut attempt: impl AsyncFnMut(usize) -> bool) -> usize {
    for steps in 0..MOST_STEPS {
        if attempt(steps).await {
            return steps;
        }
    }
    panic!("no future of the library takes {MOST_STEPS} steps");
}

const MOST_STEPS: usize = 1000;

/// What rings when a future wants to be polled again.
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Keeps one call for whoever comes to listen only later.
        self.0.notify_one();
    }
}

/// Drops `future` after a while that is measured in turns of the runtime, if it has not come to its end by then.
///
/// Its own clock is finer than that of the runtime's timers, and it goes on while other threads work.
pub async fn after_turns<T>(turns: u64, future: impl Future<Output = T>) -> Option<T> {
    let over = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        value = future => Some(value),
        () = over => None,
    }
}

/// When somebody who waits goes away.
#[derive(Debug, Clone, Copy)]
pub enum Departure {
    /// See [`after_steps`].
    AfterSteps(usize),
    /// See [`after_turns`].
    AfterTurns(u64),
}

impl Departure {
    /// Drops `future` then, if it has not come to its end.
    pub async fn from<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::AfterSteps(steps) => after_steps(steps, future).await,
            Self::AfterTurns(turns) => after_turns(turns, future).await,
        }
    }
}

/// Numbers that look random, and are the same in every run (xorshift64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers that belong to `seed`, which is not 0.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
