//! The words of the command line, as types.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use ratite::BadPattern;
use ratite::Pattern;

use crate::duration;
use crate::report::Failure;

/// Reads the program's arguments.
pub(crate) fn parse() -> Result<Cli, Failure> {
    Cli::try_parse().map_err(Failure::Arguments)
}

/// Runs QEMU machines: starts one, shows its console, and ends it; nothing is left behind.
#[derive(Debug, Parser)]
#[command(name = "ratite", version, max_term_width = 100, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Runs a tiny guest in QEMU, talks to it, and shows what happens, in a second
    #[command(after_help = DEMO_EXAMPLE)]
    Demo(Demo),
    /// Tells which accelerators of a QEMU are of use here, by running guest code on each
    #[command(after_help = ACCEL_EXAMPLES, long_about = ACCEL_AT_LENGTH)]
    Accel(Accel),
    /// Runs your own QEMU command line, with its serial console on stdout
    #[command(after_help = RUN_EXAMPLES, long_about = RUN_AT_LENGTH, override_usage = RUN_USAGE)]
    Run(Box<Run>),
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The QEMU to run, one for x86
    #[arg(long, value_name = "BINARY", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct Accel {
    /// The QEMU to ask
    #[arg(value_name = "BINARY", default_value = "qemu-system-x86_64")]
    pub(crate) binary: OsString,

    /// How long the measurement of one accelerator may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) limit: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Ends the machine, and succeeds, once this text is on the console
    #[arg(long, value_name = "TEXT", value_parser = literal)]
    pub(crate) expect: Option<Pattern>,

    /// The same for a regular expression over bytes
    #[arg(long, value_name = "REGEX", value_parser = regex, conflicts_with = "expect")]
    pub(crate) expect_regex: Option<Pattern>,

    /// Ends the machine, and fails, after a time such as 500ms, 30s, 2m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,

    /// Writes the console to this file, too, over an older one
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// How long an end may take before the machine is killed
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) grace: Duration,

    /// Lets other programs speak QMP with the machine, on a Unix socket made at this path; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) qmp: Vec<PathBuf>,

    /// Starts QEMU by another program, with its arguments as in a shell, such as 'taskset -c 1'
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    pub(crate) wrapper: Option<Words>,

    /// Keeps what QEMU itself says in this folder, as NAME.log; an older one becomes NAME.log.1
    #[arg(long, value_name = "FOLDER")]
    pub(crate) log_folder: Option<PathBuf>,

    /// The NAME of that log; by default one that no other machine has
    #[arg(long, value_name = "NAME", requires = "log_folder")]
    pub(crate) name: Option<OsString>,

    /// Makes the machine's work folder, which goes with it, in this folder instead of /var/tmp
    #[arg(long, value_name = "FOLDER")]
    pub(crate) base_folder: Option<PathBuf>,

    /// The QEMU to run, and its arguments
    #[arg(value_name = "QEMU", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// The words of a command, as a shell reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

fn words(command: &str) -> Result<Words, &'static str> {
    match shlex::split(command) {
        None => Err("a quote is not closed, or nothing is behind a backslash"),
        Some(words) if words.is_empty() => Err("it names no program"),
        Some(words) => Ok(Words(words)),
    }
}

fn literal(text: &str) -> Result<Pattern, &'static str> {
    match text {
        "" => Err("it is there before the machine has said anything"),
        text => Ok(Pattern::literal(text)),
    }
}

fn regex(expression: &str) -> Result<Pattern, BadPattern> {
    Pattern::regex(expression)
}

const EXIT_CODES: &str = "\
Exit codes:
      0  it worked
      1  QEMU, the guest or the system said no
      2  the command line was wrong
      3  the machine could not be launched
      4  the time was over
     70  a bug in ratite
  128+n  signal n ended it: 130 for Ctrl-C, 143 for SIGTERM, 141 when nobody
         reads stdout any more

Environment:
  RATITE_LOG  what to log on stderr: error (the default), warn, debug, ratite=trace, …
  NO_COLOR    no colours, if set";

const RUN_USAGE: &str = "ratite run [OPTIONS] -- <QEMU> [ARGUMENTS]...";

const RUN_AT_LENGTH: &str = "\
Runs your own QEMU command line, with its serial console on stdout.

ratite puts before your arguments: no display, a QMP monitor, and the first
serial port, which goes to stdout byte by byte. What QEMU says itself goes to
stderr when it has ended. stdin is not read.

The machine ends when the guest powers off; when what --expect waits for
appears, or the time is over; with Ctrl-C, SIGTERM or SIGHUP; and when nobody
reads stdout any more. It is asked to quit, and killed after its grace or at a
second Ctrl-C. A reader of stdout that is slower than the guest holds it up.

-nographic works as ever. A first `-serial stdio` or `-serial mon:stdio` asks for
what ratite does anyway, and is left out. Any other -serial keeps the first serial
port: no console is shown then, and --expect and --log cannot be had.";

const DEMO_EXAMPLE: &str = "\
Examples:
  ratite demo
  ratite demo --qemu ./build/qemu-system-x86_64";

const ACCEL_AT_LENGTH: &str = "\
Tells which accelerators of a QEMU are of use here, by running guest code on each.

That /dev/kvm opens, or that QEMU says it uses KVM, does not say that guests run:
where virtualisation is only emulated, they run a thousand times too slowly. So each
accelerator that the binary lists gets a machine of its own, with a few bytes of
64-bit code that compute, leave the guest, and change page tables.

SPEED is how often a second that code did five instructions. What computes less than
a quarter as fast as TCG, or leaves the guest less than 2000 times a second, is not
usable. For a QEMU of another target than x86_64 nothing is measured.";

const ACCEL_EXAMPLES: &str = "\
Examples:
  ratite accel
  ratite accel --limit 30s ./build/qemu-system-x86_64

Exit codes: 0 when at least one is usable; 1 when none is known to be; 2 usage;
3 the binary could not be started; 4 it did not list them in time.";

const RUN_EXAMPLES: &str = "\
Examples:
  ratite run -- qemu-system-x86_64 -m 512 -kernel bzImage -append console=ttyS0
  ratite run --expect 'login: ' --timeout 2m -- qemu-system-x86_64 -m 512 disk.img
  ratite run --expect-regex 'passed: \\d+' --log out -- qemu-system-i386 -cdrom a.iso
  ratite run --wrapper 'taskset -c 1' --qmp ./qmp.sock -- qemu-system-aarch64 -M virt

Exit codes: 0 when the machine ended well, or what was expected appeared; 1 when it
ended otherwise; 2 usage; 3 not launched; 4 time over; 128+n ended by signal n.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_behind_the_binary_is_qemus() {
        let cli =
            Cli::try_parse_from(["ratite", "run", "--grace", "1s", "qemu", "--timeout", "x", "--", "-S"])
                .unwrap();

        let Verb::Run(run) = cli.verb else { panic!("{cli:?}") };
        assert_eq!(run.command, ["qemu", "--timeout", "x", "--", "-S"]);
        assert_eq!((run.timeout, run.grace), (None, Duration::from_secs(1)));
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
