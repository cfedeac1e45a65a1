//! What templates are for: many machines at once, and a file of tests of which each has a fresh machine.

use std::fs;
use std::time::Instant;

use futures::TryStreamExt;
use futures::future::try_join_all;
use futures::stream;
use ratite::Machine;
use ratite::Template;

use crate::contenders;
use crate::guest;
use crate::measure;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "spawns_at_once",
        title: "32 of them with 256 MiB at once",
        figures: &[
            Figure::new("all_s", "s until all have answered", Better::Less).value(),
            Figure::new("memory_mb", "MB of memory of all QEMUs", Better::Less)
                .value()
                .required(&[Required::ratio("mapped", 0.25)]),
        ],
        contenders: &[
            Contender { name: "cold-boot", sample: boots_at_once },
            Contender { name: "mapped", sample: spawns_at_once },
        ],
        python: false,
        // A minute on two cores.
        rounds: Some(1),
    },
    Scenario {
        name: "spawns_twenty",
        title: "20 tests, each on a fresh machine, on each core one at a time, with the making of the template; cold-boot: 2 boots, one after the other",
        figures: &[Figure::new("all_s", "s for all", Better::Less)
            .value()
            .required(&[Required::ratio("mapped", 1.0)])],
        contenders: &[
            Contender { name: "cold-boot", sample: two_boots },
            Contender { name: "mapped", sample: twenty_spawned },
            Contender { name: "pool", sample: twenty_from_pool },
        ],
        python: false,
        rounds: Some(2),
    },
];

const AT_ONCE: usize = 32;

const TESTS: usize = 20;

const MIB: u32 = 256;

fn boots_at_once() -> Result<Sample, Failure> {
    let config = guest::config(MIB);
    contenders::current_thread()?.block_on(at_once(async || {
        let machine = config.launch().await?;
        guest::prompted(&machine).await?;
        Ok(machine)
    }))
}

fn spawns_at_once() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let template = guest::mapped(MIB).await?;
        at_once(async || Ok(template.spawn().await?)).await
    })
}

async fn at_once(begin: impl AsyncFn() -> Result<Machine, Failure>) -> Result<Sample, Failure> {
    let began = Instant::now();
    let answered = async || {
        let machine = begin().await?;
        guest::answers(&machine).await?;
        Ok::<_, Failure>(machine)
    };
    let machines = try_join_all((0..AT_ONCE).map(|_| answered())).await?;
    let all = began.elapsed().as_secs_f64();
    let memory = machines.iter().map(|machine| share_of_memory(machine.pid())).sum::<Result<f64, _>>()?;
    try_join_all(machines.iter().map(Machine::kill)).await?;
    Ok(vec![("all_s", all), ("memory_mb", memory / 1e6)])
}

/// How many bytes of memory a process takes: what it shares with others is divided by their number.
fn share_of_memory(pid: u32) -> Result<f64, Failure> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kilobytes.ok_or("the kernel does not say how much memory a process takes")? * 1024.0)
}

fn two_boots() -> Result<Sample, Failure> {
    let config = guest::config(MIB);
    contenders::current_thread()?.block_on(async {
        let began = Instant::now();
        for _ in 0..2 {
            let machine = config.launch().await?;
            guest::prompted(&machine).await?;
            machine.kill().await?;
        }
        Ok(vec![("all_s", began.elapsed().as_secs_f64())])
    })
}

fn twenty_spawned() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let began = Instant::now();
        let template = made().await?;
        twenty_tests(began, async || Ok(template.spawn().await?)).await
    })
}

fn twenty_from_pool() -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(async {
        let began = Instant::now();
        let pool = made().await?.pool(2)?;
        twenty_tests(began, async || Ok(pool.take().await?)).await
    })
}

/// A template that is nobody else's.
async fn made() -> Result<Template, Failure> {
    let machine = guest::config(MIB).freezable().launch().await?;
    guest::prompted(&machine).await?;
    Ok(machine.freeze().await?)
}

async fn twenty_tests(
    began: Instant,
    machine: impl AsyncFn() -> Result<Machine, Failure>,
) -> Result<Sample, Failure> {
    let test = async || {
        let machine = machine().await?;
        guest::answers(&machine).await?;
        machine.kill().await?;
        Ok::<_, Failure>(())
    };
    // As the runners of tests have it.
    let cores = measure::cores()?.len();
    stream::iter((0..TESTS).map(|_| Ok(test())))
        .try_buffer_unordered(cores)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    Ok(vec![("all_s", began.elapsed().as_secs_f64())])
}
