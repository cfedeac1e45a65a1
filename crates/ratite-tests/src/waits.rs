//! Every call on a running machine that waits, each to be tried on a QEMU that gives it nothing.

use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ratite::Button;
use ratite::Layout;
use ratite::Machine;
use ratite::Picture;
use ratite::Tolerance;
use ratite::blocking;
use ratite::qmp::Command;
use ratite::qmp::EventFilter;
use ratite::qmp::within;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::scenario::AT_ONCE;
use crate::scenario::chain;

/// How much a console does not take at once.
const LARGE: usize = 8 << 20;

/// A call that waits, and what its error says; nothing if it succeeded.
pub type Wait = (&'static str, JoinHandle<Option<String>>);

/// What the error of a call says.
pub type Said = (&'static str, String);

/// Every wait on `machine`, each in a task of its own.
///
/// What has a limit of its own has `limit`; the others have the limits that the machine was launched with.
///
/// # Panics
/// If the machine lacks a monitor, a console or qtest.
pub fn every_wait(machine: &Arc<Machine>, limit: Duration) -> Vec<Wait> {
    macro_rules! waits {
        ($machine:ident: $($name:literal => $wait:expr,)*) => {
            vec![$(($name, {
                let $machine = $machine.clone();
                tokio::spawn(async move { $wait.await.err().map(|error| chain(&error)) })
            })),*]
        };
    }
    waits! { machine:
        "Machine::cmd" => machine.cmd("stop", ()),
        "Machine::cmd_as" => machine.cmd_as::<Value>("stop", ()),
        "Machine::qmp" => machine.qmp(Command::new("stop").limit(limit)),
        "Machine::send_fd" => machine.send_fd("null", null()),
        "Machine::human_monitor" => machine.human_monitor("info status"),
        "Machine::human_monitor_on" => machine.human_monitor_on(0, "info status"),
        "Machine::event_wait" => machine.event_wait(other(), limit),
        "Machine::events_wait" => machine.events_wait(&[other(), other()], limit),
        "Machine::event_ready" => machine.event_ready(&other(), limit),
        "Machine::next_event" => machine.next_event(limit),
        "Client::execute" => machine.client().expect(HAS).execute("stop", ()),
        "Client::execute_as" => machine.client().expect(HAS).execute_as::<Value>("stop", ()),
        "Client::execute_text" => machine.client().expect(HAS).execute_text("stop", ()),
        "Client::send" => machine.client().expect(HAS).send(Command::new("stop")),
        "Listener::next" => machine.listen(other()).expect(HAS).next(limit),
        "Listener::next_matching" => machine.listen(other()).expect(HAS).next_matching(&other(), limit),
        "Listener::ready" => machine.listen(other()).expect(HAS).ready(&other(), limit),
        "Console::read" => machine.console().expect(HAS).read(limit),
        "Console::read_at_most" => machine.console().expect(HAS).read_at_most(1, limit),
        "Console::expect" => machine.console().expect(HAS).expect("never", limit),
        "Console::find" => machine.console().expect(HAS).find("never", limit),
        "Console::ready" => machine.console().expect(HAS).ready(limit),
        "Console::write" => machine.console().expect(HAS).write(vec![b'x'; LARGE]),
        "Console::send_line" => machine.console().expect(HAS).send_line("x".repeat(LARGE)),
        "Console::send_echoed" => machine.console().expect(HAS).send_echoed("x", limit),
        "Qtest::command" => machine.qtest().expect(HAS).command("clock_step"),
        "Qtest::raw" => machine.qtest().expect(HAS).raw("clock_step"),
        "Qtest::wait_irq" => machine.qtest().expect(HAS).wait_irq(1, true, limit),
        "Screen::screenshot" => machine.screen().expect(HAS).screenshot(limit),
        "Screen::screenshot_png" => machine.screen().expect(HAS).screenshot_png(limit),
        "Screen::changed_from" => machine.screen().expect(HAS).changed_from(&black(), &Tolerance::exact(), limit),
        "Screen::still" => machine.screen().expect(HAS).still(Duration::ZERO, &Tolerance::exact(), limit),
        "Screen::looks_like" => machine.screen().expect(HAS).looks_like(&black(), &Tolerance::exact(), limit),
        "Screen::text" => machine.screen().expect(HAS).text(limit),
        "Screen::wait_text" => machine.screen().expect(HAS).wait_text("never", limit),
        "Input::send_key" => machine.input().expect(HAS).send_key("a"),
        "Input::type_text" => machine.input().expect(HAS).type_text("a", Layout::Us),
        "Input::move_to" => machine.input().expect(HAS).move_to(0.5, 0.5),
        "Input::move_by" => machine.input().expect(HAS).move_by(1, 1),
        "Input::click" => machine.input().expect(HAS).click(Button::Left),
        "Input::press_button" => machine.input().expect(HAS).press_button(Button::Left),
        "Input::release_button" => machine.input().expect(HAS).release_button(Button::Left),
        "Input::scroll" => machine.input().expect(HAS).scroll(1),
    }
}

/// What each of them says; each ends at once.
///
/// # Panics
/// If one does not.
pub async fn all_end(waits: Vec<Wait>) -> Vec<Said> {
    let mut said = Vec::new();
    for (name, wait) in waits {
        let outcome = within(AT_ONCE, name, wait).await.expect("a wait ends").expect("a wait does not panic");
        said.push((name, outcome.unwrap_or_else(|| SUCCEEDED.into())));
    }
    said
}

/// What a call says that succeeded.
pub const SUCCEEDED: &str = "it succeeded";

/// The same for the calls without `async`, each on a thread of its own; what each says.
///
/// `meanwhile` is called once all have begun.
///
/// # Panics
/// If the machine lacks a monitor, a console or qtest.
pub fn every_blocking_wait(
    machine: &blocking::Machine,
    limit: Duration,
    meanwhile: impl FnOnce(),
) -> Vec<Said> {
    macro_rules! waits {
        ($scope:ident: $($name:literal => $wait:expr,)*) => {
            vec![$(($name, $scope.spawn(move || $wait.err().map(|error| chain(&error))))),*]
        };
    }
    thread::scope(|scope| {
        let waits = waits! { scope:
            "Machine::cmd" => machine.cmd("stop", ()),
            "Machine::cmd_as" => machine.cmd_as::<Value>("stop", ()),
            "Machine::qmp" => machine.qmp(Command::new("stop").limit(limit)),
            "Machine::send_fd" => machine.send_fd("null", null()),
            "Machine::human_monitor" => machine.human_monitor("info status"),
            "Machine::human_monitor_on" => machine.human_monitor_on(0, "info status"),
            "Machine::event_wait" => machine.event_wait(other(), limit),
            "Machine::events_wait" => machine.events_wait(&[other(), other()], limit),
            "Machine::event_ready" => machine.event_ready(&other(), limit),
            "Machine::next_event" => machine.next_event(limit),
            "Client::execute" => machine.client().expect(HAS).execute("stop", ()),
            "Client::execute_as" => machine.client().expect(HAS).execute_as::<Value>("stop", ()),
            "Client::execute_text" => machine.client().expect(HAS).execute_text("stop", ()),
            "Client::send" => machine.client().expect(HAS).send(Command::new("stop")),
            "Listener::next" => machine.listen(other()).expect(HAS).next(limit),
            "Listener::next_matching" => machine.listen(other()).expect(HAS).next_matching(&other(), limit),
            "Listener::ready" => machine.listen(other()).expect(HAS).ready(&other(), limit),
            "Console::read" => machine.console().expect(HAS).read(limit),
            "Console::read_at_most" => machine.console().expect(HAS).read_at_most(1, limit),
            "Console::expect" => machine.console().expect(HAS).expect("never", limit),
            "Console::find" => machine.console().expect(HAS).find("never", limit),
            "Console::ready" => machine.console().expect(HAS).ready(limit),
            "Console::write" => machine.console().expect(HAS).write(vec![b'x'; LARGE]),
            "Console::send_line" => machine.console().expect(HAS).send_line("x".repeat(LARGE)),
            "Console::send_echoed" => machine.console().expect(HAS).send_echoed("x", limit),
            "Qtest::command" => machine.qtest().expect(HAS).command("clock_step"),
            "Qtest::raw" => machine.qtest().expect(HAS).raw("clock_step"),
            "Qtest::wait_irq" => machine.qtest().expect(HAS).wait_irq(1, true, limit),
            "Screen::screenshot" => machine.screen().expect(HAS).screenshot(limit),
            "Screen::screenshot_png" => machine.screen().expect(HAS).screenshot_png(limit),
            "Screen::changed_from" => machine.screen().expect(HAS).changed_from(&black(), &Tolerance::exact(), limit),
            "Screen::still" => machine.screen().expect(HAS).still(Duration::ZERO, &Tolerance::exact(), limit),
            "Screen::looks_like" => machine.screen().expect(HAS).looks_like(&black(), &Tolerance::exact(), limit),
            "Screen::text" => machine.screen().expect(HAS).text(limit),
            "Screen::wait_text" => machine.screen().expect(HAS).wait_text("never", limit),
            "Input::send_key" => machine.input().expect(HAS).send_key("a"),
            "Input::type_text" => machine.input().expect(HAS).type_text("a", Layout::Us),
            "Input::move_to" => machine.input().expect(HAS).move_to(0.5, 0.5),
            "Input::move_by" => machine.input().expect(HAS).move_by(1, 1),
            "Input::click" => machine.input().expect(HAS).click(Button::Left),
            "Input::press_button" => machine.input().expect(HAS).press_button(Button::Left),
            "Input::release_button" => machine.input().expect(HAS).release_button(Button::Left),
            "Input::scroll" => machine.input().expect(HAS).scroll(1),
        };
        meanwhile();
        let ended = waits.into_iter().map(|(name, wait)| (name, wait.join().expect("a wait does not panic")));
        ended.map(|(name, said)| (name, said.unwrap_or_else(|| SUCCEEDED.into()))).collect()
    })
}

const HAS: &str = "the machine has all of it";

/// An event that never comes.
fn other() -> EventFilter {
    EventFilter::named("NEVER")
}

/// What a screen may have shown.
fn black() -> Picture {
    Picture::from_rgb(1, 1, [0; 3]).expect("it is one pixel")
}

fn null() -> File {
    File::open("/dev/null").expect("it is always there")
}
