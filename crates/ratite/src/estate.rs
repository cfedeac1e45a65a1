//! What outlives a process, and which of two drops it: its supervisor, who knows when it has ended, or whoever holds its
//! handle, who knows when nobody needs it any more.
//!
//! ```text
//! kept ── cleared by the handle ─► going ─► gone
//!   └── ended and forsaken, in any order: whoever comes second drops it
//! ```

use std::fmt::Debug;
use std::mem;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::watch;

use crate::runtime::aside;

/// Whatever has to outlive a process. Dropping it may take long.
pub(crate) trait Estate: Debug + Send + Sync {
    /// Gives up what takes no time to give up; whether that was all.
    fn settle(&mut self) -> bool;
}

impl Estate for () {
    fn settle(&mut self) -> bool {
        true
    }
}

/// Where an estate lies until it is dropped.
#[derive(Debug)]
pub(crate) struct Shelf {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    estate: Lying,
    ended: bool,
    forsaken: bool,
}

#[derive(Debug)]
enum Lying {
    Here(Box<dyn Estate>),
    /// Being dropped; the sender lives for as long as that takes.
    Going(watch::Receiver<()>),
    Gone,
}

impl Shelf {
    pub(crate) fn new(estate: Box<dyn Estate>) -> Self {
        Self { kept: Mutex::new(Kept { estate: Lying::Here(estate), ended: false, forsaken: false }) }
    }

    /// Says that the process has ended; the estate, if that is for the supervisor to drop.
    pub(crate) fn ended(&self) -> Option<Box<dyn Estate>> {
        let mut kept = self.lock();
        kept.ended = true;
        if kept.forsaken { kept.take() } else { None }
    }

    /// Says that nobody holds the handle any more; the estate, if that is for the last holder to drop.
    pub(crate) fn forsake(&self) -> Option<Box<dyn Estate>> {
        let mut kept = self.lock();
        kept.forsaken = true;
        if kept.ended { kept.take() } else { None }
    }

    /// Drops the estate of a process that has ended, and waits for that; once begun, it goes on by itself.
    pub(crate) async fn clear(&self) {
        match self.begin_to_clear() {
            Clearing::Done => {}
            Clearing::Begun(estate, going) => aside(move || drop((estate, going))).await,
            Clearing::Underway(mut gone) => {
                // The end of the sender is what is waited for.
                let _gone = gone.changed().await;
            }
        }
    }

    fn begin_to_clear(&self) -> Clearing {
        let (mut estate, going) = {
            let mut kept = self.lock();
            match mem::replace(&mut kept.estate, Lying::Gone) {
                Lying::Gone => return Clearing::Done,
                Lying::Going(gone) => {
                    kept.estate = Lying::Going(gone.clone());
                    return Clearing::Underway(gone);
                }
                Lying::Here(estate) => {
                    let (going, gone) = watch::channel(());
                    kept.estate = Lying::Going(gone);
                    (estate, going)
                }
            }
        };
        // Not under the lock: the supervisor would wait there, and with it all other machines.
        match estate.settle() {
            true => Clearing::Done,
            false => Clearing::Begun(estate, going),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn take(&mut self) -> Option<Box<dyn Estate>> {
        match mem::replace(&mut self.estate, Lying::Gone) {
            Lying::Here(estate) => Some(estate),
            other => {
                self.estate = other;
                None
            }
        }
    }
}

/// How far an estate is on its way.
enum Clearing {
    Done,
    /// To be dropped, and the sender after it.
    Begun(Box<dyn Estate>, watch::Sender<()>),
    Underway(watch::Receiver<()>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::Receiver;
    use std::sync::mpsc::Sender;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Waits, when it is dropped, until somebody lets it go, and counts that.
    #[derive(Debug)]
    struct Heavy(Mutex<Receiver<()>>, Arc<AtomicU32>);

    impl Estate for Heavy {
        fn settle(&mut self) -> bool {
            false
        }
    }

    impl Drop for Heavy {
        fn drop(&mut self) {
            let _let_go = self.0.lock().unwrap().recv();
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn heavy() -> (Sender<()>, Arc<AtomicU32>, Shelf) {
        let (let_go, held) = channel();
        let dropped = Arc::new(AtomicU32::new(0));
        (let_go, dropped.clone(), Shelf::new(Box::new(Heavy(Mutex::new(held), dropped))))
    }

    #[test]
    fn whoever_comes_second_has_it() {
        let (_, _, shelf) = heavy();
        assert!(shelf.ended().is_none());
        assert!(shelf.forsake().is_some());

        let (_, _, shelf) = heavy();
        assert!(shelf.forsake().is_none());
        assert!(shelf.ended().is_some());
        assert!(shelf.forsake().is_none());
    }

    #[tokio::test]
    async fn whoever_waits_waits_until_it_is_dropped_also_after_somebody_gave_up() {
        let (let_go, dropped, shelf) = heavy();
        let given_up = tokio::time::timeout(Duration::ZERO, shelf.clear()).await;
        assert!(given_up.is_err());
        let still = tokio::time::timeout(Duration::ZERO, shelf.clear()).await;
        assert!(still.is_err());
        drop(let_go);

        shelf.clear().await;

        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert!(shelf.ended().is_none() && shelf.forsake().is_none());
    }
}
