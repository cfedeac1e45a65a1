//! A guest that waits for commands: booted, or restored in each of the ways that there are.

use std::time::Duration;
use std::time::Instant;

use ratite::Machine;
use ratite::Pool;
use ratite::Spawn;

use crate::contenders;
use crate::guest;
use crate::measure;
use crate::results;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "template_96",
        title: "a Linux guest with 96 MiB of RAM (64 are too few for it to boot)",
        figures: &[RUNNING, ANSWER],
        contenders: &ways::<96>(),
        python: false,
        rounds: ROUNDS,
    },
    Scenario {
        name: "template_256",
        title: "the same with 256 MiB",
        figures: &[
            RUNNING,
            ANSWER.required(&[Required::ratio("pool", 0.025), Required::ratio("prepared", 0.025)]),
        ],
        contenders: &ways::<256>(),
        python: false,
        rounds: ROUNDS,
    },
    Scenario {
        name: "template_1024",
        title: "the same with 1024 MiB",
        figures: &[RUNNING, ANSWER],
        contenders: &ways::<1024>(),
        python: false,
        rounds: ROUNDS,
    },
];

const RUNNING: Figure = Figure::new("running_ms", "ms until it runs", Better::Less)
    .required(&[Required::value("pool", 15.0), Required::value("prepared", 15.0)]);

const ANSWER: Figure = Figure::new("answer_ms", "ms to its first answer", Better::Less).value();

/// A round takes half a minute.
const ROUNDS: Option<usize> = Some(2);

/// How often a sample restores the guest; it boots it once.
const TIMES: usize = 5;

const fn ways<const MIB: u32>() -> [Contender; 6] {
    [
        Contender { name: "cold-boot", sample: cold_boot::<MIB> },
        Contender { name: "loadvm", sample: loadvm::<MIB> },
        Contender { name: "stream", sample: stream::<MIB> },
        Contender { name: "mapped", sample: mapped::<MIB> },
        Contender { name: "pool", sample: pool::<MIB> },
        Contender { name: "prepared", sample: prepared::<MIB> },
    ]
}

fn cold_boot<const MIB: u32>() -> Result<Sample, Failure> {
    let config = guest::config(MIB);
    contenders::current_thread()?.block_on(async {
        let mut course = Course::default();
        let began = Instant::now();
        let machine = config.launch().await?;
        let running = began.elapsed();
        guest::prompted(&machine).await?;
        course.end(began, running, machine).await?;
        course.sample()
    })
}

fn loadvm<const MIB: u32>() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let config = guest::config_with_saved(MIB).await?;
        restored(async || Ok(config.launch().await?)).await
    })
}

fn stream<const MIB: u32>() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let template = guest::streamed(MIB).await?;
        restored(async || Ok(template.spawn().await?)).await
    })
}

fn mapped<const MIB: u32>() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let template = guest::mapped(MIB).await?;
        restored(async || Ok(template.spawn().await?)).await
    })
}

fn pool<const MIB: u32>() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async { taken(guest::mapped(MIB).await?.pool(1)?).await })
}

fn prepared<const MIB: u32>() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let template = guest::mapped(MIB).await?;
        taken(template.prepared_pool(1, Spawn::new(), guest::ready)?).await
    })
}

/// The pool is full whenever a machine is asked for.
async fn taken(pool: Pool) -> Result<Sample, Failure> {
    let mut course = Course::default();
    for _ in 0..times() {
        pool.filled().await;
        let began = Instant::now();
        let machine = pool.take().await?;
        course.end(began, began.elapsed(), machine).await?;
    }
    course.sample()
}

async fn restored(restore: impl AsyncFn() -> Result<Machine, Failure>) -> Result<Sample, Failure> {
    let mut course = Course::default();
    for _ in 0..times() {
        let began = Instant::now();
        let machine = restore().await?;
        course.end(began, began.elapsed(), machine).await?;
    }
    course.sample()
}

fn times() -> usize {
    if measure::is_quick() { 1 } else { TIMES }
}

/// How long it took until each machine ran, and until it answered.
#[derive(Default)]
struct Course {
    running: Vec<Duration>,
    answer: Vec<Duration>,
}

impl Course {
    /// A machine that was asked for at `began` ran after `running`, and now is to answer.
    async fn end(&mut self, began: Instant, running: Duration, machine: Machine) -> Result<(), Failure> {
        guest::answers(&machine).await?;
        self.answer.push(began.elapsed());
        self.running.push(running);
        machine.kill().await?;
        Ok(())
    }

    fn sample(&self) -> Result<Sample, Failure> {
        let median = |times: &[Duration]| {
            results::median(times.iter().map(|time| time.as_secs_f64() * 1e3)).ok_or("nothing was measured")
        };
        Ok(vec![("running_ms", median(&self.running)?), ("answer_ms", median(&self.answer)?)])
    }
}
