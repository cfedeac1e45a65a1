//! Many machines at once: how long they take, and what each of them costs while all of them run.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use futures::future::try_join_all;
use ratite::MachineConfig;
use ratite::blocking;

use crate::contenders;
use crate::contenders::machines::GRACE;
use crate::contenders::machines::QapiMachine;
use crate::contenders::machines::Which;
use crate::floor::process::Image;
use crate::floor::process::RawMachine;
use crate::measure;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "many_machines",
    title: "64 machines at once",
    figures: &[
        Figure::new("wall_ms", "ms for all", Better::Less)
            .required(&[Required::ratio("ratite-async", 1.25), Required::ratio("ratite-async-mt", 1.25)]),
        Figure::new("cpu_ms", "CPU ms of ours for all", Better::Less)
            .required(&[Required::ratio("ratite-async", 2.0), Required::ratio("ratite-async-mt", 2.0)]),
        Figure::new("memory_kb", "KB of memory a machine", Better::Less).required(&[
            Required::value("ratite-async", 16.0),
            Required::value("ratite-async-mt", 16.0),
            Required::value("ratite-blocking", 16.0),
        ]),
        Figure::new("threads", "threads more than with one", Better::Less).required(&[
            Required::value("ratite-async", 0.0),
            Required::value("ratite-async-mt", 0.0),
            Required::value("ratite-blocking", 0.0),
        ]),
    ],
    contenders: &[
        Contender { name: "floor", sample: floor },
        Contender { name: "ratite-async", sample: ratite_async },
        Contender { name: "ratite-async-mt", sample: ratite_async_mt },
        Contender { name: "ratite-blocking", sample: ratite_blocking },
        Contender { name: "qapi", sample: qapi },
    ],
    python: true,
    rounds: None,
}];

const MACHINES: usize = 64;

/// What is there before the machines; the clocks stand still while it is looked at again.
struct Course {
    memory: f64,
    threads: usize,
    cpu: Duration,
    began: Instant,
}

/// What all of them cost while they run.
struct Half {
    memory: f64,
    threads: f64,
    cpu: Duration,
    wall: Duration,
}

impl Course {
    fn begin() -> Result<Self, Failure> {
        let (memory, threads) = (measure::own_memory()?, threads()?);
        Ok(Self { memory, threads, cpu: measure::cpu_time(), began: Instant::now() })
    }

    /// All of them run.
    fn half(self) -> Result<(Half, Self), Failure> {
        let (wall, cpu) = (self.began.elapsed(), measure::cpu_time() - self.cpu);
        let memory = (measure::own_memory()? - self.memory) / 1024.0 / MACHINES as f64;
        let threads = threads()? as f64 - self.threads as f64;
        Ok((Half { memory, threads, cpu, wall }, Self::begin()?))
    }

    fn end(self, half: &Half) -> Sample {
        let wall = half.wall + self.began.elapsed();
        let cpu = half.cpu + (measure::cpu_time() - self.cpu);
        vec![
            ("wall_ms", wall.as_secs_f64() * 1e3),
            ("cpu_ms", cpu.as_secs_f64() * 1e3),
            ("memory_kb", half.memory),
            ("threads", half.threads),
        ]
    }
}

fn threads() -> Result<usize, Failure> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

fn floor() -> Result<Sample, Failure> {
    let image = Image::new(&Which::Peer("").program()?, "")?;
    let course = Course::begin()?;
    let machines = (0..MACHINES).map(|_| image.start(None)).collect::<Result<Vec<_>, _>>()?;
    machines.iter().try_for_each(RawMachine::negotiate)?;
    let (half, course) = course.half()?;
    machines.iter().try_for_each(RawMachine::quit)?;
    for machine in machines {
        machine.reap()?;
    }
    Ok(course.end(&half))
}

async fn ratite(config: MachineConfig) -> Result<Sample, Failure> {
    config.launch().await?.shutdown(GRACE).await?;
    let course = Course::begin()?;
    let machines = try_join_all((0..MACHINES).map(|_| config.launch())).await?;
    let (half, course) = course.half()?;
    try_join_all(machines.iter().map(|machine| machine.shutdown(GRACE))).await?;
    Ok(course.end(&half))
}

fn ratite_async() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(ratite(Which::Peer("oob").config()?))
}

fn ratite_async_mt() -> Result<Sample, Failure> {
    let runtime = contenders::multi_thread()?;
    runtime.block_on(runtime.spawn(ratite(Which::Peer("oob").config()?)))?
}

/// With a thread for each launch and each end, as such a program has; they are gone when threads are counted.
fn ratite_blocking() -> Result<Sample, Failure> {
    let config = Which::Peer("oob").config()?;
    blocking::Machine::launch(&config)?.shutdown(GRACE)?;
    let course = Course::begin()?;
    let machines = std::thread::scope(|scope| {
        let launches: Vec<_> =
            (0..MACHINES).map(|_| scope.spawn(|| blocking::Machine::launch(&config))).collect();
        let joined = launches.into_iter().map(|launch| launch.join().map_err(|_| "a launch panicked".into()));
        joined.map(|launch: Result<_, Failure>| Ok(launch??)).collect::<Result<Vec<_>, Failure>>()
    })?;
    let (half, course) = course.half()?;
    std::thread::scope(|scope| {
        let ends: Vec<_> = machines.iter().map(|machine| scope.spawn(|| machine.shutdown(GRACE))).collect();
        let joined = ends.into_iter().map(|end| end.join().map_err(|_| "an end panicked".into()));
        joined.into_iter().try_for_each(|end: Result<_, Failure>| end?.map(drop).map_err(Failure::from))
    })?;
    Ok(course.end(&half))
}

fn qapi() -> Result<Sample, Failure> {
    let program = Which::Peer("").program()?;
    contenders::current_thread()?.block_on(async {
        QapiMachine::launch(&program, "").await?.shutdown(GRACE).await?;
        let course = Course::begin()?;
        let machines = try_join_all((0..MACHINES).map(|_| QapiMachine::launch(&program, ""))).await?;
        let (half, course) = course.half()?;
        try_join_all(machines.into_iter().map(|machine| machine.shutdown(GRACE))).await?;
        Ok(course.end(&half))
    })
}
