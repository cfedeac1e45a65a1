//! Which accelerators a QEMU has, and which of them are of use: found by running guest code on them.
//!
//! `/dev/kvm` may open, and QEMU say that KVM is on, where guests run a thousand times too slowly; so only a machine that
//! has run says anything. Each measurement is a [`crate::Machine`] of its own with the firmware `guest/speed.s`, and ends
//! with it.
//!
//! ```text
//! launched, paused ─► query-target ─► cont ─► `r` real mode ─► `R` 64-bit mode ─► rounds of work ─► killed
//!        └ QEMU refuses                 └── STOP, the end of QEMU, or of the limit: the stage says why
//! ```

mod course;

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::within;

use crate::config::ConsoleConfig;
use crate::config::MachineConfig;
use crate::config::PassedFd;
use crate::config::Timeouts;
use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::exit::ProcessExit;
use crate::exit::Tail;
use crate::guest;
use crate::probe;
use crate::probe::Answer;
use crate::probe::Unanswered;
use crate::program;
use crate::speed::Measurement;
use crate::speed::Speed;
use course::Course;
use course::Fault;
use course::Finding;
use course::TARGET;
use course::last_words;
use course::target;

/// The accelerators of one QEMU binary.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ratite::Accelerators;
///
/// let accelerators = Accelerators::of("qemu-system-x86_64").await?;
/// let kvm = accelerators.measure("kvm", Accelerators::LIMIT).await?;
/// println!("{}", if kvm.is_usable() { "kvm" } else { &kvm.why });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accelerators {
    /// The binary, a path or a name that is searched in `PATH`.
    pub binary: OsString,
    /// What it lists (`-accel help`), in its order. That it is built with an accelerator does not say that it can use it.
    pub listed: Vec<String>,
}

/// Why nothing is known of a binary's accelerators.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceleratorError {
    /// The binary could not be started, or not be watched.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It was asked, and did not answer in time.
    #[error("`{binary}` did not list its accelerators within {limit:?}")]
    TimedOut {
        /// The binary.
        binary: String,
        /// The limit.
        limit: Duration,
    },
    /// It was asked, and said something else; it may be no QEMU.
    #[error("`{binary}` did not list its accelerators, and {exit}")]
    NoList {
        /// The binary.
        binary: String,
        /// How it ended.
        exit: ProcessExit,
        /// The end of what it said.
        said: Tail,
    },
    /// It was asked, and did not cease to speak; it is no QEMU.
    #[error("`{binary}` said too much to be a list of accelerators")]
    TooMuch {
        /// The binary.
        binary: String,
    },
    /// The system lacks memory or descriptors.
    #[error("could not make what a measurement needs")]
    System(#[source] io::Error),
}

impl Accelerators {
    /// How long a measurement takes at most, unless there is a reason for more: 5 s. Where all is well it takes half a
    /// second, on a busy machine one or two.
    pub const LIMIT: Duration = Duration::from_secs(5);

    /// Asks `binary` which accelerators it was built with; 5 s at most.
    ///
    /// # Errors
    /// [`AcceleratorError`] when it cannot be started, or answers otherwise than a QEMU (5.0 or later) does.
    pub async fn of(binary: impl Into<OsString>) -> Result<Self, AcceleratorError> {
        let binary = binary.into();
        let name = || binary.to_string_lossy().into_owned();
        let search = std::env::var_os("PATH");
        let answer = match program::look_at(binary.as_ref(), search.as_deref()).kind.check() {
            Ok(()) => probe::ask(binary.as_ref(), &["-accel", "help"], Self::LIMIT).await,
            Err(error) => Err(Unanswered::Spawn(error)),
        };
        let Answer { exit, said } = answer.map_err(|why| match why {
            Unanswered::Spawn(source) => {
                let reason = program::what_is_wrong(binary.as_ref(), search.as_deref(), &source);
                let kind = LaunchErrorKind::Spawn { role: "binary", program: name(), reason, source };
                LaunchError::new(kind).into()
            }
            Unanswered::TimedOut => AcceleratorError::TimedOut { binary: name(), limit: Self::LIMIT },
            Unanswered::TooMuch => AcceleratorError::TooMuch { binary: name() },
            Unanswered::System(source) => AcceleratorError::System(source),
        })?;
        match listed(&String::from_utf8_lossy(&said)).filter(|_| exit.code() == Some(0)) {
            Some(listed) => Ok(Self { binary, listed }),
            None => {
                let said = Tail { bytes: said, omitted: 0 }.shortened(LAST_WORDS);
                Err(AcceleratorError::NoList { binary: name(), exit, said })
            }
        }
    }

    /// Runs guest code on `accelerator` in a machine of its own, for at most `limit`, and tells how fast it was.
    ///
    /// The machine is ended by force and gone afterwards, also when the future is dropped; that comes on top of the limit,
    /// with 5 s at most. For a binary of another target than `x86_64` the answer is [`crate::Verdict::NotMeasured`].
    ///
    /// # Errors
    /// [`AcceleratorError`] when no machine can be launched for a reason that has nothing to do with the accelerator.
    pub async fn measure(&self, accelerator: &str, limit: Duration) -> Result<Measurement, AcceleratorError> {
        let listed = self.listed.iter().any(|it| it == accelerator);
        let (finding, speed) = match accelerator {
            _ if !listed => (Finding::unusable("is not built into this QEMU"), None),
            "qtest" => (Finding::unusable("runs no guest code, by its nature"), None),
            _ => self.try_out(accelerator, limit).await?,
        };
        let Finding { verdict, why } = finding;
        Ok(Measurement { accelerator: accelerator.to_owned(), listed, verdict, why, speed })
    }

