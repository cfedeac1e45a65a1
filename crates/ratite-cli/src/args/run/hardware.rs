//! What a machine is made of: options that stand for QEMU's own.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

/// What is above the options that are about it.
pub(crate) const MACHINE: &str = "The machine";

#[derive(Debug, Default, Args)]
#[command(next_help_heading = MACHINE)]
pub(crate) struct Hardware {
    /// Boots this kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Gives the kernel this initial file system
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,

    /// Tells the kernel this; what is said in several goes together with blanks between
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    pub(crate) append: Vec<OsString>,

    /// The machine's memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<OsString>,

    /// How many processors it has
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<NonZeroU32>,

    /// The type of machine, such as q35
    #[arg(long, value_name = "TYPE")]
    pub(crate) machine: Option<OsString>,

    /// Gives it a screen, which `--screenshot-on-exit` and others look at; no window is opened
    #[arg(long)]
    pub(crate) screen: bool,

    /// What runs the guest's code: tcg, kvm, …; auto measures, as `ratite accel`, and takes the best
    #[arg(long, value_name = "NAME|auto", value_parser = accelerator)]
    pub(crate) accel: Option<Accelerator>,
}

/// What is to run the guest's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// Whatever is found to be the best.
    Auto,
    /// What QEMU's `-accel` takes.
    Named(String),
}

fn accelerator(text: &str) -> Result<Accelerator, &'static str> {
    match text {
        "" => Err("it names none; `tcg` is in every build"),
        "auto" => Ok(Accelerator::Auto),
        name => Ok(Accelerator::Named(name.to_owned())),
    }
}

impl Hardware {
    /// QEMU's own words for it; the accelerator, if there is one, is `accelerator`.
    pub(crate) fn arguments(&self, accelerator: Option<&str>) -> Vec<OsString> {
        let append = self.append.join(" ".as_ref());
        let options = [
            ("-machine", self.machine.clone()),
            ("-accel", accelerator.map(OsString::from)),
            ("-m", self.memory.clone()),
            ("-smp", self.cpus.map(|cpus| cpus.to_string().into())),
            ("-kernel", self.kernel.clone().map(OsString::from)),
            ("-initrd", self.initrd.clone().map(OsString::from)),
            ("-append", (!append.is_empty()).then_some(append)),
        ];
        let given = options.into_iter().filter_map(|(option, value)| Some([option.into(), value?]));
        given.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::args::Verb;
    use clap::Parser;

    #[test]
    fn options_become_qemus_own_in_a_fixed_order() {
        let line = "ratite run --append console=ttyS0 --append -x=1 --kernel k --initrd i --memory 2G --cpus 4 --machine q35";
        let Verb::Run(run) = Cli::try_parse_from(line.split(' ')).unwrap().verb else { panic!() };

        let words = run.hardware.arguments(Some("tcg"));

        let shown: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let expected = "-machine q35|-accel tcg|-m 2G|-smp 4|-kernel k|-initrd i";
        let expected: Vec<_> = expected.split(['|', ' ']).chain(["-append", "console=ttyS0 -x=1"]).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_accelerator_is_named_or_found() {
        assert_eq!(accelerator("auto"), Ok(Accelerator::Auto));
        assert_eq!(accelerator("tcg,thread=multi"), Ok(Accelerator::Named("tcg,thread=multi".into())));
        assert!(accelerator("").is_err());
    }
}
