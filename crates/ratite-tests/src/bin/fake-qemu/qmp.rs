//! The QMP protocol: greeting, negotiation, envelopes, events.
//!
//! What the commands do is in `commands.rs`. Ids, and the arguments of commands that do not look at them, are kept
//! as the text they came as.

use std::collections::BTreeMap;
use std::process;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::burst::Burst;
use crate::console::endless;
use crate::json;
use crate::line::Received;
use crate::machine::Due;
use crate::machine::Machine;

/// A command that has arrived.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) monitor: usize,
    pub(crate) name: String,
    /// JSON on one line.
    pub(crate) arguments: Option<String>,
    /// JSON on one line.
    pub(crate) id: Option<String>,
    pub(crate) out_of_band: bool,
}

/// The JSON to return, or nothing, or an error.
pub(crate) type Answer = Result<Option<String>, Refusal>;

/// An error as QMP tells it.
#[derive(Debug)]
pub(crate) struct Refusal {
    class: &'static str,
    desc: String,
}

impl Refusal {
    pub(crate) fn generic(desc: impl Into<String>) -> Self {
        Self { class: "GenericError", desc: desc.into() }
    }

    pub(crate) fn not_found(desc: impl Into<String>) -> Self {
        Self { class: "CommandNotFound", desc: desc.into() }
    }

    fn message(&self, id: Option<&str>) -> String {
        let id = id.map(|id| format!("\"id\": {id}, ")).unwrap_or_default();
        let desc = Value::from(self.desc.as_str());
        format!("{{{id}\"error\": {{\"class\": \"{}\", \"desc\": {desc}}}}}", self.class)
    }
}

/// The message that returns `value`, which is JSON on one line.
pub(crate) fn returning(value: &str, id: Option<&str>) -> String {
    let id = id.map(|id| format!(", \"id\": {id}")).unwrap_or_default();
    format!("{{\"return\": {value}{id}}}")
}

impl Machine {
    /// Greets a new client, now or later or never.
    pub(crate) fn greet(&mut self, monitor: usize) {
        if self.words.has("silent") {
            self.monitors[monitor].session.deaf = true;
        } else if let Some(delay) = self.words.milliseconds("greeting-delay") {
            let session = self.monitors[monitor].session_number;
            self.after(delay, Due::Greeting { monitor, session });
        } else {
            self.greet_now(monitor);
        }
    }

    pub(crate) fn greet_now(&mut self, index: usize) {
        let capabilities: &[&str] = if self.words.has("no-oob") { &[] } else { &["oob"] };
        let version = json::text(&version());
        let capabilities = json::text(&json!(capabilities));
        let greeting = format!("{{\"QMP\": {{\"version\": {version}, \"capabilities\": {capabilities}}}}}");
        let monitor = &mut self.monitors[index];
        if self.words.has("close-before-greeting") {
            return monitor.close();
        }
        if self.words.has("garbage-greeting") {
            return monitor.raw(b"SSH-2.0-this is not QMP\r\n");
        }
        if self.words.has("half-greeting") {
            monitor.session.deaf = true;
            return monitor.raw(&greeting.as_bytes()[..greeting.len() / 2]);
        }
        monitor.message(&greeting);
        if self.words.has("close-after-greeting") {
            monitor.close();
        } else if let Some(status) = self.words.status("exit-after-greeting") {
            self.leave(status);
        }
    }

    /// Reads what has come in, and obeys it.
    pub(crate) fn listen(&mut self, index: usize) {
        let monitor = &mut self.monitors[index];
        let Some(line) = &monitor.port.line else { return };
        if self.ending || monitor.session.deaf {
            return;
        }
        match line.receive(&mut monitor.session.received) {
            Received::Bytes(bytes) => monitor.session.input.feed(&bytes),
            Received::Nothing => return,
            Received::Closed => return monitor.close(),
        }
        while !self.ending && !self.monitors[index].session.deaf {
            let Some(value) = self.monitors[index].session.input.next() else {
                return;
            };
            self.hear(index, &value);
        }
    }

    fn hear(&mut self, monitor: usize, value: &[u8]) {
        let was_negotiated = self.monitors[monitor].session.negotiated;
        let mut id = None;
        let answer = read_call(monitor, value, &mut id).and_then(|call| self.obey(&call));
        let message = match answer {
            Ok(None) => return,
            Ok(Some(value)) => returning(&value, id.as_deref()),
            Err(refusal) => refusal.message(id.as_deref()),
        };
        self.monitors[monitor].message(&message);
        if !was_negotiated && self.monitors[monitor].session.negotiated {
            self.after_negotiation(monitor);
        }
    }

