//! The words of `ratite run`.

pub(super) mod hardware;
pub(super) mod watching;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::duration;

pub(crate) use hardware::Accelerator;
pub(crate) use hardware::Hardware;
pub(crate) use watching::ConsoleKind;
pub(crate) use watching::Expecting;
pub(crate) use watching::Watching;

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) hardware: Hardware,

    /// Goes on with a machine of this template instead of booting one; see `ratite template --help`
    #[arg(long, value_name = "TEMPLATE", help_heading = hardware::MACHINE)]
    pub(crate) from: Option<String>,

    /// Which device it is: serial (if nothing is said), virtconsole, the type of another, or none
    #[arg(long, value_name = "KIND", value_parser = watching::console, help_heading = watching::CONSOLE)]
    pub(crate) console: Option<ConsoleKind>,

    #[command(flatten)]
    pub(crate) expecting: Expecting,

    #[command(flatten)]
    pub(crate) watching: Watching,

    #[command(flatten)]
    pub(crate) ending: Ending,

    #[command(flatten)]
    pub(crate) around: Around,

    /// Makes the machine's work folder, which goes with it, in this folder instead of /var/tmp
    #[arg(long, value_name = "FOLDER", help_heading = AROUND)]
    pub(crate) base_folder: Option<PathBuf>,

    /// Starts QEMU by another program, with its arguments as in a shell, such as 'taskset -c 1'
    #[arg(long, value_name = "COMMAND", value_parser = words, help_heading = AROUND)]
    pub(crate) wrapper: Option<Words>,

    /// Gives the machine the channel of QEMU's guest agent, for `ratite agent NAME`; it has to run in the guest
    #[arg(long, requires = "name", help_heading = AROUND)]
    pub(crate) agent: bool,

    /// The QEMU to run, and its arguments; or arguments alone, for qemu-system-x86_64
    #[arg(
        value_name = "QEMU",
        num_args = 1..,
        trailing_var_arg = true,
        help_heading = None,
        required_unless_present_any = ["kernel", "memory", "cpus", "machine", "accel", "from"],
    )]
    pub(crate) command: Vec<OsString>,

    /// What is made of it, where that is what it is run for.
    #[arg(skip)]
    pub(crate) making: Option<Making>,
}

/// A template that is to be made of a machine.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) name: String,
    /// Without waiting for anything that the guest says.
    pub(crate) at_once: bool,
}

/// When a machine ends, and what is left.
#[derive(Debug, Args)]
#[command(next_help_heading = ENDING)]
pub(crate) struct Ending {
    #[command(flatten)]
    pub(crate) limits: Limits,

    /// Takes a picture of the screen right before the end; gives the machine a screen, and QEMU -no-shutdown
    #[arg(long, value_name = "FILE.png")]
    pub(crate) screenshot_on_exit: Option<PathBuf>,

    /// Keeps the machine's work folder, with the console in it as console.log, and says where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

/// How long things may take.
#[derive(Debug, Args)]
#[command(next_help_heading = ENDING)]
pub(crate) struct Limits {
    /// Ends the machine, and fails, after a time such as 500ms, 30s, 2m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,

    /// How long an end may take before the machine is killed
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) grace: Duration,
}

/// What stands around a machine.
#[derive(Debug, Args)]
#[command(next_help_heading = AROUND)]
pub(crate) struct Around {
    /// Lets other programs speak QMP with the machine, on a Unix socket made at this path; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) qmp: Vec<PathBuf>,

    /// Keeps what QEMU itself says in this folder, as NAME.log; an older one becomes NAME.log.1
    #[arg(long, value_name = "FOLDER")]
    pub(crate) log_folder: Option<PathBuf>,

    /// Makes the machine reachable by this name, as in `ratite console NAME`; names the log in --log-folder, too
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<OsString>,
}

/// The QEMU that is run when none is named.
const QEMU: &str = "qemu-system-x86_64";

pub(super) const ENDING: &str = "Its end";

pub(super) const AROUND: &str = "Around it";

impl Run {
    /// The QEMU to run, and the arguments that the user gives it.
    pub(crate) fn binary_and_arguments(&self) -> (OsString, Vec<OsString>) {
        match self.command.split_first() {
            Some((first, rest)) if !first.as_encoded_bytes().starts_with(b"-") => {
                (first.clone(), rest.to_vec())
            }
            _ => (QEMU.into(), self.command.clone()),
        }
    }

    /// The first of what was asked for that a template has settled already.
    pub(crate) fn settled(&self) -> Option<&'static str> {
        let Hardware { kernel, initrd, append, memory, cpus, machine, screen, accel } = &self.hardware;
        let asked = [
            ("`--kernel`", kernel.is_some()),
            ("`--initrd`", initrd.is_some()),
            ("`--append`", !append.is_empty()),
            ("`--memory`", memory.is_some()),
            ("`--cpus`", cpus.is_some()),
            ("`--machine`", machine.is_some()),
            ("`--screen`", *screen),
            ("`--accel`", accel.is_some()),
            ("`--console`", self.console.is_some()),
            ("`--wrapper`", self.wrapper.is_some()),
            ("`--agent`", self.agent),
            ("a QEMU with its arguments", !self.command.is_empty()),
        ];
        asked.into_iter().find(|(_, is_asked)| *is_asked).map(|(option, _)| option)
    }
}

