//! Searches that wait for what comes.
//!
//! Whoever expects something searches what is there, and then leaves the search here: it goes on with each block that comes,
//! where that comes in. So nothing is forgotten before it was searched, however fast it comes, and nobody is woken for a
//! block in which there is nothing. A search that takes long goes back to who waits for it, and costs the guest no more.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rustix::time::ClockId;
use rustix::time::Timespec;
use rustix::time::clock_gettime;
use tokio::sync::oneshot;

use crate::console::Shared;
use crate::history::Candidate;
use crate::history::Cursor;
use crate::history::History;
use crate::history::Place;
use crate::history::Searched;
use crate::pattern::Patterns;
use crate::pattern::SearchError;

/// How long a search may keep others from the console, and the runtime's thread from other tasks. When the system has given its
/// thread to somebody else meanwhile, as much again of the thread's own time.
const SLICE: Duration = Duration::from_millis(5);

/// A search, and how far it has come.
#[derive(Debug)]
pub(super) struct Hunt {
    pub(super) patterns: Patterns,
    pub(super) cursor: Cursor,
}

/// What a search has come to.
#[derive(Debug)]
pub(super) enum Outcome {
    Found(Candidate),
    /// Nothing yet in what has arrived.
    NotYet,
    /// There is more to be searched.
    Unfinished,
    GaveUp(SearchError),
}

/// How long this thread has run.
fn thread_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or_default())
}

/// What a search that waited has come to.
pub(super) type Told = (Box<Hunt>, Outcome);

impl Hunt {
    /// Searches what has come since it was here last.
    pub(super) fn go_on(&mut self, history: &History, place: Place) -> Outcome {
        let start = Instant::now();
        let mut late = None;
        let mut own_time = || {
            let now = thread_time();
            now.saturating_sub(*late.get_or_insert(now))
        };
        let go_on = || start.elapsed() < SLICE || own_time() < SLICE;
        match history.search(&self.patterns, &mut self.cursor, place, go_on) {
            Ok(Searched::Found(spot)) => Outcome::Found(history.candidate(place, spot)),
            Ok(Searched::NotYet) => Outcome::NotYet,
            Ok(Searched::Unfinished) => Outcome::Unfinished,
            Err(error) => Outcome::GaveUp(error),
        }
    }
}

/// The searches that wait.
#[derive(Debug, Default)]
pub(super) struct Standing(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    hunt: Box<Hunt>,
    place: Arc<Mutex<Place>>,
    told: oneshot::Sender<Told>,
}

impl Standing {
    /// Lets a search wait, until its outcome is told or nobody waits for that.
    pub(super) fn add(&mut self, hunt: Box<Hunt>, place: &Arc<Mutex<Place>>) -> oneshot::Receiver<Told> {
        let (told, outcome) = oneshot::channel();
        self.0.push(Waiting { hunt, place: place.clone(), told });
        outcome
    }

    /// Searches what has come.
    pub(super) fn go_on(&mut self, history: &History) {
        let mut at = 0;
        while let Some(Waiting { hunt, place, .. }) = self.0.get_mut(at) {
            let from = *place.lock().unwrap_or_else(PoisonError::into_inner);
            match hunt.go_on(history, from) {
                Outcome::NotYet => at += 1,
                outcome => self.0.remove(at).tell(outcome),
            }
        }
    }

    /// Gives all searches back, since nothing more comes.
    pub(super) fn end(&mut self) {
        self.0.drain(..).for_each(|waiting| waiting.tell(Outcome::Unfinished));
    }
}

impl Waiting {
    fn tell(self, outcome: Outcome) {
        // Whoever waited may be gone.
        let _gone = self.told.send((self.hunt, outcome));
    }
}

/// A wait for the outcome of a search, which is given up with it.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    pub(super) shared: &'a Shared,
    pub(super) outcome: oneshot::Receiver<Told>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.outcome.close();
        self.shared.lock().standing.0.retain(|waiting| !waiting.told.is_closed());
    }
}