    fn obey(&mut self, call: &Call) -> Answer {
        let session = &self.monitors[call.monitor].session;
        if call.out_of_band && !session.oob {
            return Err(Refusal::generic("QMP input member 'exec-oob' is unexpected"));
        }
        if self.words.names("abort-on", &call.name) {
            process::abort();
        }
        if self.words.names("exit-on", &call.name) {
            self.leave(1);
        }
        if self.words.names("hang-on", &call.name) {
            self.go_deaf();
            return Ok(None);
        }
        if self.words.names("never-answer", &call.name) {
            return Ok(None);
        }
        match (call.name.as_str(), session.negotiated) {
            ("qmp_capabilities", false) => self.negotiate(call),
            ("qmp_capabilities", true) => {
                Err(Refusal::not_found("Capabilities negotiation is already complete, command ignored"))
            }
            (_, false) => {
                Err(Refusal::not_found("Expecting capabilities negotiation with 'qmp_capabilities'"))
            }
            (_, true) => self.execute(call),
        }
    }

    fn negotiate(&mut self, call: &Call) -> Answer {
        if self.words.has("nego-silent") {
            return Ok(None);
        }
        if self.words.has("nego-error") {
            return Err(Refusal::generic("fake-qemu does not want to negotiate"));
        }
        let oob = asks_for_oob(call)?;
        if oob && self.words.has("no-oob") {
            return Err(Refusal::generic("Capability oob not available"));
        }
        let monitor = &mut self.monitors[call.monitor];
        if self.words.has("nego-event") {
            for seq in 0..2 {
                monitor.message(&event("FAKE_EARLY", Some(&format!("{{\"seq\": {seq}}}"))));
            }
        }
        monitor.session.oob = oob;
        monitor.session.negotiated = true;
        Ok(Some("{}".to_owned()))
    }

    fn after_negotiation(&mut self, monitor: usize) {
        if let Some(status) = self.words.status("exit-after-handshake") {
            self.leave(status);
        }
        if let Some(delay) = self.words.milliseconds("guest-shutdown-after") {
            self.after(delay, Due::GuestShutdown);
        }
        if let Some(count) = self.words.number("event-flood") {
            self.start_burst(Burst {
                monitor,
                session: self.monitors[monitor].session_number,
                name: "FAKE_FLOOD".to_owned(),
                data: "{}".to_owned(),
                next: 0,
                count: endless(count),
                delay: Duration::ZERO,
                due: Instant::now(),
                last: None,
            });
        }
    }

    /// No monitor is read from now on; the process lives.
    pub(crate) fn go_deaf(&mut self) {
        for monitor in &mut self.monitors {
            monitor.session.deaf = true;
        }
    }

    /// Tells every client that has negotiated.
    pub(crate) fn emit(&mut self, name: &str, data: Option<&Value>) {
        self.tell(&event(name, data.map(json::text).as_deref()));
    }

    /// Sends a message to every client that has negotiated.
    pub(crate) fn tell(&mut self, message: &str) {
        for monitor in self.monitors.iter_mut().filter(|monitor| monitor.session.negotiated) {
            monitor.message(message);
        }
    }
}

/// The version as `query-version` and the greeting tell it.
pub(crate) fn version() -> Value {
    json!({ "qemu": { "micro": 9, "minor": 9, "major": 9 }, "package": "fake" })
}

/// An event with its data, which is JSON on one line.
pub(crate) fn event(name: &str, data: Option<&str>) -> String {
    // A clock before 1970 is no reason to stop.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = Value::from(name);
    let data = data.map(|data| format!(", \"data\": {data}")).unwrap_or_default();
    let (seconds, microseconds) = (now.as_secs(), now.subsec_micros());
    let timestamp = format!("{{\"seconds\": {seconds}, \"microseconds\": {microseconds}}}");
    format!("{{\"timestamp\": {timestamp}, \"event\": {name}{data}}}")
}

/// Reads a command. What is found of its id is put into `id`, whatever else is wrong.
fn read_call(monitor: usize, value: &[u8], id: &mut Option<String>) -> Result<Call, Refusal> {
    let malformed = |error: String| Refusal::generic(format!("JSON parse error, {error}"));
    let text = str::from_utf8(value).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_str::<&RawValue>(text).map_err(|error| malformed(error.to_string()))?;
    if !text.starts_with('{') {
        return Err(Refusal::generic("QMP input must be a JSON object"));
    }
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    *id = members.remove("id").map(|id| one_line(&id));
    let arguments = members.remove("arguments").map(|arguments| one_line(&arguments));
    let (execute, exec_oob) = (members.remove("execute"), members.remove("exec-oob"));
    if let Some(member) = members.keys().next() {
        return Err(Refusal::generic(format!("QMP input member '{member}' is unexpected")));
    }
    if arguments.as_ref().is_some_and(|arguments| !arguments.starts_with('{')) {
        return Err(Refusal::generic("QMP input member 'arguments' must be an object"));
    }
    let out_of_band = exec_oob.is_some();
    let member = if out_of_band { "exec-oob" } else { "execute" };
    let name = match (execute, exec_oob) {
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => return Err(Refusal::generic("QMP input lacks member 'execute'")),
        (Some(_), Some(_)) => {
            return Err(Refusal::generic("QMP input member 'exec-oob' clashes with 'execute'"));
        }
    };
    let name = serde_json::from_str(name.get())
        .map_err(|_| Refusal::generic(format!("QMP input member '{member}' must be a string")))?;
    Ok(Call { monitor, name, arguments, id: id.clone(), out_of_band })
}

