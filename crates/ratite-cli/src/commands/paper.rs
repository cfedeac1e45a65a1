//! `ratite completions` and `ratite man`: what is made of the words of the command line.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;

use clap::Command;
use clap_complete::env::Shells;
use clap_mangen::Man;

use crate::args;
use crate::args::Completions;
use crate::report::Failure;

/// Writes the script for a shell.
pub(crate) fn completions(completions: &Completions) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let shell = shells.completer(completions.shell.name()).expect("each of the shells is built in");
    let mut script = Vec::new();
    shell
        .write_registration(args::COMPLETION, "ratite", "ratite", "ratite", &mut script)
        .map_err(Failure::output)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&script).and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Writes a manual page for `ratite` and for each verb, as `ratite-run.1`.
pub(crate) fn manual(folder: &Path) -> Result<(), Failure> {
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    let written = fs::create_dir_all(folder).and_then(|()| write_page(&command, folder));
    written.map_err(|source| Failure::File {
        doing: "write manual pages into",
        path: folder.to_owned(),
        source,
    })
}

fn write_page(command: &Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).title(name.to_uppercase()).manual("ratite").render(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)?;
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).try_for_each(|verb| write_page(verb, folder))
}
