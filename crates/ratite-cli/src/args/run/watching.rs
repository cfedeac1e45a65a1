//! What is watched of a machine: its console, and what is looked for on it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use ratite::BadPattern;
use ratite::ConsoleConfig;
use ratite::Pattern;
use ratite::Patterns;

use crate::args::Run;

/// What a machine is to say.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = CONSOLE)]
pub(crate) struct Expecting {
    /// Ends the machine, and succeeds, once this text is on the console; the first of several counts
    #[arg(long, value_name = "TEXT", value_parser = literal)]
    pub(crate) expect: Vec<Pattern>,

    /// The same for a regular expression over bytes
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    pub(crate) expect_regex: Vec<Pattern>,
}

/// What it is not to say, and what becomes of what it says.
#[derive(Debug, Args)]
#[command(next_help_heading = CONSOLE)]
pub(crate) struct Watching {
    /// Ends the machine, and fails, once this text is on the console; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = literal)]
    pub(crate) fail_on: Vec<Pattern>,

    /// The same for a regular expression over bytes
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    pub(crate) fail_on_regex: Vec<Pattern>,

    /// The same for what a Linux guest prints when it went wrong: a panic, an oops, a bug, a refused login, …
    #[arg(long)]
    pub(crate) fail_on_linux: bool,

    /// Writes the console to this file, too, over an older one
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Shows nothing of the console on stdout
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,

    /// Writes what happens to stdout as one JSON object a line, the console in some of them
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is above the options that are about it.
pub(crate) const CONSOLE: &str = "Its console";

impl Run {
    /// What is looked for, if anything is.
    pub(crate) fn patterns(&self) -> Option<Patterns> {
        let Watching { fail_on, fail_on_regex, fail_on_linux, .. } = &self.watching;
        let wanted = self.expecting.expect.iter().chain(&self.expecting.expect_regex).cloned();
        let linux = fail_on_linux.then(Pattern::linux_failures).unwrap_or_default();
        let failures: Vec<_> = fail_on.iter().chain(fail_on_regex).cloned().chain(linux).collect();
        let patterns = Patterns::any(wanted).failing_on(failures);
        patterns.get(0).is_some().then_some(patterns)
    }

    /// The first of what was asked for that there is only with a console.
    pub(crate) fn needs_console(&self) -> Option<&'static str> {
        let [text, regex] = match self.making {
            Some(_) => ["--until", "--until-regex"],
            None => ["--expect", "--expect-regex"],
        };
        let asked = [
            (text, !self.expecting.expect.is_empty()),
            (regex, !self.expecting.expect_regex.is_empty()),
            ("--fail-on", !self.watching.fail_on.is_empty()),
            ("--fail-on-regex", !self.watching.fail_on_regex.is_empty()),
            ("--fail-on-linux", self.watching.fail_on_linux),
            ("--log", self.watching.log.is_some()),
        ];
        asked.into_iter().find(|(_, is_asked)| *is_asked).map(|(option, _)| option)
    }
}

/// What the console is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ConsoleKind {
    #[default]
    Serial,
    Virtconsole,
    /// A device of this type.
    Device(OsString),
    None,
}

impl ConsoleKind {
    /// The device, if there is to be one.
    pub(crate) fn config(&self) -> Option<ConsoleConfig> {
        match self {
            Self::Serial => Some(ConsoleConfig::serial()),
            Self::Virtconsole => Some(ConsoleConfig::virtconsole()),
            Self::Device(device) => Some(ConsoleConfig::device(device)),
            Self::None => None,
        }
    }
}

pub(crate) fn console(text: &str) -> Result<ConsoleKind, &'static str> {
    match text {
        "" => Err("it names no device"),
        "serial" => Ok(ConsoleKind::Serial),
        "virtconsole" => Ok(ConsoleKind::Virtconsole),
        "none" => Ok(ConsoleKind::None),
        device => Ok(ConsoleKind::Device(device.into())),
    }
}

pub(crate) fn literal(text: &str) -> Result<Pattern, &'static str> {
    match text {
        "" => Err("it is there before the machine has said anything"),
        text => Ok(Pattern::literal(text)),
    }
}

pub(crate) fn regex(expression: &str) -> Result<Pattern, BadPattern> {
    Pattern::regex(expression)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::args::Verb;
    use clap::Parser;

    fn patterns(line: &str) -> Option<Patterns> {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let words = ["ratite", "run"].into_iter().chain(words).chain(["--", "qemu"]);
        let Verb::Run(run) = Cli::try_parse_from(words).unwrap().verb else { panic!() };
        run.patterns()
    }

    #[test]
    fn all_that_is_wanted_and_feared_is_one_set() {
        let set = patterns("--fail-on p --expect a --expect-regex b+ --expect c --fail-on-regex q+").unwrap();

        assert_eq!(set.to_string(), "`a`, `c` or /b+/");
        let all: Vec<_> = (0..5).map(|index| set.get(index).unwrap().to_string()).collect();
        assert_eq!(all, ["`a`", "`c`", "/b+/", "`p`", "/q+/"]);
        assert!(patterns("").is_none());
        assert_eq!(patterns("--fail-on-linux").unwrap().wanted(), 0);
    }
}