/// The words of a command, as a shell reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

pub(super) fn words(command: &str) -> Result<Words, &'static str> {
    match shlex::split(command) {
        None => Err("a quote is not closed, or nothing is behind a backslash"),
        Some(words) if words.is_empty() => Err("it names no program"),
        Some(words) => Ok(Words(words)),
    }
}

pub(super) const USAGE: &str = "ratite run [OPTIONS] -- <QEMU> [ARGUMENTS]...
       ratite run --kernel <FILE> [OPTIONS] [-- ARGUMENTS...]
       ratite run --from <TEMPLATE> [OPTIONS]";

pub(super) const AT_LENGTH: &str = "\
Runs a QEMU command line, with its serial console on stdout.

What is behind `--` is yours: a QEMU and its arguments. With options such as --kernel
or --memory the QEMU may be left out; it is qemu-system-x86_64 then. What ratite adds
comes before your arguments, so that QEMU's rules for repeated options let yours win:
no display, a QMP monitor, the first serial port, and what the options ask for.

The console goes to stdout byte by byte. What QEMU says itself goes to stderr when it
has ended. stdin is not read. While stdout is no terminal, and stderr is one, a line
there tells what is going on; it is gone at the end.

The machine ends when the guest powers off or panics; when something appears that
--expect or --fail-on waits for, or the time is over; with Ctrl-C, SIGTERM or SIGHUP;
and when nobody reads stdout any more. It is asked to quit, and killed after its grace
or at a second Ctrl-C. A reader of stdout that is slower than the guest holds it up.

-nographic works as ever. A first `-serial stdio` or `-serial mon:stdio` asks for
what ratite does anyway, and is left out. Any other -serial keeps the first serial
port: no console is shown then, and --expect and --log cannot be had.

With --from, the machine is one of a template (`ratite template create`): it goes on where
that was frozen. What it is made of cannot be changed then; all else is as ever.

--screenshot-on-exit has its picture whatever ends the machine, but for what ends QEMU
itself at once: a crash, a SIGKILL, isa-debug-exit.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite run --kernel bzImage --append console=ttyS0 --memory 512M --accel auto
  ratite run -- qemu-system-x86_64 -m 512 -kernel bzImage -append console=ttyS0
  ratite run --expect 'login: ' --fail-on-linux --timeout 2m -- -m 512 disk.img
  ratite run --expect-regex 'passed: \\d+' --log out -- qemu-system-i386 -cdrom a.iso
  ratite run --name web -- qemu-system-x86_64 -m 512 disk.img     # then: ratite console web
  ratite run --from shell --name one               # a guest that has booted already
  ratite run --json --kernel bzImage --initrd test.cpio | jq -r 'select(.text).text'
  ratite run --screenshot-on-exit last.png --timeout 1m -- -cdrom a.iso
  ratite run --wrapper 'taskset -c 1' --qmp ./qmp.sock -- qemu-system-aarch64 -M virt

Exit codes: 0 when the machine ended well, or what was expected appeared; 1 when it
ended otherwise; 2 usage; 3 not launched; 4 time over; 128+n ended by signal n.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::args::Verb;
    use clap::Parser;

    fn parsed(words: &[&str]) -> Box<Run> {
        let cli = Cli::try_parse_from(["ratite", "run"].iter().chain(words)).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("{cli:?}") };
        run
    }

    #[test]
    fn everything_behind_the_binary_is_qemus() {
        let run = parsed(&["--grace", "1s", "qemu", "--timeout", "x", "--", "-S"]);

        assert_eq!(run.command, ["qemu", "--timeout", "x", "--", "-S"]);
        assert_eq!((run.ending.limits.timeout, run.ending.limits.grace), (None, Duration::from_secs(1)));
    }

    #[test]
    fn a_qemu_that_is_not_named_is_the_usual_one() {
        let check = |words: &[&str], binary: &str, arguments: &[&str]| {
            let (shown, rest) = parsed(words).binary_and_arguments();
            assert_eq!(
                (shown.to_str().unwrap(), rest),
                (binary, arguments.iter().map(OsString::from).collect())
            );
        };

        check(&["--kernel", "k"], QEMU, &[]);
        check(&["--kernel", "k", "--", "-S", "x"], QEMU, &["-S", "x"]);
        check(&["--", "-cdrom", "a.iso"], QEMU, &["-cdrom", "a.iso"]);
        check(&["--memory", "1G", "--", "qemu-system-i386", "-S"], "qemu-system-i386", &["-S"]);
        check(&["--", ""], "", &[]);
    }

    #[test]
    fn a_wrapper_is_read_as_a_shell_would() {
        let check = |command, expected: &[&str]| assert_eq!(words(command).unwrap().0, expected);

        check("taskset -c 1", &["taskset", "-c", "1"]);
        check("sh -c 'exec \"$@\"' sh", &["sh", "-c", "exec \"$@\"", "sh"]);
        assert!(words("sh -c 'exec").unwrap_err().contains("quote"));
        assert!(words(" ").unwrap_err().contains("no program"));
    }
}
