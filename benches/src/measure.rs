//! Clocks, percentiles, the memory and the cores of this process.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::time::Duration;
use std::time::Instant;

use crate::scenario::Failure;
use crate::scenario::Sample;

/// How long a sample should take that does its work again and again: long enough to mean something.
pub(crate) fn sample_time() -> Duration {
    Duration::from_millis(if is_quick() { 50 } else { 300 })
}

/// Whether this is only to see that everything works (`--quick`).
pub(crate) fn is_quick() -> bool {
    std::env::var_os("YARDSTICK_QUICK").is_some()
}

/// The CPU time of all threads of this process, those of its children not included.
pub(crate) fn cpu_time() -> Duration {
    // SAFETY: the kernel fills what is given, and this clock exists.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Times of the same thing, done again and again.
#[derive(Debug)]
pub(crate) struct Laps {
    laps: Vec<Duration>,
    clock: Clock,
    until: Duration,
}

impl Laps {
    /// Begins now, and goes on as long as a sample should take.
    pub(crate) fn begin() -> Self {
        Self { laps: Vec::with_capacity(1 << 16), until: sample_time(), clock: Clock::start() }
    }

    /// When the next lap begins; `None` once the sample has taken long enough.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        let now = Instant::now();
        (now - self.clock.start < self.until).then_some(now)
    }

    /// Counts a lap that began at `began` and ends now.
    pub(crate) fn end(&mut self, began: Instant) {
        self.laps.push(began.elapsed());
    }

    /// Median and 99th percentile in µs, and the CPU time each in µs.
    pub(crate) fn sample(mut self) -> Sample {
        let cpu = cpu_time() - self.clock.cpu;
        let count = self.laps.len();
        self.laps.sort_unstable();
        let at = |share: usize| self.laps.get(count * share / 100).map_or(f64::NAN, |lap| micros(*lap));
        vec![("wall_us", at(50)), ("p99_us", at(99)), ("cpu_us", micros(cpu) / count as f64)]
    }
}

/// How much is done in the time that a sample takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    cpu: Duration,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self { cpu: cpu_time(), start: Instant::now() }
    }

    /// Whether a sample has not taken long enough yet.
    pub(crate) fn goes_on(&self) -> bool {
        self.start.elapsed() < sample_time()
    }

    /// That `count` were done since the start: how many a second, and the CPU time each in µs.
    pub(crate) fn rate(&self, count: usize) -> Sample {
        let (wall, cpu) = (self.start.elapsed(), cpu_time() - self.cpu);
        let count = count as f64;
        vec![("per_s", count / wall.as_secs_f64()), ("cpu_us", micros(cpu) / count)]
    }
}

/// `duration` in µs.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// How many bytes of memory this process has for itself: nothing of files, nothing that is shared.
pub(crate) fn own_memory() -> Result<f64, Failure> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kilobytes.ok_or("the kernel does not say how much memory is anonymous")? * 1024.0)
}

/// The cores that this process may run on.
pub(crate) fn cores() -> Result<Vec<usize>, Failure> {
    // SAFETY: the kernel fills what is given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Err(io::Error::last_os_error().into());
        }
        set
    };
    // SAFETY: the number is within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Lets a process run on one core alone: 0 is this one, with the threads that it starts from now on.
pub(crate) fn pin(pid: c_int, core: usize) -> Result<(), Failure> {
    // SAFETY: an empty set is a set, and the kernel only reads it.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(pid, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}
