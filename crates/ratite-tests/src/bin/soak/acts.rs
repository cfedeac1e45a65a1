//! What is played: each act launches a machine, does one thing to it, and checks that what must come of it did.

use std::time::Duration;

use ratite::Asked;
use ratite::ConsoleConfig;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::MachineError;
use ratite::Timeouts;
use ratite::qmp::Command;
use ratite::qmp::EventFilter;
use ratite::qmp::ExecuteError;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::send_signal;
use rustix::process::Signal;
use serde_json::json;

use crate::tally::Tally;

/// Against hangs only: 32 machines share few cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator of numbers (xorshift64*), so that a run can be repeated from its seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Plays one act, whichever the dice choose.
pub(crate) async fn any(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    match dice.below(14) {
        0 | 1 => quiet(stage, tally).await,
        2 => real(stage, tally).await,
        3 => commands(stage, tally, dice).await,
        4 => events(stage, tally, dice).await,
        5 => console(stage, tally, dice).await,
        6 => killed_from_outside(stage, tally).await,
        7 => stopped(stage, tally).await,
        8 => dies_of_a_command(stage, tally).await,
        9 => refused_launch(stage, tally, dice).await,
        10 => cancelled_launch(stage, tally, dice).await,
        11 => dropped(stage, tally).await,
        12 => wrapped(stage, tally).await,
        _ => cancelled_commands(stage, tally, dice).await,
    }
}

async fn launched(config: MachineConfig, tally: &Tally) -> Option<Machine> {
    tally.add("launches", 1);
    let limits = Timeouts { connect: PATIENCE, command: PATIENCE, ..Timeouts::default() };
    match config.timeouts(limits).launch().await {
        Ok(machine) => Some(machine),
        Err(error) => {
            tally.lost(&format!("a launch: {}", error.kind()));
            None
        }
    }
}

async fn ended(machine: &Machine, tally: &Tally) {
    match machine.shutdown(PATIENCE).await {
        Ok(exit) if exit.success() && exit.asked == Asked::Us => tally.add("clean ends", 1),
        Ok(exit) => tally.lost(&format!("an end: {exit}, asked by {:?}", exit.asked)),
        Err(error) => tally.lost(&format!("an end: {error}")),
    }
}

/// Nothing out of the way.
pub(crate) async fn quiet(stage: &Stage, tally: &Tally) {
    let Some(machine) = launched(stage.fake(&[]), tally).await else {
        return;
    };
    ended(&machine, tally).await;
}

async fn real(stage: &Stage, tally: &Tally) {
    let Some(machine) = launched(stage.real(), tally).await else {
        return;
    };
    match machine.cmd("query-status", ()).await {
        Ok(_) => tally.add("commands answered", 1),
        Err(error) => tally.lost(&format!("a reply of a real QEMU: {error}")),
    }
    ended(&machine, tally).await;
}

async fn commands(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    let Some(machine) = launched(stage.fake(&[]), tally).await else {
        return;
    };
    for _ in 0..200 {
        let number = dice.below(1 << 30);
        match machine.cmd("fake-echo", json!({ "n": number })).await {
            Ok(echo) if echo["n"] == number => tally.add("commands answered", 1),
            Ok(_) => tally.lost("a reply: it was another command's"),
            Err(error) => tally.lost(&format!("a reply: {error}")),
        }
    }
    ended(&machine, tally).await;
}

/// A flood of events, with commands in between; every one must arrive, in order.
async fn events(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    let Some(machine) = launched(stage.fake(&[]), tally).await else {
        return;
    };
    let count = 1 + dice.below(10_000);
    let Ok(flood) = machine.listen(EventFilter::named("FLOOD")) else {
        return tally.lost("a listener");
    };
    if let Err(error) = machine.cmd("fake-events", json!({ "name": "FLOOD", "count": count })).await {
        return tally.lost(&format!("the reply to a flood: {error}"));
    }
    for expected in 0..count {
        match flood.next(PATIENCE).await {
            Ok(event) if event.data()["seq"] == expected => {}
            Ok(_) => return tally.lost("the order of events"),
            Err(error) => return tally.lost(&format!("an event: {error}")),
        }
    }
    tally.add("events delivered", count);
    ended(&machine, tally).await;
}

/// A flood on the console that nobody reads while it comes; none of its bytes may be missing, or stop the machine.
async fn console(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    let config = stage.fake(&[]).console(ConsoleConfig::serial().history(1 << 20));
    let Some(machine) = launched(config, tally).await else {
        return;
    };
    let bytes = 1 + dice.below(16 << 20);
    if let Err(error) = machine.cmd("fake-console", json!({ "bytes": bytes })).await {
        return tally.lost(&format!("the reply to a console flood: {error}"));
    }
    ended(&machine, tally).await;
    match machine.console().map(ratite::Console::bytes_seen) {
        Some(seen) if seen == bytes => tally.add("console bytes drained", bytes),
        seen => tally.lost(&format!("console bytes: {seen:?} of {bytes}")),
    }
}

