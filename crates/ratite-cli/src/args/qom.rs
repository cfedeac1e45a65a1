//! The words of `ratite qom`.

use std::time::Duration;

use clap::Args;
use clap::Subcommand;

use crate::args::Form;
use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Qom {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Tells a property's value, or the values of all properties of an object
    #[command(
        after_help = "Examples:\n  ratite qom get ./qmp.sock /machine.type\n  ratite qom get ./qmp.sock net0"
    )]
    Get {
        #[command(flatten)]
        machine: Machine,
        /// PATH.PROPERTY, or the PATH of an object; the rest of an unambiguous path will do
        #[arg(value_name = "PATH[.PROPERTY]")]
        place: String,
        /// The property, if it is not behind the path
        property: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Sets a property to a value, which is sent as what the property's type is
    #[command(override_usage = "ratite qom set [OPTIONS] <NAME|ADDRESS> <PATH>.<PROPERTY> <VALUE>\n       \
                                ratite qom set [OPTIONS] <NAME|ADDRESS> <PATH> <PROPERTY> <VALUE>", after_help = SET)]
    Set {
        #[command(flatten)]
        machine: Machine,
        /// PATH.PROPERTY, or PATH and PROPERTY, and then the value
        #[arg(value_name = "PATH.PROPERTY VALUE", required = true, num_args = 2..=3, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Lists an object's children (NAME/), links (@NAME) and properties with their types
    #[command(after_help = "Example:\n  ratite qom list ./qmp.sock /machine")]
    List {
        #[command(flatten)]
        machine: Machine,
        /// The object
        #[arg(default_value = "/")]
        path: String,
        #[command(flatten)]
        form: Form,
    },
    /// Lists an object, its children, theirs, and so on, with their types
    #[command(after_help = "Example:\n  ratite qom tree ./qmp.sock /machine --depth 2")]
    Tree {
        #[command(flatten)]
        machine: Machine,
        /// The object
        #[arg(default_value = "/")]
        path: String,
        /// How many levels below the object are listed
        #[arg(long, value_name = "LEVELS", default_value_t = usize::MAX, hide_default_value = true)]
        depth: usize,
        /// Tells the properties of each, too, with their values
        #[arg(long, short = 'v')]
        values: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Tells a property's value, and tells it again whenever it has changed
    #[command(after_help = "Example:\n  ratite qom watch ./qmp.sock sda.locked --until true --timeout 1m")]
    Watch(Watch),
}

/// How the machine is reached.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// How long each answer of QEMU may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "10s")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// PATH.PROPERTY, or PATH
    #[arg(value_name = "PATH[.PROPERTY]")]
    pub(crate) place: String,

    /// The property, if it is not behind the path
    pub(crate) property: Option<String>,

    /// How often QEMU is asked
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1s")]
    pub(crate) interval: Duration,

    /// Ends, and succeeds, once this is the value
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,

    /// How long that may take; for ever if this is not given
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "until")]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) form: Form,
}

pub(super) const AT_LENGTH: &str = "\
Looks into the objects a QEMU is made of (its object model, QOM), and sets their properties.

An object has a path, such as /machine/peripheral/net0, and properties of many types.
A path that does not begin with a slash is the end of one: `net0` will do, as long as
only one path ends in it. A monitor serves one client at a time.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite qom get ./qmp.sock /machine.type
  ratite qom get ./qmp.sock net0
  ratite qom set ./qmp.sock /machine/peripheral/balloon0.guest-stats-polling-interval 2
  ratite qom tree ./qmp.sock /machine --depth 2
  ratite qom watch ./qmp.sock sda.locked --until true --timeout 1m

Exit codes: 0 ok; 1 QEMU refused, or there is no such object or property; 2 usage, such
as a value that is not of the property's type; 4 time over; 128+n ended by signal n.";

const SET: &str = "\
Examples:
  ratite qom set ./qmp.sock /objects/disk-limits.iops-total 500
  ratite qom set ./qmp.sock sensor0 temperature -5000

A bool is true or false, on or off, yes or no; a number decimal, or hexadecimal behind 0x;
a size may end in k, M, G or T; what has a type of its own is JSON, or a word.";
