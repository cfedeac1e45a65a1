//! Machines one after the other: launched, ended and reaped; launched and failing; launched and killed.

use std::ffi::OsStr;
use std::future::Future;
use std::io::Read;
use std::process::Stdio;

use ratite::MachineConfig;
use ratite::blocking;
use tokio::io::AsyncReadExt;

use crate::contenders;
use crate::contenders::machines::GRACE;
use crate::contenders::machines::QapiMachine;
use crate::contenders::machines::Which;
use crate::floor::process::Image;
use crate::measure::Laps;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "launch_fake",
        title: "launch, quit and reap, a peer",
        figures: &[
            Figure::new("wall_us", "µs a cycle, median", Better::Less)
                .required(&[Required::ratio("ratite-async", 1.2), Required::ratio("ratite-blocking", 1.2)]),
            Figure::new("p99_us", "µs, 99th percentile", Better::Less),
            Figure::new("cpu_us", "CPU µs of ours a cycle", Better::Less)
                .required(&[Required::ratio("ratite-async", 2.0), Required::ratio("ratite-blocking", 2.0)]),
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(Which::Peer("")) },
            Contender { name: "ratite-async", sample: || ratite_async(Which::Peer("oob")) },
            Contender { name: "ratite-async-mt", sample: || ratite_async_mt(Which::Peer("oob")) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(Which::Peer("oob")) },
            Contender { name: "qapi", sample: || qapi(Which::Peer("")) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "launch_real",
        title: "launch, quit and reap, real QEMU",
        figures: &[
            Figure::new("wall_us", "µs a cycle, median", Better::Less)
                .required(&[Required::ratio("ratite-async", 1.04), Required::ratio("ratite-blocking", 1.04)]),
            Figure::new("cpu_us", "CPU µs of ours a cycle", Better::Less),
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(Which::Real) },
            Contender { name: "ratite-async", sample: || ratite_async(Which::Real) },
            Contender { name: "ratite-async-mt", sample: || ratite_async_mt(Which::Real) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(Which::Real) },
            Contender { name: "qapi", sample: || qapi(Which::Real) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "launch_failure",
        title: "a launch that fails, told with the last words",
        figures: &[Figure::new("wall_us", "µs, median", Better::Less)
            .required(&[Required::ratio("ratite-async", 1.15), Required::ratio("ratite-blocking", 1.15)])],
        contenders: &[
            Contender { name: "floor", sample: floor_failure },
            Contender { name: "ratite-async", sample: ratite_async_failure },
            Contender { name: "ratite-blocking", sample: ratite_blocking_failure },
            Contender { name: "qapi", sample: qapi_failure },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "killed",
        title: "killed and reaped",
        figures: &[Figure::new("wall_us", "µs, median", Better::Less)
            .required(&[Required::ratio("ratite-async", 1.1), Required::ratio("ratite-blocking", 1.1)])],
        contenders: &[
            Contender { name: "floor", sample: floor_killed },
            Contender { name: "ratite-async", sample: ratite_async_killed },
            Contender { name: "ratite-blocking", sample: ratite_blocking_killed },
            Contender { name: "qapi", sample: qapi_killed },
        ],
        python: true,
        rounds: None,
    },
];

/// What a peer plays that is told to fail.
const FAIL: Which = Which::Peer("fail");

/// How often something is done before it is measured: what is made once is not a part of it.
const WARM_UP: usize = 3;

fn laps(mut cycle: impl FnMut() -> Result<(), Failure>) -> Result<Sample, Failure> {
    (0..WARM_UP).try_for_each(|_| cycle())?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        cycle()?;
        laps.end(began);
    }
    Ok(laps.sample())
}

