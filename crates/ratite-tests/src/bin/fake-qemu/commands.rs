//! What the commands do: QEMU's own, and those that only a fake has (`fake-…`).
//!
//! | command | arguments | what it does |
//! |---|---|---|
//! | `fake-echo` | any | returns its arguments, byte for byte |
//! | `fake-sleep` | `ms` | answers after so long; later commands are answered meanwhile |
//! | `fake-never` | any | is never answered |
//! | `fake-events` | `count`, `name`, `data`, `delay-us` | sends events with `data` and `seq`, then answers |
//! | `fake-big` | `bytes` | returns a string of so many `x` |
//! | `fake-deep` | `depth` | returns so many arrays, one in the other |
//! | `fake-raw` | `text` or `bytes` | writes just that to the monitor; no answer |
//! | `fake-pretty` | `on` | answers over many lines from now on |
//! | `fake-newline` | `style`: `crlf`, `lf`, `none` | ends messages so from now on |
//! | `fake-exit` | `status` | exits without an answer |
//! | `fake-abort` | | dies of SIGABRT |
//! | `fake-hang` | | no monitor is read any more; no answer |
//! | `fake-close-monitor` | | closes the monitor, lives on |
//! | `fake-guest-shutdown` | | the guest shuts down |
//! | `fake-console` | `text`, `bytes`, `id` | writes the text, then so much filler, to the first console or that one |
//! | `fake-console-read` | `id` | returns what was typed to the console since the last call |
//! | `fake-stderr` | `text` | writes that to stderr |
//! | `fake-fds` | | returns the open descriptors: number → what it is |
//! | `fake-env`, `fake-args`, `fake-cwd`, `fake-process` | | returns the environment, the arguments, the folder, the ids |
//! | `fake-children` | | returns the pids of the children of `spawn-child…` |

use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::process;
use std::process::Child;
use std::time::Duration;
use std::time::Instant;

use nix::unistd;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::burst::Burst;
use crate::console::Console;
use crate::console::filler;
use crate::json;
use crate::machine::Due;
use crate::machine::Machine;
use crate::monitor::Newline;
use crate::qmp::Answer;
use crate::qmp::Call;
use crate::qmp::Refusal;
use crate::qmp::returning;
use crate::qmp::version;

impl Machine {
    /// Does what `call` asks for. The caller sends the answer.
    pub(crate) fn execute(&mut self, call: &Call) -> Answer {
        match call.name.as_str() {
            "query-version" => returned(&version()),
            "query-status" => returned(&self.status()),
            "query-target" => returned(&self.target()),
            "query-name" => returned(&self.name.as_ref().map_or(json!({}), |name| json!({ "name": name }))),
            "query-commands" => {
                returned(&COMMANDS.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>().into())
            }
            "stop" => self.set_running(false),
            "cont" => self.set_running(true),
            "system_reset" => {
                self.emit("RESET", Some(&json!({ "guest": false, "reason": "host-qmp-system-reset" })));
                nothing()
            }
            "system_powerdown" => self.power_down(),
            "quit" => self.quit(),
            "getfd" => self.getfd(call),
            "add-fd" => self.add_fd(call),
            "closefd" => self.closefd(&Given::of(call)?.text("fdname")?),
            _ => self.execute_fake(call),
        }
    }

    fn execute_fake(&mut self, call: &Call) -> Answer {
        let given = || Given::of(call);
        match call.name.as_str() {
            "fake-echo" => Ok(Some(call.arguments.clone().unwrap_or_else(|| "{}".to_owned()))),
            "fake-sleep" => self.sleep(call),
            "fake-never" => Ok(None),
            "fake-events" => self.events(call),
            "fake-big" => Ok(Some(format!("\"{}\"", "x".repeat(given()?.size("bytes")?)))),
            "fake-deep" => {
                let depth = given()?.size("depth")?;
                Ok(Some("[".repeat(depth) + &"]".repeat(depth)))
            }
            "fake-raw" => self.raw(call),
            "fake-pretty" => {
                self.monitors[call.monitor].session.pretty = given()?.is_on("on")?;
                nothing()
            }
            "fake-newline" => self.newline(call),
            "fake-exit" => process::exit(i32::try_from(given()?.number("status")?).unwrap_or(255)),
            "fake-abort" => process::abort(),
            "fake-hang" => {
                self.go_deaf();
                Ok(None)
            }
            "fake-close-monitor" => {
                self.monitors[call.monitor].close();
                Ok(None)
            }
            "fake-guest-shutdown" => {
                self.after(Duration::ZERO, Due::GuestShutdown);
                nothing()
            }
            "fake-console" => self.write_console(&given()?),
            "fake-console-read" => {
                let typed = self.console(&given()?)?.take_typed();
                returned(&String::from_utf8_lossy(&typed).into())
            }
            "fake-stderr" => {
                let text = given()?.text("text")?;
                io::stderr()
                    .write_all(text.as_bytes())
                    .map_err(|error| Refusal::generic(error.to_string()))?;
                nothing()
            }
            "fake-children" => returned(&self.children.iter().map(Child::id).collect::<Vec<_>>().into()),
            "fake-fds" => self.descriptors_open().map_err(|error| Refusal::generic(error.to_string())),
            "fake-env" => returned(&environment()),
            "fake-args" => returned(
                &env::args_os().map(|word| word.to_string_lossy().into()).collect::<Vec<Value>>().into(),
            ),
            "fake-cwd" => returned(&env::current_dir().unwrap_or_default().to_string_lossy().into()),
            "fake-process" => returned(&process_ids()),
            name => Err(Refusal::not_found(format!("The command {name} has not been found"))),
        }
    }

