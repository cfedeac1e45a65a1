//! A program that launches machines and then ends in whatever way it is told to.
//!
//! `controller --base FOLDER [OPTION…]` launches, says `PID FOLDER` for each machine and then `ready` (or `failed` and
//! why), and obeys one order a line from stdin; [`OPTIONS`] and `obey` say which there are. The end of its input is
//! the end of the program.

#![expect(clippy::disallowed_methods, reason = "to end without a word to its machines is what it is for")]

use std::env;
use std::error::Error;
use std::fmt;
use std::fs::DirEntry;
use std::io;
use std::io::BufRead;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::SigSet;
use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::TemplateCache;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::fake_qemu;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tracing::Metadata;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::span::Attributes;
use tracing::span::Id;
use tracing::span::Record;

/// The options, each with the name of its value, if it has one.
const OPTIONS: &str = "\
--base FOLDER        where the work folders are made
--machines COUNT     how many are launched; 1 if not said
--fake WORD          a word for the fake QEMU
--wrapper WORD       a word of the wrapper
--name NAME          machines are reachable by this name
--real               a real QEMU instead of the fake
--callers-group      machines stay in our process group
--keep               work folders are kept
--descriptors COUNT  we may have no more descriptors
--threads COUNT      our user may have so many threads more than now
--file-size BYTES    no file may become larger
--block-signals      every signal is blocked in each of our threads
--subreaper          orphans among our descendants become our children
--freezable          a real QEMU of 16 MiB without a guest, which can be frozen
--die-at WORDS       we are killed when ratite logs a message with these words
--panicking          what the supervisor logs makes our subscriber panic";

struct Controller {
    config: MachineConfig,
    machines: Vec<Machine>,
    runtime: Option<Runtime>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {}", chain(&*error)));
            ExitCode::from(3)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut count = 1;
    let mut threads: Option<u64> = None;
    let mut config = MachineConfig::new(fake_qemu());
    let mut wrapper = Vec::new();
    let mut words = env::args().skip(1);
    while let Some(option) = words.next() {
        let mut value =
            || words.next().ok_or_else(|| format!("{option} needs a value; the options:\n{OPTIONS}"));
        config = match option.as_str() {
            "--base" => config.base_folder(PathBuf::from(value()?)),
            "--machines" => {
                count = value()?.parse()?;
                config
            }
            "--fake" => config.args(["-fake", &value()?]),
            "--wrapper" => {
                wrapper.push(value()?);
                config.wrapper(&wrapper)
            }
            "--real" => {
                let real = MachineConfig::new("qemu-system-x86_64").machine_type("none");
                real.base_folder(env::args().nth(2).ok_or("--base comes first")?)
            }
            "--freezable" => {
                let real = MachineConfig::new("qemu-system-x86_64").machine_type("q35").accelerator("tcg");
                let base = env::args().nth(2).ok_or("--base comes first")?;
                real.args(["-nodefaults", "-m", "16"]).base_folder(base).freezable()
            }
            "--die-at" => {
                tracing::subscriber::set_global_default(Dying(value()?))?;
                config
            }
            "--name" => config.name(value()?).reachable(),
            "--callers-group" => config.in_callers_process_group(),
            "--keep" => config.keep_folder(),
            "--descriptors" => limit(Resource::Nofile, value()?.parse()?, config)?,
            "--file-size" => limit(Resource::Fsize, value()?.parse()?, config)?,
            "--threads" => {
                threads = Some(value()?.parse()?);
                config
            }
            "--block-signals" => {
                SigSet::all().thread_block()?;
                config
            }
            "--subreaper" => {
                rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
                config
            }
            "--panicking" => {
                tracing::subscriber::set_global_default(Panicking)?;
                config
            }
            other => return Err(format!("no option {other}; the options:\n{OPTIONS}").into()),
        };
    }
    let mut controller = Controller {
        config: config.console(ConsoleConfig::serial()),
        machines: Vec::new(),
        runtime: Some(Runtime::new()?),
    };
    if let Some(more) = threads {
        controller.config = limit(Resource::Nproc, threads_of_our_user()? + more, controller.config)?;
    }
    for _ in 0..count {
        controller.launch()?;
    }
    say("ready");
    for order in io::stdin().lock().lines() {
        if !controller.obey(&order?)? {
            break;
        }
    }
    Ok(())
}

impl Controller {
    fn launch(&mut self) -> Result<(), Box<dyn Error>> {
        let runtime = self.runtime.as_ref().ok_or("there is no runtime any more")?;
        let machine = runtime.block_on(self.config.launch())?;
        say(&format!("{} {}", machine.pid(), machine.work_folder().display()));
        self.machines.push(machine);
        Ok(())
    }

