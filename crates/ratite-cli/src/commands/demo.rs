//! `ratite demo`: a tiny guest in a real QEMU, from its launch to its end.
//!
//! Everything that it shows was said by QEMU or the guest, or measured, in this very run.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Exit;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::PassedFd;
use ratite::guest;
use ratite::qmp::EventFilter;
use serde_json::Value;
use serde_json::json;

use crate::args::Demo;
use crate::duration::shown;
use crate::output::Screen;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;

/// How long any one step may take before the demo gives up.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the machine has to end when the demo is interrupted.
const GRACE: Duration = Duration::from_secs(5);

/// What the guest is to repeat.
const WORDS: &str = "hello from outside";

/// How many bytes the guest floods its console with.
const FLOOD: usize = 256 << 10;

/// How wide a line is, beside its margin.
const WIDTH: usize = 68;

/// Shows what ratite does.
pub(crate) async fn demo(demo: &Demo, signals: &mut Signals) -> Result<(), Failure> {
    let mut screen = Screen::on_stdout();
    let title = format!("a guest of {} bytes in a real QEMU", guest::BOOT_SECTOR.len());
    screen.line("ratite", title).map_err(Failure::output)?;
    let config = configure(demo).map_err(Failure::System)?;
    let mut phases = Phases::start();
    let machine = tokio::select! {
        biased;
        signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
        launched = config.launch() => launched.map_err(Failure::Launch)?,
    };
    phases.end("launch to QMP greeting");

    let shown = tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        shown = show(&machine, &mut screen, &mut phases) => shown,
    };
    match shown {
        Ok(()) => Ok(()),
        Err(failure) => {
            // If stdout takes no more, that is what the failure says.
            let _unwritable = screen.close_line();
            Err(with_end(failure, &machine).await)
        }
    }
}

/// The machine that starts fastest: no devices but the serial port and the disk that holds the guest.
fn configure(demo: &Demo) -> io::Result<MachineConfig> {
    Ok(MachineConfig::new(&demo.qemu)
        .machine_type("pc")
        .accelerator("tcg")
        .console(ConsoleConfig::serial())
        .args(["-nodefaults", "-m", "4"])
        .args(["-drive", "file=/dev/fdset/1,format=raw,if=floppy,readonly=on"])
        .fd(PassedFd::in_set(guest::boot_sector()?, 1)))
}

type Step = Result<(), Failure>;

async fn show(machine: &Machine, screen: &mut Screen<io::Stdout>, phases: &mut Phases) -> Step {
    let console = machine.console().expect("the demo's machine is configured with a console");
    show_launch(machine, screen)?;
    expect(console, screen, &format!("{}\r\n", guest::READY)).await?;
    phases.end("boot to the guest's words");
    show_facts(machine, screen).await?;
    show_events(machine, screen).await?;
    talk(console, screen).await?;
    show_flood(console, screen).await?;
    phases.end("conversation");
    let exit = power_off(machine, console, screen).await?;
    phases.end("power-off to exit");
    show_end(machine, &exit, screen)?;
    show_phases(phases, screen)?;
    report::pass_on(&exit.log);
    Ok(())
}

fn show_launch(machine: &Machine, screen: &mut Screen<io::Stdout>) -> Step {
    for line in filled(&machine.command_line().to_string()) {
        let line = screen.paint().dim(&line);
        screen.line("launch", line).map_err(Failure::output)?;
    }
    let greeting = machine.client().map_err(during("read the greeting"))?.greeting();
    let version = greeting.map(|greeting| greeting.version.to_string());
    let line = format!(
        "QEMU {}, process {}, ready after {}",
        version.unwrap_or_else(|| "of an unknown version".into()),
        machine.pid(),
        shown(machine.launch_time()),
    );
    screen.line("launch", line).map_err(Failure::output)
}

/// A command line in lines that are not too long, broken before options.
fn filled(command_line: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (place, option) in command_line.split(" -").enumerate() {
        let option = if place == 0 { option.to_owned() } else { format!("-{option}") };
        match lines.last_mut() {
            Some(line) if line.len() + option.len() < WIDTH => *line += &format!(" {option}"),
            Some(_) => lines.push(format!("  {option}")),
            None => lines.push(option),
        }
    }
    lines
}