    fn status(&self) -> Value {
        json!({ "status": if self.running { "running" } else { "paused" }, "running": self.running })
    }

    fn target(&self) -> Value {
        let target = self.words.value("target").map(|target| target.to_string_lossy());
        json!({ "arch": target.as_deref().unwrap_or("x86_64") })
    }

    fn set_running(&mut self, running: bool) -> Answer {
        if self.running != running {
            self.running = running;
            self.emit(if running { "RESUME" } else { "STOP" }, None);
        }
        nothing()
    }

    fn power_down(&mut self) -> Answer {
        self.emit("POWERDOWN", None);
        if self.words.has("obey-powerdown") {
            self.after(Duration::ZERO, Due::GuestShutdown);
        }
        nothing()
    }

    fn quit(&mut self) -> Answer {
        let status = self.words.status("quit-status").unwrap_or_default();
        if self.words.has("quit-no-reply") {
            process::exit(status);
        }
        self.emit("SHUTDOWN", Some(&json!({ "guest": false, "reason": "host-qmp-quit" })));
        if !self.words.has("ignore-quit") {
            self.ending = true;
            self.after(self.words.milliseconds("quit-delay").unwrap_or_default(), Due::Quit(status));
        }
        nothing()
    }

    fn getfd(&mut self, call: &Call) -> Answer {
        let name = Given::of(call)?.text("fdname")?;
        let received = self.monitors[call.monitor].session.received.pop_front();
        let descriptor =
            received.ok_or_else(|| Refusal::generic("No file descriptor supplied via SCM_RIGHTS"))?;
        self.descriptors.insert(name, descriptor);
        nothing()
    }

    fn add_fd(&mut self, call: &Call) -> Answer {
        let set = Given::of(call)?.number_or("fdset-id", 0)?;
        let received = self.monitors[call.monitor].session.received.pop_front();
        let descriptor =
            received.ok_or_else(|| Refusal::generic("No file descriptor supplied via SCM_RIGHTS"))?;
        let number = descriptor.as_raw_fd();
        self.descriptors.insert(format!("fdset {set}: {number}"), descriptor);
        returned(&json!({ "fdset-id": set, "fd": number }))
    }

    fn closefd(&mut self, name: &str) -> Answer {
        match self.descriptors.remove(name) {
            Some(_) => nothing(),
            None => Err(Refusal::generic(format!("File descriptor named '{name}' not found"))),
        }
    }

    fn sleep(&mut self, call: &Call) -> Answer {
        let delay = Duration::from_millis(Given::of(call)?.number("ms")?);
        let session = self.monitors[call.monitor].session_number;
        let message = returning("{}", call.id.as_deref());
        self.after(delay, Due::Reply { monitor: call.monitor, session, message });
        Ok(None)
    }

    fn events(&mut self, call: &Call) -> Answer {
        let given = Given::of(call)?;
        self.start_burst(Burst {
            monitor: call.monitor,
            session: self.monitors[call.monitor].session_number,
            name: given.text_or("name", "FAKE")?,
            data: given.0.get("data").map_or_else(|| "{}".to_owned(), json::text),
            next: 0,
            count: given.number_or("count", 1)?,
            delay: Duration::from_micros(given.number_or("delay-us", 0)?),
            due: Instant::now(),
            last: Some(returning("{}", call.id.as_deref())),
        });
        Ok(None)
    }

    fn raw(&mut self, call: &Call) -> Answer {
        let given = Given::of(call)?;
        let bytes = match given.0.get("bytes").and_then(Value::as_array) {
            Some(bytes) => bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
            None => given.text("text")?.into_bytes(),
        };
        self.monitors[call.monitor].raw(&bytes);
        Ok(None)
    }