    /// Carries out an order; false for the end of the program.
    fn obey(&mut self, order: &str) -> Result<bool, Box<dyn Error>> {
        match order {
            "return" => return Ok(false),
            "forget" => {
                // As a program does that keeps its machines in a static.
                self.machines.drain(..).for_each(std::mem::forget);
                return Ok(false);
            }
            "panic" => panic!("as ordered"),
            "abort" => process::abort(),
            "exit" => process::exit(7),
            "exec" => return Err(Command::new("true").exec().into()),
            "drop the runtime" => {
                drop(self.runtime.take());
                say("dropped");
            }
            "launch" => match self.launch() {
                Ok(()) => {}
                Err(error) => say(&format!("failed: {}", chain(&*error))),
            },
            "shut down" => self.shut_down()?,
            "drop" => {
                let runtime = self.runtime.as_ref().ok_or("there is no runtime any more")?;
                for machine in self.machines.drain(..) {
                    let ended = machine.exited();
                    drop(machine);
                    say(&runtime.block_on(ended).to_string());
                }
            }
            "freeze" => {
                let runtime = self.runtime.as_ref().ok_or("there is no runtime any more")?;
                match runtime.block_on(self.machines[0].freeze()) {
                    Ok(template) => say(&format!("template {}", template.folder().display())),
                    Err(error) => say(&format!("failed: {}", chain(&error))),
                }
            }
            "status" => {
                let runtime = self.runtime.as_ref().ok_or("there is no runtime any more")?;
                let status = runtime.block_on(self.machines[0].cmd("query-status", ()))?;
                say(status["status"].as_str().unwrap_or("unknown"));
            }
            "descriptors" => say(&std::fs::read_dir("/proc/self/fd")?.count().to_string()),
            other => {
                if let Some(folder) = other.strip_prefix("cached ") {
                    return self.cached(folder).map(|()| true);
                }
                let folder = other.strip_prefix("launch in ").ok_or_else(|| format!("no order {other}"))?;
                self.config = self.config.clone().base_folder(folder);
                self.launch()?;
            }
        }
        Ok(true)
    }

    /// Has a template of the machine that we launch in this cache, and says where it is.
    fn cached(&self, folder: &str) -> Result<(), Box<dyn Error>> {
        let runtime = self.runtime.as_ref().ok_or("there is no runtime any more")?;
        let cache = TemplateCache::at(folder);
        let boot = async |machine: &Machine| {
            say(&format!("made by {}", machine.pid()));
            Ok::<_, io::Error>(())
        };
        match runtime.block_on(cache.cached("key", &self.config, boot)) {
            Ok(template) => say(&format!("template {}", template.folder().display())),
            Err(error) => say(&format!("failed: {}", chain(&error))),
        }
        Ok(())
    }

    /// Ends all machines and says how each ended.
    fn shut_down(&mut self) -> Result<(), Box<dyn Error>> {
        let runtime = self.runtime.as_ref().ok_or("there is no runtime any more")?;
        for machine in self.machines.drain(..) {
            match runtime.block_on(machine.shutdown(Duration::from_secs(2))) {
                Ok(exit) => say(&exit.to_string()),
                Err(error) => say(&error.to_string()),
            }
        }
        Ok(())
    }
}

/// As the system counts them for RLIMIT_NPROC (getrlimit(2)).
fn threads_of_our_user() -> io::Result<u64> {
    let ours = format!("\nUid:\t{}\t", rustix::process::getuid().as_raw());
    let threads = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:").map(str::trim));
        line.and_then(|count| count.parse::<u64>().ok()).filter(|_| status.contains(&ours))
    };
    // There are also `self` and `thread-self`.
    let is_process = |it: &DirEntry| it.file_name().to_string_lossy().parse::<u32>().is_ok();
    let processes = std::fs::read_dir("/proc")?.flatten().filter(is_process);
    let statuses = processes.filter_map(|it| std::fs::read_to_string(it.path().join("status")).ok());
    Ok(statuses.filter_map(threads).sum())
}

/// A subscriber as of a program whose standard output is gone.
struct Panicking;

impl tracing::Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ratite::process"
    }

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("as ordered");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A subscriber by which the program is killed at a message that holds these words.
struct Dying(String);

impl tracing::Subscriber for Dying {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ratite")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.0.contains(&self.0) {
            let _unheard = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a message says.
#[derive(Default)]
struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

fn limit(resource: Resource, most: u64, config: MachineConfig) -> io::Result<MachineConfig> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum })?;
    Ok(config)
}

fn say(line: &str) {
    // Whoever started us may be gone, which is no reason to behave otherwise.
    let _gone = writeln!(io::stdout(), "{line}");
}
