//! The words of `ratite template`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use ratite::Pattern;

use crate::args::Run;
use crate::args::Words;
use crate::args::run::AROUND;
use crate::args::run::Around;
use crate::args::run::ConsoleKind;
use crate::args::run::ENDING;
use crate::args::run::Ending;
use crate::args::run::Expecting;
use crate::args::run::Hardware;
use crate::args::run::Limits;
use crate::args::run::Making;
use crate::args::run::Watching;
use crate::args::run::watching;
use crate::args::run::words;

#[derive(Debug, Args)]
pub(crate) struct Template {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Boots a machine, freezes it once it is ready, and keeps it as a template
    #[command(after_help = CREATE, long_about = CREATE_AT_LENGTH, override_usage = CREATE_USAGE)]
    Create(Box<Create>),
    /// Lists the templates
    #[command(after_help = LS)]
    Ls {
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Runs a machine that goes on where a template was frozen, with its serial console on stdout
    #[command(after_help = SPAWN, long_about = SPAWN_AT_LENGTH)]
    Spawn(Box<Spawn>),
    /// Removes templates; one of which machines are made or run is in use, and stays
    #[command(after_help = "Example:\n  ratite template rm shell desktop")]
    Rm {
        /// Their names
        #[arg(value_name = "TEMPLATE", required = true)]
        templates: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The template's name, of letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    new: String,

    #[command(flatten)]
    hardware: Hardware,

    /// Which device it is: serial (if nothing is said), virtconsole, the type of another, or none
    #[arg(long, value_name = "KIND", value_parser = watching::console, help_heading = watching::CONSOLE)]
    console: Option<ConsoleKind>,

    /// Freezes the machine once this text is on the console; the first of several counts
    #[arg(
        long,
        value_name = "TEXT",
        value_parser = watching::literal,
        help_heading = watching::CONSOLE,
        required_unless_present_any = ["until_regex", "now"],
    )]
    until: Vec<Pattern>,

    /// The same for a regular expression over bytes
    #[arg(long, value_name = "REGEX", value_parser = watching::regex, help_heading = watching::CONSOLE)]
    until_regex: Vec<Pattern>,

    /// Freezes the machine as soon as QEMU runs, whatever its guest has come to
    #[arg(long, conflicts_with_all = ["until", "until_regex"], help_heading = watching::CONSOLE)]
    now: bool,

    #[command(flatten)]
    watching: Watching,

    #[command(flatten, next_help_heading = ENDING)]
    limits: Limits,

    #[command(flatten)]
    around: Around,

    /// Starts QEMU by another program, with its arguments as in a shell, such as 'taskset -c 1'
    #[arg(long, value_name = "COMMAND", value_parser = words, help_heading = AROUND)]
    wrapper: Option<Words>,

    /// Gives its machines the channel of QEMU's guest agent, by which the guest's clock is set after a resume
    #[arg(long, help_heading = AROUND)]
    agent: bool,

    /// The QEMU to run, and its arguments; or arguments alone, for qemu-system-x86_64
    #[arg(
        value_name = "QEMU",
        num_args = 1..,
        trailing_var_arg = true,
        help_heading = None,
        required_unless_present_any = ["kernel", "memory", "cpus", "machine", "accel"],
    )]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Spawn {
    /// The template's name
    #[arg(value_name = "TEMPLATE")]
    template: String,

    #[command(flatten)]
    expecting: Expecting,

    #[command(flatten)]
    watching: Watching,

    #[command(flatten)]
    ending: Ending,

    #[command(flatten)]
    around: Around,

    /// Makes the machine's work folder, which goes with it, in this folder instead of /var/tmp
    #[arg(long, value_name = "FOLDER", help_heading = AROUND)]
    base_folder: Option<PathBuf>,
}

impl From<Create> for Run {
    /// A run whose end is the template.
    fn from(create: Create) -> Self {
        let Create { new, hardware, console, until, until_regex, now, watching, limits, .. } = create;
        Self {
            hardware,
            from: None,
            console,
            expecting: Expecting { expect: until, expect_regex: until_regex },
            watching,
            ending: Ending { limits, screenshot_on_exit: None, keep: false },
            around: create.around,
            base_folder: None,
            wrapper: create.wrapper,
            agent: create.agent,
            command: create.command,
            making: Some(Making { name: new, at_once: now }),
        }
    }
}