async fn laps_async<F: Future<Output = Result<(), Failure>>>(
    cycle: impl Fn() -> F,
) -> Result<Sample, Failure> {
    for _ in 0..WARM_UP {
        cycle().await?;
    }
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        cycle().await?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn floor(which: Which) -> Result<Sample, Failure> {
    let image = Image::new(&which.program()?, which.play())?;
    laps(|| {
        let machine = image.start(None)?;
        machine.negotiate()?;
        machine.quit()?;
        match machine.reap()? {
            0 => Ok(()),
            status => Err(format!("it ended with {status}").into()),
        }
    })
}

async fn ratite(config: MachineConfig) -> Result<Sample, Failure> {
    laps_async(async || {
        config.launch().await?.shutdown(GRACE).await?;
        Ok(())
    })
    .await
}

fn ratite_async(which: Which) -> Result<Sample, Failure> {
    contenders::current_thread()?.block_on(ratite(which.config()?))
}

fn ratite_async_mt(which: Which) -> Result<Sample, Failure> {
    let runtime = contenders::multi_thread()?;
    runtime.block_on(runtime.spawn(ratite(which.config()?)))?
}

fn ratite_blocking(which: Which) -> Result<Sample, Failure> {
    let config = which.config()?;
    laps(|| {
        blocking::Machine::launch(&config)?.shutdown(GRACE)?;
        Ok(())
    })
}

fn qapi(which: Which) -> Result<Sample, Failure> {
    let program = which.program()?;
    contenders::current_thread()?.block_on(laps_async(async || {
        QapiMachine::launch(&program, which.play()).await?.shutdown(GRACE).await
    }))
}

fn floor_failure() -> Result<Sample, Failure> {
    let image = Image::new(&FAIL.program()?, FAIL.play())?;
    laps(|| {
        let (mut errors, theirs) = std::io::pipe()?;
        let machine = image.start(Some(&theirs.into()))?;
        machine.read()?;
        let status = machine.reap()?;
        let mut words = String::new();
        errors.read_to_string(&mut words)?;
        has_failed(status != 0 && words.contains("told to fail"))
    })
}

fn ratite_async_failure() -> Result<Sample, Failure> {
    let config = FAIL.config()?;
    contenders::current_thread()?.block_on(laps_async(async || {
        let told = config.launch().await.err().map(|error| format!("{error:?}"));
        has_failed(told.is_some_and(|told| told.contains("told to fail")))
    }))
}

fn ratite_blocking_failure() -> Result<Sample, Failure> {
    let config = FAIL.config()?;
    laps(|| {
        let told = blocking::Machine::launch(&config).err().map(|error| format!("{error:?}"));
        has_failed(told.is_some_and(|told| told.contains("told to fail")))
    })
}

fn qapi_failure() -> Result<Sample, Failure> {
    let program = FAIL.program()?;
    contenders::current_thread()?.block_on(laps_async(async || has_failed(qapi_fails(&program).await?)))
}

async fn qapi_fails(program: &OsStr) -> Result<bool, Failure> {
    let (mut child, socket) = QapiMachine::start(program, FAIL.play(), Stdio::piped())?;
    let failed = contenders::qapi::begin(socket).await.is_err();
    let mut words = String::new();
    child.stderr.take().ok_or("its stderr is piped")?.read_to_string(&mut words).await?;
    Ok(failed && !child.wait().await?.success() && words.contains("told to fail"))
}

fn has_failed(failed: bool) -> Result<(), Failure> {
    if failed { Ok(()) } else { Err("the failure was not told".into()) }
}

fn floor_killed() -> Result<Sample, Failure> {
    let which = Which::Peer("");
    let image = Image::new(&which.program()?, which.play())?;
    let mut laps = Laps::begin();
    while laps.next().is_some() {
        let machine = image.start(None)?;
        machine.negotiate()?;
        let began = std::time::Instant::now();
        machine.kill();
        machine.reap()?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn ratite_async_killed() -> Result<Sample, Failure> {
    let config = Which::Peer("oob").config()?;
    contenders::current_thread()?.block_on(async {
        let mut laps = Laps::begin();
        while laps.next().is_some() {
            let machine = config.launch().await?;
            let began = std::time::Instant::now();
            machine.kill().await?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}

fn ratite_blocking_killed() -> Result<Sample, Failure> {
    let config = Which::Peer("oob").config()?;
    let mut laps = Laps::begin();
    while laps.next().is_some() {
        let machine = blocking::Machine::launch(&config)?;
        let began = std::time::Instant::now();
        machine.kill()?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn qapi_killed() -> Result<Sample, Failure> {
    let program = Which::Peer("").program()?;
    contenders::current_thread()?.block_on(async {
        let mut laps = Laps::begin();
        while laps.next().is_some() {
            let mut machine = QapiMachine::launch(&program, "").await?;
            let began = std::time::Instant::now();
            machine.child.kill().await?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}
