//! The words of `ratite run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ratite::BadPattern;
use ratite::Pattern;

use crate::duration;

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

    /// Makes the machine reachable by this name for `ratite ls`, `console`, `log`, `stop`, `wait` and other programs of
    /// this user; it names the log in --log-folder, too
    #[arg(long, value_name = "NAME")]
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

pub(super) const USAGE: &str = "ratite run [OPTIONS] -- <QEMU> [ARGUMENTS]...";

pub(super) const AT_LENGTH: &str = "\
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

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite run -- qemu-system-x86_64 -m 512 -kernel bzImage -append console=ttyS0
  ratite run --expect 'login: ' --timeout 2m -- qemu-system-x86_64 -m 512 disk.img
  ratite run --expect-regex 'passed: \\d+' --log out -- qemu-system-i386 -cdrom a.iso
  ratite run --name web -- qemu-system-x86_64 -m 512 disk.img     # then: ratite console web
  ratite run --wrapper 'taskset -c 1' --qmp ./qmp.sock -- qemu-system-aarch64 -M virt

Exit codes: 0 when the machine ended well, or what was expected appeared; 1 when it
ended otherwise; 2 usage; 3 not launched; 4 time over; 128+n ended by signal n.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::args::Verb;
    use clap::Parser;

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