async fn killed_from_outside(stage: &Stage, tally: &Tally) {
    let Some(machine) = launched(stage.fake(&[]), tally).await else {
        return;
    };
    send_signal(machine.pid(), Signal::KILL);
    tally.add("faults: killed from outside", 1);
    match machine.wait(PATIENCE).await {
        Ok(exit) if exit.status.signal() == Some(9) && exit.asked == Asked::Signal => {}
        other => tally.lost(&format!("the cause of a foreign SIGKILL: {other:?}")),
    }
}

async fn stopped(stage: &Stage, tally: &Tally) {
    let Some(machine) = launched(stage.fake(&[]), tally).await else {
        return;
    };
    send_signal(machine.pid(), Signal::STOP);
    tally.add("faults: stopped by SIGSTOP", 1);
    match machine.shutdown(Duration::from_millis(50)).await {
        Err(error) if error.exit().is_some_and(|exit| exit.asked == Asked::TimeOver) => {}
        other => tally.lost(&format!("the end of a stopped machine: {other:?}")),
    }
}

async fn dies_of_a_command(stage: &Stage, tally: &Tally) {
    let Some(machine) = launched(stage.fake(&["abort-on=fake-echo"]), tally).await else {
        return;
    };
    tally.add("faults: aborts on a command", 1);
    match machine.cmd("fake-echo", ()).await {
        Err(MachineError::Exited { exit, .. }) if exit.signal() == Some(6) => {}
        other => tally.lost(&format!("the cause of an abort: {other:?}")),
    }
}

async fn refused_launch(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    let faults =
        ["garbage-greeting", "exit-before-monitor=3", "close-before-greeting", "nego-error", "silent"];
    let fault = faults[usize::try_from(dice.below(faults.len() as u64)).unwrap_or(0)];
    tally.add("faults: refused launches", 1);
    let limits = Timeouts { connect: Duration::from_millis(200), ..Timeouts::default() };
    match stage.fake(&[fault]).timeouts(limits).launch().await {
        Ok(_) => tally.lost(&format!("the failure of a launch with `{fault}`")),
        // On a busy machine 200 ms may be over before the fault shows.
        Err(error) => match (fault, error.kind()) {
            (_, LaunchErrorKind::TimedOut { .. })
            | ("garbage-greeting" | "nego-error" | "close-before-greeting", LaunchErrorKind::Qmp(_))
            | ("exit-before-monitor=3", LaunchErrorKind::Exited(_)) => {}
            (_, kind) => tally.lost(&format!("the cause of a launch with `{fault}`: {kind}")),
        },
    }
}

async fn cancelled_launch(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    tally.add("faults: cancelled launches", 1);
    let config = stage.fake(&[]);
    let patience = Duration::from_micros(dice.below(5_000));
    // Whatever it had come to by then is gone, or is dropped here.
    drop(tokio::time::timeout(patience, config.launch()).await);
}

async fn dropped(stage: &Stage, tally: &Tally) {
    let Some(machine) = launched(stage.fake(&["ignore-sigterm"]), tally).await else {
        return;
    };
    tally.add("faults: dropped while running", 1);
    drop(machine);
}

async fn wrapped(stage: &Stage, tally: &Tally) {
    let config = stage.fake(&["spawn-child-new-group"]).wrapper(["sh", "-c", r#""$@"; true"#, "sh"]);
    let Some(machine) = launched(config, tally).await else {
        return;
    };
    tally.add("faults: killed with a wrapper and a child in another group", 1);
    match machine.kill().await {
        Ok(exit) if exit.asked == Asked::UsByForce => {}
        other => tally.lost(&format!("the end of a wrapped machine: {other:?}")),
    }
}

async fn cancelled_commands(stage: &Stage, tally: &Tally, dice: &mut Dice) {
    let Some(machine) = launched(stage.fake(&[]), tally).await else {
        return;
    };
    for _ in 0..20 {
        let patience = Duration::from_micros(dice.below(300));
        drop(tokio::time::timeout(patience, machine.cmd("fake-echo", json!({ "n": "cancelled" }))).await);
        tally.add("faults: cancelled commands", 1);
        let never = Command::new("fake-never").limit(Duration::from_millis(1));
        match machine.qmp(never).await {
            Err(MachineError::Command(ExecuteError::TimedOut(_))) => {
                tally.add("faults: commands over their limit", 1);
            }
            other => tally.lost(&format!("the limit of a command: {other:?}")),
        }
        match machine.cmd("fake-echo", json!({ "n": 1 })).await {
            Ok(echo) if echo["n"] == 1 => tally.add("commands answered", 1),
            other => tally.lost(&format!("the reply after a cancelled command: {other:?}")),
        }
    }
    ended(&machine, tally).await;
}
