//! `ratite screenshot`: a machine's screen, as a PNG or as text.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ratite::Picture;
use ratite::Screen;
use ratite::ScreenError;
use ratite::ScreenText;
use ratite::qmp::Options;

use crate::args::Screenshot;
use crate::commands::dialogue;
use crate::commands::dialogue::Clock;
use crate::commands::unless_signalled;
use crate::report::Failure;
use crate::signals::Signals;

/// Takes a picture, and puts it where it is wanted.
pub(crate) async fn screenshot(words: &Screenshot, signals: &mut Signals) -> Result<(), Failure> {
    check(words)?;
    unless_signalled(signals, async {
        let clock = Clock::start(words.timeout);
        let options = Options::default().connect_limit(Duration::MAX).command_limit(Duration::MAX);
        let client = clock.wait("QMP session", dialogue::connect(&words.target, options)).await??;
        let screen = match &words.device {
            Some(id) => Screen::over(client).device(id).head(words.head),
            None => Screen::over(client),
        };
        let taken = screen.screenshot_png(Duration::MAX);
        let png = clock.wait("picture of the screen", taken).await?.map_err(failure)?;
        if let Some(file) = &words.file {
            write(file, &png)?;
        }
        if words.text {
            write_text(&png)?;
        }
        Ok(())
    })
    .await
}

fn is_stdout(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Refuses what would mix two kinds of data, or write a picture's bytes to a terminal.
fn check(words: &Screenshot) -> Result<(), Failure> {
    let to_stdout = words.file.as_deref().is_some_and(is_stdout);
    let problem = if to_stdout && words.text {
        "the picture and the text cannot both go to stdout"
    } else if to_stdout && io::stdout().is_terminal() {
        "stdout is a terminal, which shows no pictures"
    } else {
        return Ok(());
    };
    Err(Failure::Usage { problem: problem.into(), hint: "name a file in place of `-`".into() })
}

fn write(file: &Path, png: &[u8]) -> Result<(), Failure> {
    if is_stdout(file) {
        return write_out(png);
    }
    std::fs::write(file, png).map_err(|source| Failure::Conversation {
        doing: format!("write `{}`", file.display()),
        source: Box::new(source),
        exit: None,
    })
}

fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::output)
}

fn write_text(png: &[u8]) -> Result<(), Failure> {
    let picture = Picture::from_png(png).map_err(|error| failure(error.into()))?;
    match ScreenText::read(&picture) {
        Some(text) => write_out(text.text().as_bytes()),
        None => Err(failure(ScreenError::NoText { picture })),
    }
}

fn failure(error: ScreenError) -> Failure {
    Failure::Conversation { doing: "take the screenshot".into(), source: Box::new(error), exit: None }
}