/// Waits for `text`, and shows all that the guest has written up to it.
async fn expect(console: &Console, screen: &mut Screen<io::Stdout>, text: &str) -> Step {
    let found = console.expect(text, LIMIT).await;
    let found = found.map_err(during("hear from the guest"))?;
    screen.console("console", &[found.before, found.matched].concat()).map_err(Failure::output)
}

/// Types a line at the guest's prompt, and waits until the guest has shown all of it.
async fn type_line(console: &Console, screen: &mut Screen<io::Stdout>, line: &str) -> Step {
    expect(console, screen, guest::PROMPT).await?;
    let typed = console.write(format!("{line}\r")).await;
    typed.map_err(during("type to the guest"))?;
    expect(console, screen, &format!("{line}\r\n")).await
}

async fn talk(console: &Console, screen: &mut Screen<io::Stdout>) -> Step {
    type_line(console, screen, &format!("echo {WORDS}")).await?;
    // The second time, it is the guest's own answer.
    expect(console, screen, &format!("{WORDS}\r\n")).await
}

async fn show_facts(machine: &Machine, screen: &mut Screen<io::Stdout>) -> Step {
    let status = ask(machine, "query-status", json!({})).await?;
    let machine_type = json!({ "path": "/machine", "property": "type" });
    let machine_type = ask(machine, "qom-get", machine_type).await?;
    let cpus = ask(machine, "query-cpus-fast", json!({})).await?;
    let memory = ask(machine, "query-memory-size-summary", json!({})).await?;
    let commands = ask(machine, "query-commands", json!({})).await?;
    let facts = [
        format!(
            "machine {} · accelerator {} · {} processor · {} MiB",
            text(&machine_type).trim_end_matches("-machine"),
            accelerator(machine, &commands).await?,
            count(&cpus),
            memory["base-memory"].as_u64().unwrap_or_default() >> 20,
        ),
        format!("status {} · {} QMP commands", text(&status["status"]), count(&commands)),
    ];
    for line in facts {
        screen.line("qmp", line).map_err(Failure::output)?;
    }
    Ok(())
}

