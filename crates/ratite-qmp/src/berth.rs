//! Where a connection lies: its task's, and at hand for a caller who finds it idle.
//!
//! Through the task, a command takes a turn of the runtime before it is written. A caller who finds nothing under way writes it
//! himself, whole or not at all: what the socket does not take is the task's to finish. His reply waits for him in the
//! connection's *seat*. The task is always woken when something comes; so nobody depends on a caller who is not polled.

use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::TryLockError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use rustix::net::RecvFlags;
use tokio::runtime::Handle;
use tokio::runtime::RuntimeFlavor;
use tokio::task::yield_now;

use crate::command::Command;
use crate::connection::Answered;
use crate::connection::Connection;
use crate::error::Disconnect;
use crate::patience;
use crate::socket::PATIENCE;

/// How much a thread that waits for the socket itself takes at once; the rest of what is longer is read as usual.
const SMALL: usize = 1 << 10;

#[derive(Debug)]
pub(crate) struct Berth {
    /// A caller only tries this lock; the task waits for a caller's system call at most.
    state: Mutex<State>,
    wakers: Mutex<Wakers>,
    /// Whether something may have come that nobody has read yet.
    has_news: AtomicBool,
    /// How many threads wait for the socket themselves, and read what comes; begun under the lock. Nobody else reads meanwhile. Of
    /// two, the first has its answer, and reads no more.
    readers: AtomicUsize,
    /// Whether the caller in the seat reads, too. Not where another thread would be woken for the task meanwhile.
    caller_reads: bool,
}

#[derive(Debug)]
enum State {
    Here(Box<Connection>),
    /// With the answer that nobody has taken from the seat yet.
    Over(Option<Answered>),
}

/// Who is woken when the socket has something to be read.
#[derive(Debug, Default)]
struct Wakers {
    /// Whoever is in the seat and waits.
    caller: Option<Waker>,
    task: Option<Waker>,
}