impl From<Spawn> for Run {
    /// `ratite run --from TEMPLATE`.
    fn from(spawn: Spawn) -> Self {
        let Spawn { template, expecting, watching, ending, around, base_folder } = spawn;
        Self {
            hardware: Hardware::default(),
            from: Some(template),
            console: None,
            expecting,
            watching,
            ending,
            around,
            base_folder,
            wrapper: None,
            agent: false,
            command: Vec::new(),
            making: None,
        }
    }
}

pub(super) const AT_LENGTH: &str = "\
Machines that are booted once, frozen, and restored as often as one is wanted.

A template holds a machine as it was at one moment: its memory, its devices, and what
was written to its disks. Each machine of it goes on from there within a fraction of a
second, with memory and disks of its own, at once or later, any number side by side.

Templates are in `ratite/templates` of `$XDG_CACHE_HOME` or `~/.cache`; in `templates` of
`$RATITE_CACHE`, where that is set. They belong to the QEMU that made them.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite template create shell --until '# ' --kernel bzImage --initrd shell.cpio \\
    --append console=ttyS0 --memory 256M --timeout 2m
  ratite template ls
  ratite template spawn shell --name one      # then: ratite console one
  ratite run --from shell --expect done       # the same, as any run
  ratite template rm shell

Exit codes: 0 ok; 1 QEMU or the system said no, there is no such template, or it is in
use; 2 usage; 3 not launched, or no machine could be made of the template; 4 time over;
128+n ended by signal n.";

const CREATE_USAGE: &str = "ratite template create <NAME> --until <TEXT> [OPTIONS] -- <QEMU> [ARGUMENTS]...
       ratite template create <NAME> --until <TEXT> --kernel <FILE> [OPTIONS] [-- ARGUMENTS...]";

const CREATE_AT_LENGTH: &str = "\
Boots a machine, freezes it once it is ready, and keeps it as a template.

The machine is run as by `ratite run`, with its console on stdout, until what --until
waits for is on the console. Then it is frozen, which ends it. What else ends it, such
as --timeout, --fail-on or Ctrl-C, leaves no template. Its disks stay as they were:
what it writes to them is in the template.

With --name others reach it meanwhile, as by `ratite console`: that is how one brings a
machine by hand to where it is to be frozen.";

const CREATE: &str = "\
Examples:
  ratite template create shell --until '# ' --fail-on-linux --timeout 2m \\
    --kernel bzImage --initrd shell.cpio --append console=ttyS0 --memory 256M
  ratite template create disk --until 'login: ' -- qemu-system-x86_64 -m 512 disk.qcow2
  ratite template create firmware --now -- qemu-system-x86_64 -m 64

Exit codes: 0 the template is made; 1 the machine ended before, could not be frozen, or
there is a template of this name; 2 usage; 3 not launched; 4 time over; 128+n ended by
signal n.";

const LS: &str = "\
Examples:
  ratite template ls
  ratite template ls --json | jq -r 'select(.damage != null).name'

Of each template: its name, how long ago it was made and last used, how much room it
takes on the disk, the version of the QEMU that made it, and whether it is as it was.
With --json, the times are in seconds since 1970, and `size` is in bytes.";

const SPAWN_AT_LENGTH: &str = "\
Runs a machine that goes on where a template was frozen, with its serial console on stdout.

The same as `ratite run --from TEMPLATE`; `ratite run --help` tells what becomes of the
console, and what ends the machine. The console begins with the resume: a guest that
stood at a prompt stands there, and says nothing until it is spoken to, as by `ratite
console`. --screenshot-on-exit wants a template of a machine with a screen (--screen).";

const SPAWN: &str = "\
Examples:
  ratite template spawn shell --name one &    # then: ratite console one
  ratite template spawn tests --expect passed --fail-on-linux --timeout 1m

Exit codes: as `ratite run`; 3 also when no machine can be made of the template.";