async fn ask(machine: &Machine, command: &str, arguments: Value) -> Result<Value, Failure> {
    let answer = machine.cmd(command, arguments).await;
    answer.map_err(during("get an answer from QEMU"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

fn count(list: &Value) -> String {
    list.as_array().map_or(0, Vec::len).to_string()
}

/// What executes the guest's instructions. QEMU tells it outright only since 10.1.
async fn accelerator(machine: &Machine, commands: &Value) -> Result<String, Failure> {
    let knows = |name: &str| {
        let mut commands = commands.as_array().into_iter().flatten();
        commands.any(|command| command["name"] == name)
    };
    if knows("query-accelerators") {
        let answer = ask(machine, "query-accelerators", json!({})).await?;
        return Ok(text(&answer["enabled"]));
    }
    if ask(machine, "query-kvm", json!({})).await?["enabled"] == true {
        return Ok("kvm".into());
    }
    // Only TCG has a translator to tell about.
    let translates = knows("x-query-jit") && machine.cmd("x-query-jit", ()).await.is_ok();
    Ok(if translates { "tcg" } else { "not told" }.into())
}

async fn show_events(machine: &Machine, screen: &mut Screen<io::Stdout>) -> Step {
    for (command, event) in [("stop", "STOP"), ("cont", "RESUME")] {
        let sent = Instant::now();
        let arrival = async {
            let event = machine.event_wait(EventFilter::named(event), LIMIT).await;
            event.map(|event| (event, sent.elapsed()))
        };
        let (done, arrival) = tokio::join!(machine.cmd(command, ()), arrival);
        done.map_err(during("get an answer from QEMU"))?;
        let (event, after) = arrival.map_err(during("hear of an event"))?;
        let line = format!("{} {} after `{command}`", event.name(), shown(after));
        screen.line("event", line).map_err(Failure::output)?;
    }
    Ok(())
}

async fn show_flood(console: &Console, screen: &mut Screen<io::Stdout>) -> Step {
    type_line(console, screen, &format!("flood {FLOOD}")).await?;
    let started = Instant::now();
    // In the flood itself there is no carriage return.
    let flood = console.expect("\r\n", LIMIT).await;
    let flood = flood.map_err(during("drain the guest's flood"))?.before;
    let took = started.elapsed();
    if flood.len() != FLOOD || !is_flood(&flood) {
        return Err(surprise("the flood is not what the guest was to write"));
    }
    let line = format!(
        "{} KiB drained in {}, {:.1} MiB/s; each byte is the right one",
        flood.len() >> 10,
        shown(took),
        flood.len() as f64 / took.as_secs_f64() / f64::from(1 << 20),
    );
    screen.line("flood", line).map_err(Failure::output)
}

/// Whether these are the bytes that `guest/boot.s` promises.
fn is_flood(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(place, byte)| match place % 64 {
        63 => *byte == b'\n',
        place => usize::from(*byte) == usize::from(b'0') + place,
    })
}

/// Lets the guest power itself off, and waits for QEMU to go with it.
async fn power_off(
    machine: &Machine,
    console: &Console,
    screen: &mut Screen<io::Stdout>,
) -> Result<Exit, Failure> {
    type_line(console, screen, "off").await?;
    let event = machine.event_wait(EventFilter::named("SHUTDOWN"), LIMIT).await;
    let event = event.map_err(during("see the guest power off"))?;
    let line = format!("{} {}", event.name(), event.data());
    screen.line("event", line).map_err(Failure::output)?;
    machine.wait(LIMIT).await.map_err(Failure::Shutdown)
}

fn show_end(machine: &Machine, exit: &Exit, screen: &mut Screen<io::Stdout>) -> Step {
    let asked = match exit.asked {
        Asked::Guest => "the guest asked for it",
        Asked::Us | Asked::UsByForce => "ratite asked for it",
        Asked::TimeOver => "its time was over",
        Asked::Signal => "somebody sent it a signal",
        Asked::Nobody => "nobody asked for it",
    };
    let line = format!("{exit}: {asked}");
    screen.line("end", line).map_err(Failure::output)?;
    if Path::new("/proc").join(exit.pid.to_string()).exists() || machine.work_folder().exists() {
        return Err(surprise("the process or its work folder is still there"));
    }
    let line = format!("nothing is left of process {} and its work folder", exit.pid);
    screen.line("end", line).map_err(Failure::output)
}

fn show_phases(phases: &Phases, screen: &mut Screen<io::Stdout>) -> Step {
    let whole = phases.whole();
    for (name, took) in &phases.ended {
        let share = took.as_secs_f64() / whole.as_secs_f64();
        let bar = "━".repeat((share * 30.0).round() as usize);
        let line = format!("{name:<26} {:>8}  {}", shown(*took), screen.paint().green(&bar));
        screen.line("took", line.trim_end()).map_err(Failure::output)?;
    }
    let line = format!("{:<26} {:>8}", "all together", shown(whole));
    screen.line("took", line).map_err(Failure::output)
}

/// What took how long, one after the other.
struct Phases {
    since: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn start() -> Self {
        Self { since: Instant::now(), ended: Vec::new() }
    }

    /// Ends a phase; the next begins.
    fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.ended.push((name, now - self.since));
        self.since = now;
    }

    fn whole(&self) -> Duration {
        self.ended.iter().map(|(_, took)| *took).sum()
    }
}

/// Says what was under way when something failed.
fn during<E: Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Conversation { doing: doing.into(), source: Box::new(error), exit: None }
}

fn surprise(what: &'static str) -> Failure {
    during("show what was to be shown")(io::Error::other(what))
}

/// Ends the machine, and adds how it ended to what is known of a failure.
async fn with_end(failure: Failure, machine: &Machine) -> Failure {
    let end = machine.shutdown(GRACE).await;
    match failure {
        Failure::Signal { signal, .. } => Failure::Signal { signal, source: end.err() },
        Failure::Conversation { doing, source, .. } => {
            let exit = match end {
                Ok(exit) => Some(exit),
                Err(error) => error.exit().cloned(),
            };
            let exit = exit.map(Box::new);
            Failure::Conversation { doing, source, exit }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floods_pattern_is_checked() {
        let mut flood: Vec<u8> = (b'0'..b'0' + 63).chain([b'\n']).cycle().take(200).collect();
        assert!(is_flood(&flood));

        flood[130] += 1;

        assert!(!is_flood(&flood));
    }

    #[test]
    fn a_command_line_is_broken_before_options() {
        let lines = filled(&format!("qemu -a -b {} -c d", "x".repeat(WIDTH)));

        assert_eq!(lines, ["qemu -a".to_owned(), format!("  -b {}", "x".repeat(WIDTH)), "  -c d".into()]);
    }
}
