//! A machine that reacts neither to `quit` nor to SIGTERM: ended by force once its grace is over.

use std::time::Duration;
use std::time::Instant;

use ratite::blocking;

use crate::contenders;
use crate::contenders::machines::QapiMachine;
use crate::contenders::machines::Which;
use crate::floor::process::Image;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "hung_grace",
    title: "a hung machine, ended after a grace of 1 s",
    figures: &[Figure::new("over_ms", "ms over the grace", Better::Less)
        .required(&[Required::value("ratite-async", 10.0), Required::value("ratite-blocking", 10.0)])],
    contenders: &[
        Contender { name: "floor", sample: floor },
        Contender { name: "ratite-async", sample: ratite_async },
        Contender { name: "ratite-blocking", sample: ratite_blocking },
        Contender { name: "qapi", sample: qapi },
    ],
    python: true,
    rounds: None,
}];

const HUNG: Which = Which::Peer("hang");

const GRACE: Duration = Duration::from_secs(1);

fn over(began: Instant) -> Sample {
    vec![("over_ms", (began.elapsed().as_secs_f64() - GRACE.as_secs_f64()) * 1e3)]
}

fn floor() -> Result<Sample, Failure> {
    let machine = Image::new(&HUNG.program()?, HUNG.play())?.start(None)?;
    machine.negotiate()?;
    let began = Instant::now();
    machine.quit()?;
    if machine.ends_within(i32::try_from(GRACE.as_millis())?)? {
        return Err("it ended".into());
    }
    machine.kill();
    machine.reap()?;
    Ok(over(began))
}

fn ratite_async() -> Result<Sample, Failure> {
    let config = HUNG.config()?;
    contenders::current_thread()?.block_on(async {
        let machine = config.launch().await?;
        let began = Instant::now();
        machine.shutdown(GRACE).await.err().ok_or("it ended")?;
        Ok(over(began))
    })
}

fn ratite_blocking() -> Result<Sample, Failure> {
    let machine = blocking::Machine::launch(&HUNG.config()?)?;
    let began = Instant::now();
    machine.shutdown(GRACE).err().ok_or("it ended")?;
    Ok(over(began))
}

fn qapi() -> Result<Sample, Failure> {
    let program = HUNG.program()?;
    contenders::current_thread()?.block_on(async {
        let machine = QapiMachine::launch(&program, HUNG.play()).await?;
        let began = Instant::now();
        machine.shutdown(GRACE).await?;
        Ok(over(began))
    })
}