impl Berth {
    /// A place for `connection`, whose task is to be one of the caller's runtime.
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        let runtime = Handle::current();
        Arc::new(Self {
            state: Mutex::new(State::Here(Box::new(connection))),
            wakers: Mutex::default(),
            has_news: AtomicBool::new(true),
            readers: AtomicUsize::new(0),
            caller_reads: runtime.runtime_flavor() == RuntimeFlavor::CurrentThread,
        })
    }

    /// What the connection's task does: serves until the connection ends.
    pub(crate) fn serve(self: Arc<Self>) -> impl Future<Output = ()> {
        // Made here, so that a task that never has a turn ends the connection, too.
        let tenancy = Tenancy { io: Waker::from(Arc::clone(&self)), berth: self };
        async move {
            let why = poll_fn(|cx| tenancy.poll_end(cx)).await;
            tenancy.end(why.as_ref());
        }
    }

    /// Writes a command if nothing else is under way, and takes the seat for it: whether it is written to its end. Else it comes
    /// back.
    pub(crate) fn begin(&self, id: u64, command: Command, caller: &Waker) -> Result<bool, Command> {
        let Ok(mut state) = self.state.try_lock() else { return Err(command) };
        let _finish = Finish(self);
        let State::Here(connection) = &mut *state else { return Err(command) };
        let is_written = connection.begin(id, command)?;
        // Under the lock: who answers looks for him within it, or after it.
        self.attend(caller);
        if !is_written {
            self.wake_task();
        }
        Ok(is_written)
    }

    /// What became of the command that has the seat: None where the connection is over and has left no word.
    pub(crate) fn poll_answer(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Option<Answered>> {
        let state = self.state.try_lock().or_else(|_| {
            // Who has it now looks after it for those who wait.
            self.attend(cx.waker());
            self.state.try_lock()
        });
        let mut state = match state {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => return Poll::Pending,
            Err(TryLockError::Poisoned(_)) => return Poll::Ready(None),
        };
        let _finish = Finish(self);
        let connection = match &mut *state {
            State::Here(connection) => connection,
            State::Over(left) => return Poll::Ready(left.take()),
        };
        if self.caller_reads && !connection.is_answered() && self.take_news() {
            let io = Waker::from(Arc::clone(self));
            if !connection.read_for_caller(&mut Context::from_waker(&io)) {
                self.wake_task();
            }
            if connection.take_flood() {
                io.wake();
            }
        }
        match connection.take_answer() {
            Some(answer) => Poll::Ready(Some(answer)),
            None => {
                self.attend(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Waits for the answer to the command that has the seat, and is written, on this very thread, if that may wait
    /// ([`crate::on_this_thread`]). If the answer has to be waited for in another way, how long this has taken.
    pub(crate) fn wait_here(&self, limit: Duration) -> Result<Answered, Duration> {
        if limit < PATIENCE || !patience::take() {
            return Err(Duration::ZERO);
        }
        let start = Instant::now();
        self.read_here(start).ok_or_else(|| start.elapsed())
    }

    /// Reads until the answer is there, nothing comes for a while, or something else has come for so long since `start`.
    fn read_here(&self, start: Instant) -> Option<Answered> {
        let (socket, _reads) =
            self.look(|connection| connection.watched().map(|socket| (socket, Reads::begin(self))))??;
        let mut bytes = [0; SMALL];
        loop {
            // Not within the lock. What ends the connection, and what interrupts this, is found again by the task.
            let count =
                rustix::net::recv(&*socket, &mut bytes, RecvFlags::empty()).map_or(0, |(count, _)| count);
            if count == 0 {
                return None;
            }
            let (answer, goes_on, _dismissed) = self.look(|connection| {
                let goes_on = connection.take_in(&bytes[..count], count == SMALL);
                let answer = connection.take_answer();
                // Under the lock: afterwards the seat, and who waits in it, is another's.
                let dismissed = answer.as_ref().and_then(|_| self.take_caller());
                (answer, goes_on, dismissed)
            })?;
            if !goes_on {
                self.has_news.store(true, SeqCst);
                self.wake_task();
            }
            if answer.is_some() || !goes_on || start.elapsed() >= PATIENCE {
                return answer;
            }
        }
    }

    /// Looks at the connection, if it is there.
    fn look<T>(&self, look: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let mut state = self.state.lock().ok()?;
        let _finish = Finish(self);
        match &mut *state {
            State::Here(connection) => Some(look(connection)),
            State::Over(_) => None,
        }
    }

    /// Forgets whoever waits in the seat.
    pub(crate) fn dismiss(&self) {
        drop(self.take_caller());
    }

    /// Whether there is something to be read; it is, then.
    fn take_news(&self) -> bool {
        !self.is_read_elsewhere() && self.has_news.swap(false, SeqCst)
    }

    fn is_read_elsewhere(&self) -> bool {
        self.readers.load(SeqCst) > 0
    }

    fn attend(&self, caller: &Waker) {
        self.wakers().caller = Some(caller.clone());
    }

    fn take_caller(&self) -> Option<Waker> {
        self.wakers().caller.take()
    }

    fn wake_task(&self) {
        let task = self.wakers().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        // Nothing under this lock can panic half-way.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Berth {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_news.store(true, SeqCst);
        let mut wakers = self.wakers();
        let caller = if self.caller_reads { wakers.caller.take() } else { None };
        let task = wakers.task.clone();
        drop(wakers);
        // In this order: a caller who reads first has his reply a turn sooner.
        for waker in [caller, task].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// The task's hold on the connection, which ends with it: also when the runtime drops the task, or a subscriber panicked.
#[derive(Debug)]
struct Tenancy {
    berth: Arc<Berth>,
    /// Wakes whoever reads.
    io: Waker,
}

impl Tenancy {
    /// Does all there is to do; ready at the end of the connection, with the reason if there is one to tell.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Option<Disconnect>> {
        let mut wakers = self.berth.wakers();
        if !wakers.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            wakers.task = Some(cx.waker().clone());
        }
        drop(wakers);
        // Poisoned, it was left half-way by a caller who panicked.
        let Ok(mut state) = self.berth.state.lock() else { return Poll::Ready(None) };
        let State::Here(connection) = &mut *state else { return Poll::Ready(None) };
        let has_news = self.berth.take_news();
        let is_left_to_a_reader = connection.is_unwritable() && {
            // In this order: a thread that is done with reading just now finds it, and wakes this task.
            self.berth.has_news.store(true, SeqCst);
            self.berth.is_read_elsewhere()
        };
        let end = match is_left_to_a_reader {
            // What that thread has read comes before the rest.
            true => Poll::Pending,
            false => connection.poll_end(cx, &mut Context::from_waker(&self.io), has_news),
        };
        let is_answered = connection.is_answered();
        if connection.take_flood() {
            // Whoever waits for another socket comes first: a runtime with tasks that are ready looks at sockets only now and then,
            // and a flood here would be read faster than those whom it goes to can take it.
            self.berth.has_news.store(true, SeqCst);
            let _later = pin!(yield_now()).poll(cx);
        }
        drop(state);
        if is_answered && let Some(caller) = self.berth.take_caller() {
            caller.wake();
        }
        end.map(Some)
    }

    /// Ends the connection, for `why` if there is a reason to be told.
    fn end(&self, why: Option<&Disconnect>) {
        let mut state = self.berth.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Here(_))
            && let State::Here(mut connection) = std::mem::replace(&mut *state, State::Over(None))
        {
            // Within the lock: who finds that it is over finds out why.
            *state = State::Over(match why {
                Some(why) => connection.end(why),
                None => connection.take_answer(),
            });
        }
        drop(state);
        let Wakers { caller, task: _ } = std::mem::take(&mut *self.berth.wakers());
        if let Some(caller) = caller {
            caller.wake();
        }
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// A thread that waits for the socket itself. What was told meanwhile is the task's again after it.
struct Reads<'a>(&'a Berth);

impl<'a> Reads<'a> {
    fn begin(berth: &'a Berth) -> Self {
        berth.readers.fetch_add(1, SeqCst);
        Self(berth)
    }
}

impl Drop for Reads<'_> {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, SeqCst) == 1 && self.0.has_news.load(SeqCst) {
            self.0.wake_task();
        }
    }
}

/// Somebody at work on a caller's behalf. If he panics, the task clears up.
struct Finish<'a>(&'a Berth);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.wake_task();
        }
    }
}