    /// Measures all that are listed, one after the other, TCG first, and compares the others with it.
    ///
    /// # Errors
    /// As [`Accelerators::measure`].
    pub async fn measure_all(&self, limit: Duration) -> Result<Vec<Measurement>, AcceleratorError> {
        let mut measurements: Vec<Measurement> = Vec::new();
        for accelerator in self.in_order() {
            let measurement = self.measure(accelerator, limit).await?;
            let tcg = measurements.first().filter(|first| first.accelerator == TCG);
            measurements.push(match tcg {
                Some(tcg) => measurement.compared_with(tcg),
                None => measurement,
            });
        }
        Ok(measurements)
    }

    /// What is listed, with TCG at its head: what the others are compared with.
    fn in_order(&self) -> impl Iterator<Item = &String> {
        let (tcg, others): (Vec<_>, Vec<_>) = self.listed.iter().partition(|it| *it == TCG);
        tcg.into_iter().chain(others)
    }

    async fn try_out(
        &self,
        accelerator: &str,
        limit: Duration,
    ) -> Result<(Finding, Option<Speed>), AcceleratorError> {
        let start = Instant::now();
        let rom = PassedFd::at(guest::speed_rom().map_err(AcceleratorError::System)?, ROM);
        let config = MachineConfig::new(&self.binary)
            .accelerator(accelerator)
            .console(ConsoleConfig::serial())
            .timeouts(timeouts(limit))
            .fd(rom)
            .args(["-nodefaults", "-no-reboot", "-S", "-m", "4"])
            .args(["-bios".to_owned(), format!("/proc/self/fd/{ROM}")]);
        let machine = match config.launch().await {
            Ok(machine) => machine,
            Err(error) => {
                let left = limit.saturating_sub(start.elapsed());
                return Ok((self.not_launched(accelerator, left, error).await?, None));
            }
        };
        let mut course = Course::new();
        let left = limit.saturating_sub(start.elapsed());
        let outcome = within(left, "measurement", course.run(&machine, accelerator)).await;
        // One that cannot be ended is the supervisor's to go on with; what was measured is true all the same.
        let exit = machine.kill().await.ok();
        let finding = match outcome {
            Ok(Ok(())) => Finding::of(course.speed),
            Ok(Err(Fault::Ended)) => Finding::unusable(course.stage.ended(exit.as_ref())),
            Ok(Err(Fault::Stopped(status))) => {
                Finding::unusable(course.stage.stopped(&status, exit.as_ref()))
            }
            Ok(Err(Fault::Foreign(finding))) => finding,
            Err(_) => course.stage.late(limit),
        };
        Ok((finding, course.speed))
    }

    /// What it means that no machine came up: the accelerator's fault, if this is a binary for x86.
    async fn not_launched(
        &self,
        accelerator: &str,
        left: Duration,
        error: LaunchError,
    ) -> Result<Finding, AcceleratorError> {
        match error.kind() {
            LaunchErrorKind::Exited(_) => {}
            LaunchErrorKind::TimedOut { limit } => {
                return Ok(Finding::unusable(format!("did not let QEMU start within {limit:?}")));
            }
            _ => return Err(error.into()),
        }
        match self.target(accelerator, left).await {
            Some(target) if target != TARGET => Ok(Finding::foreign(&target, accelerator)),
            _ => Ok(Finding::unusable(format!("does not start: {}", last_words(error.log())))),
        }
    }

    /// What a machine without anything in it says of its target.
    async fn target(&self, accelerator: &str, limit: Duration) -> Option<String> {
        let config = MachineConfig::new(&self.binary).machine_type("none").timeouts(timeouts(limit));
        let works_always = self.listed.iter().any(|it| it == TCG);
        let machine = config.accelerator(if works_always { TCG } else { accelerator }).launch().await.ok()?;
        let target = target(&machine).await.ok();
        // As above.
        let _exit = machine.kill().await;
        target
    }
}

/// The accelerator that is in nearly every build, and depends on nothing outside of it.
const TCG: &str = "tcg";

/// How much of an answer an error carries.
const LAST_WORDS: usize = 8 << 10;

/// The number under which QEMU finds the guest.
const ROM: RawFd = 9;

fn timeouts(limit: Duration) -> Timeouts {
    Timeouts { connect: limit, command: limit, console: limit, kill: Duration::from_secs(5) }
}

/// The names behind the headline of `-accel help`; `None` without it.
fn listed(said: &str) -> Option<Vec<String>> {
    let (_, names) = said.split_once("Accelerators supported in QEMU binary:")?;
    let names = names.lines().map(str::trim).filter(|line| !line.is_empty());
    // Whoever says more (a library's warning, a wrapper) says it in more than one word.
    Some(names.filter(|line| !line.contains(char::is_whitespace)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_follows_its_headline() {
        let list = |text| listed(text).map(|names| names.join(" "));

        let said = "warning: odd\nAccelerators supported in QEMU binary:\ntcg\nkvm\n";
        assert_eq!(list(said).as_deref(), Some("tcg kvm"));
        assert_eq!(list("Accelerators supported in QEMU binary:\n").as_deref(), Some(""));
        assert_eq!(list("Usage: cat [OPTION]... [FILE]...\n"), None);
    }
}