/// A value on one line: outside of strings a line end is as good as a blank, and inside there is none.
fn one_line(value: &RawValue) -> String {
    value.get().replace(['\r', '\n'], " ")
}

fn asks_for_oob(call: &Call) -> Result<bool, Refusal> {
    let arguments: Value = serde_json::from_str(call.arguments.as_deref().unwrap_or("{}"))
        .map_err(|error| Refusal::generic(error.to_string()))?;
    match &arguments["enable"] {
        Value::Null => Ok(false),
        Value::Array(wanted) if wanted.iter().all(|capability| capability == "oob") => Ok(!wanted.is_empty()),
        other => Err(Refusal::generic(format!("Parameter 'enable' does not accept value '{other}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::BufRead;
    use std::io::BufReader;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use crate::arguments::Arguments;
    use crate::arguments::MonitorOption;
    use crate::line::Line;
    use crate::line::Port;
    use crate::words::Words;

    /// A machine with one monitor, and its client.
    struct Fake {
        machine: Machine,
        client: BufReader<UnixStream>,
    }

    impl Fake {
        fn start() -> Self {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let port = Port { listener: None, line: Some(Line::new(theirs.into())) };
            let monitor = MonitorOption { chardev: "mon".to_owned(), pretty: false };
            let arguments = Arguments { monitors: vec![monitor], ..Arguments::default() };
            let ports = BTreeMap::from([("mon".to_owned(), port)]);
            let words = Words::parse(&[]).unwrap();
            let mut machine = Machine::assemble(arguments, words, ports, Vec::new()).unwrap();
            machine.greet(0);
            Self { machine, client: BufReader::new(ours) }
        }

        fn ready() -> Self {
            let mut fake = Self::start();
            fake.line();
            fake.send(r#"{"execute":"qmp_capabilities"}"#);
            fake.says(r#"{"return": {}}"#);
            fake
        }

        fn send(&mut self, text: &str) {
            self.client.get_ref().write_all(text.as_bytes()).unwrap();
            self.machine.listen(0);
        }

        fn line(&mut self) -> String {
            let mut line = String::new();
            self.client.read_line(&mut line).unwrap();
            line
        }

        #[track_caller]
        fn says(&mut self, expected: &str) {
            assert_eq!(self.line(), format!("{expected}\r\n"));
        }
    }

    #[test]
    fn the_greeting_and_the_answers_look_like_those_of_qemu() {
        let mut fake = Fake::start();

        fake.says(concat!(
            r#"{"QMP": {"version": {"package": "fake", "qemu": {"major": 9, "micro": 9, "minor": 9}}, "#,
            r#""capabilities": ["oob"]}}"#
        ));
        fake.send(
            r#"{"execute":"query-name"}{"execute":"qmp_capabilities","id":{"a": [18446744073709551615]}}"#,
        );
        fake.says(concat!(
            r#"{"error": {"class": "CommandNotFound", "desc": "#,
            r#""Expecting capabilities negotiation with 'qmp_capabilities'"}}"#
        ));
        fake.says(r#"{"return": {}, "id": {"a": [18446744073709551615]}}"#);
    }

    #[test]
    fn what_is_wrong_is_told_as_by_qemu() {
        let mut fake = Fake::ready();
        let mut check = |input: &str, desc: &str| {
            fake.send(input);
            fake.says(&format!(r#"{{"error": {{"class": "GenericError", "desc": "{desc}"}}}}"#));
        };

        check("[1]", "QMP input must be a JSON object");
        check("{}", "QMP input lacks member 'execute'");
        check(r#"{"exec-oob":"stop"}"#, "QMP input member 'exec-oob' is unexpected");
        check(r#"{"execute":"getfd"}"#, "Parameter 'fdname' is missing");
        check(
            r#"{"execute":"getfd","arguments":{"fdname":"x"}}"#,
            "No file descriptor supplied via SCM_RIGHTS",
        );
        fake.send("{bad\n}");
        let refused = fake.line();
        assert!(refused.contains(r#""desc": "JSON parse error, "#), "{refused}");
        fake.send(r#"{"execute":"no\"pe","id":"x"}"#);
        fake.says(concat!(
            r#"{"id": "x", "error": {"class": "CommandNotFound", "#,
            r#""desc": "The command no\"pe has not been found"}}"#
        ));
    }
}
