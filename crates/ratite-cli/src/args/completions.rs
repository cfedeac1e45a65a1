//! The words of `ratite completions`, and what completes words that only this computer knows.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Arg;
use clap::Args;
use clap::Command;
use clap::ValueEnum;
use clap_complete::engine::ArgValueCandidates;
use clap_complete::engine::CompletionCandidate;
use ratite::TemplateCache;
use ratite::TemplateEntry;
use ratite::qmp::within;
use ratite::reach;
use tokio::runtime::Builder;

use crate::table;

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Shell {
    /// As clap_complete calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
}

pub(super) const AT_LENGTH: &str = "\
Writes a script for a shell, with which it completes ratite's command lines.

The shell asks `ratite` itself for what fits, so that the names of machines and templates
are completed, too, and no script grows old.";

pub(super) const EXAMPLES: &str = "\
Examples:
  source <(ratite completions bash)       # now; in ~/.bashrc for always
  ratite completions bash > ~/.local/share/bash-completion/completions/ratite
  ratite completions zsh > ~/.zfunc/_ratite        # a folder in $fpath
  ratite completions fish > ~/.config/fish/completions/ratite.fish";

/// How long a shell may wait for the names of machines.
const LIMIT: Duration = Duration::from_secs(1);

/// `command` with completers for what is a machine, a template, a QEMU, or an accelerator, in each of its verbs.
pub(super) fn completed(command: Command) -> Command {
    command.mut_args(completed_argument).mut_subcommands(completed)
}

fn completed_argument(argument: Arg) -> Arg {
    let is_named = |name: &str| {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().any(|value| value.split('|').any(|part| part == name))
    };
    let candidates = match argument.get_id().as_str() {
        "target" => machines,
        "from" | "template" | "templates" => templates,
        "command" if is_named("QEMU") => qemus,
        "binary" | "qemu" if is_named("BINARY") => qemus,
        "accel" => accelerators,
        "console" if is_named("KIND") => consoles,
        _ => return argument,
    };
    argument.add(ArgValueCandidates::new(candidates))
}

/// The machines that are reachable now, with what they do.
fn machines() -> Vec<CompletionCandidate> {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let listed = runtime.block_on(async { within(LIMIT, "machines", reach::list()).await });
    let machines = listed.ok().and_then(Result::ok).unwrap_or_default();
    let candidate = |it: reach::Facts| CompletionCandidate::new(it.name).help(Some(it.state.into()));
    machines.into_iter().map(candidate).collect()
}

/// The templates, with their sizes.
fn templates() -> Vec<CompletionCandidate> {
    let listed = TemplateCache::user().ok().and_then(|cache| cache.list().ok()).unwrap_or_default();
    let candidate = |it: TemplateEntry| {
        let about = it.damage.unwrap_or_else(|| table::size(it.size));
        CompletionCandidate::new(it.name).help(Some(about.into()))
    };
    listed.into_iter().map(candidate).collect()
}

/// The QEMUs in `PATH`.
fn qemus() -> Vec<CompletionCandidate> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&search);
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let names: BTreeSet<_> = files.map(|file| file.file_name()).collect();
    let qemus = names.into_iter().filter(|name| name.as_encoded_bytes().starts_with(b"qemu-system-"));
    qemus.map(CompletionCandidate::new).collect()
}

fn accelerators() -> Vec<CompletionCandidate> {
    Vec::from(["auto", "kvm", "tcg"].map(CompletionCandidate::new))
}

fn consoles() -> Vec<CompletionCandidate> {
    Vec::from(["serial", "virtconsole", "none"].map(CompletionCandidate::new))
}
