//! `ratite keys`: types a text, and presses keys.

use ratite::Input;
use ratite::InputError;
use ratite::qmp::ExecuteError;
use ratite::qmp::Options;

use crate::args::Keys;
use crate::commands::dialogue;
use crate::commands::unless_signalled;
use crate::report::Failure;
use crate::signals::Signals;

/// Types and presses what is asked for. A key that is pressed is released by QEMU, also when a signal ends us.
pub(crate) async fn keys(words: &Keys, signals: &mut Signals) -> Result<(), Failure> {
    if let Some(text) = &words.text {
        words.layout.keys(text).map_err(|error| failure(error.into()))?;
    }
    unless_signalled(signals, async {
        let options = Options::default().connect_limit(words.timeout).command_limit(words.timeout);
        let input = Input::over(dialogue::connect(&words.target, options).await?).hold(words.hold);
        if let Some(text) = &words.text {
            input.type_text(text, words.layout).await.map_err(failure)?;
        }
        for keys in &words.keys {
            input.send_key(&keys.to_string()).await.map_err(failure)?;
        }
        Ok(())
    })
    .await
}

fn failure(error: InputError) -> Failure {
    match error {
        InputError::Text(error) => Failure::Usage {
            problem: error.to_string(),
            hint: "`--layout` takes us, uk, de or fr: the layout that the guest has".into(),
        },
        InputError::Command(ExecuteError::TimedOut(over)) => dialogue::timed_out(&over.what, over.limit),
        error => {
            Failure::Conversation { doing: "press the keys".into(), source: Box::new(error), exit: None }
        }
    }
}