    fn newline(&mut self, call: &Call) -> Answer {
        self.monitors[call.monitor].session.newline = match Given::of(call)?.text("style")?.as_str() {
            "crlf" => Newline::CrLf,
            "lf" => Newline::Lf,
            "none" => Newline::None,
            other => {
                return Err(Refusal::generic(format!("Parameter 'style' does not accept value '{other}'")));
            }
        };
        nothing()
    }

    fn console(&mut self, given: &Given) -> Result<&mut Console, Refusal> {
        let id = given.text_or("id", "")?;
        let mut consoles = self.consoles.iter_mut();
        consoles
            .find(|console| id.is_empty() || console.id == id)
            .ok_or_else(|| Refusal::generic(format!("there is no console '{id}'")))
    }

    fn write_console(&mut self, given: &Given) -> Answer {
        let mut text = given.text_or("text", "")?.into_bytes();
        text.extend(filler(0, given.number_or("bytes", 0)?));
        self.console(given)?.write(&text);
        returned(&json!({ "written": text.len() }))
    }

    /// Every descriptor but those that only the fake has: the one for signals, and the listing itself.
    fn descriptors_open(&self) -> Result<Option<String>, io::Error> {
        let mut open = Map::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let number = entry.file_name().to_string_lossy().into_owned();
            let target = fs::read_link(entry.path())?.to_string_lossy().into_owned();
            let listing = target.starts_with("/proc/") && target.ends_with("/fd");
            if !listing && number != self.signals.as_fd().as_raw_fd().to_string() {
                open.insert(number, target.into());
            }
        }
        Ok(Some(json::text(&open.into())))
    }
}

fn returned(value: &Value) -> Answer {
    Ok(Some(json::text(value)))
}

fn nothing() -> Answer {
    Ok(Some("{}".to_owned()))
}

fn environment() -> Value {
    let variables = env::vars_os();
    let pairs =
        variables.map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()));
    Value::Object(pairs.collect())
}

fn process_ids() -> Value {
    json!({
        "pid": process::id(),
        "ppid": unistd::getppid().as_raw(),
        "pgid": unistd::getpgrp().as_raw(),
        "sid": unistd::getsid(None).ok().map(unistd::Pid::as_raw),
    })
}

/// The arguments of a command.
struct Given(Map<String, Value>);

impl Given {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let arguments = call.arguments.as_deref().unwrap_or("{}");
        serde_json::from_str(arguments).map(Self).map_err(|error| Refusal::generic(error.to_string()))
    }

    fn required<T>(&self, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, Refusal> {
        let value =
            self.0.get(name).ok_or_else(|| Refusal::generic(format!("Parameter '{name}' is missing")))?;
        read(value).ok_or_else(|| Refusal::generic(format!("Invalid parameter type for '{name}'")))
    }

    fn text(&self, name: &str) -> Result<String, Refusal> {
        self.required(name, |value| value.as_str().map(str::to_owned))
    }

    fn number(&self, name: &str) -> Result<u64, Refusal> {
        self.required(name, Value::as_u64)
    }

    fn size(&self, name: &str) -> Result<usize, Refusal> {
        self.required(name, |value| usize::try_from(value.as_u64()?).ok())
    }

    fn is_on(&self, name: &str) -> Result<bool, Refusal> {
        self.required(name, Value::as_bool)
    }

    fn text_or(&self, name: &str, default: &str) -> Result<String, Refusal> {
        if self.0.contains_key(name) { self.text(name) } else { Ok(default.to_owned()) }
    }

    fn number_or(&self, name: &str, default: u64) -> Result<u64, Refusal> {
        if self.0.contains_key(name) { self.number(name) } else { Ok(default) }
    }
}

/// What `query-commands` lists.
const COMMANDS: &[&str] = &[
    "qmp_capabilities",
    "query-version",
    "query-status",
    "query-target",
    "query-name",
    "query-commands",
    "stop",
    "cont",
    "system_reset",
    "system_powerdown",
    "quit",
    "getfd",
    "add-fd",
    "closefd",
    "fake-echo",
    "fake-sleep",
    "fake-never",
    "fake-events",
    "fake-big",
    "fake-deep",
    "fake-raw",
    "fake-pretty",
    "fake-newline",
    "fake-exit",
    "fake-abort",
    "fake-hang",
    "fake-close-monitor",
    "fake-guest-shutdown",
    "fake-console",
    "fake-console-read",
    "fake-stderr",
    "fake-fds",
    "fake-env",
    "fake-args",
    "fake-cwd",
    "fake-process",
    "fake-children",
];
