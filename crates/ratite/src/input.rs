//! What a person does to a machine: keys, text, the mouse.
//!
//! Stands on a QMP session alone, so it serves any QEMU. Keys go by `send-key`, which presses and releases them in one command:
//! QEMU sees to the release, whatever becomes of us. The mouse goes by `input-send-event`.

use std::fmt;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Disconnect;
use ratite_qmp::ExecuteError;
use ratite_qmp::within;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::keys::BadKeys;
use crate::keys::Keys;
use crate::layout::Layout;
use crate::layout::Untypable;

/// A machine's keyboard and mouse. Cheap to clone; it keeps the QMP session alive.
///
/// Each QMP command is bounded by [`Client::command_limit`]; a call takes as long as its keys are held, and no longer.
///
/// QEMU tells nobody what the guest has read, and drops what the guest's keyboard has no room for: a PS/2 keyboard keeps 16
/// bytes, of which a key takes 3, and one with shift 6. So keys are held for a while, and the next waits until the last is
/// released: 40 ms each by default, so that a guest may look away for about 0.4 s. [`Input::hold`] changes that.
#[derive(Debug, Clone)]
pub struct Input {
    client: Client,
    hold: Duration,
}

/// A button of a mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Button {
    /// The left one.
    Left,
    /// The one in the middle, or the wheel pressed.
    Middle,
    /// The right one.
    Right,
    /// The first at the side: back.
    Side,
    /// The second at the side: forward.
    Extra,
}

/// Why nothing was pressed, typed or moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The keys are none; nothing was sent.
    #[error(transparent)]
    Keys(#[from] BadKeys),
    /// The text cannot be typed; nothing was sent.
    #[error(transparent)]
    Text(#[from] Untypable),
    /// The machine does not run, and QEMU drops what is pressed meanwhile; nothing was sent.
    #[error("the machine does not run, it is `{status}`: its guest would see no input")]
    NotRunning {
        /// The machine's status (`query-status`).
        status: String,
    },
    /// The mouse cannot be moved to a place, only by a way; nothing was sent.
    #[error(
        "no pointing device of the machine takes a place on the screen, as `-device usb-tablet` does; it has {}",
        listed(mice)
    )]
    NoAbsolutePointer {
        /// The names of the devices that there are.
        mice: Vec<String>,
    },
    /// The place is not on the screen; nothing was sent.
    #[error("the screen ends at 1.0: {x}, {y} is not on it")]
    OffScreen {
        /// From left (0.0) to right (1.0).
        x: f64,
        /// From top (0.0) to bottom (1.0).
        y: f64,
    },
    /// QEMU did not take it.
    #[error(transparent)]
    Command(#[from] ExecuteError),
}

fn listed(mice: &[String]) -> String {
    if mice.is_empty() { "none".into() } else { mice.join(", ") }
}

/// How long a key is held, if nothing else is said.
const HOLD: Duration = Duration::from_millis(40);

/// The longest that a key is held.
const LONGEST: Duration = Duration::from_secs(10);

impl Input {
    /// The keyboard and mouse of the machine at the other end of a session.
    #[must_use]
    pub fn over(client: Client) -> Self {
        Self { client, hold: HOLD }
    }

    /// How long the last key of a combination is held, and how long each takes to be pressed and released: 40 ms by default,
    /// from 1 ms to 10 s, in whole milliseconds.
    #[must_use]
    pub fn hold(mut self, time: Duration) -> Self {
        self.hold = time.clamp(Duration::from_millis(1), LONGEST);
        self
    }

    /// Presses and releases keys such as `ctrl-alt-f1`, `ret` or `a`; see [`Keys`]. Returns once they are released.
    ///
    /// # Errors
    /// [`InputError::Keys`] before anything is sent, naming the nearest; [`InputError::NotRunning`];
    /// [`InputError::Command`].
    pub async fn send_key(&self, keys: &str) -> Result<(), InputError> {
        let keys: Keys = keys.parse()?;
        self.check_runs().await?;
        self.press(&keys).await
    }

    /// Types a text as on a keyboard of this layout, which has to be the guest's. Returns once the last key is released.
    ///
    /// Each character takes two [`Input::hold`], four with shift. If the future is dropped, what was typed stays typed, and no key
    /// stays pressed.
    ///
    /// # Errors
    /// [`InputError::Text`] before anything is sent, naming the character; otherwise as [`Input::send_key`].
    pub async fn type_text(&self, text: &str, layout: Layout) -> Result<(), InputError> {
        let combinations = layout.keys(text)?;
        self.check_runs().await?;
        for keys in &combinations {
            self.press(keys).await?;
        }
        Ok(())
    }

    /// Moves the pointer to a place: 0.0, 0.0 is the left upper corner of the screen, 1.0, 1.0 the right lower one.
    ///
    /// # Errors
    /// [`InputError::NoAbsolutePointer`] if the machine's mice can only be moved by a way; [`InputError::OffScreen`];
    /// [`InputError::Command`], also when the machine does not run.
    pub async fn move_to(&self, x: f64, y: f64) -> Result<(), InputError> {
        let is_on = |at: f64| (0.0..=1.0).contains(&at);
        if !is_on(x) || !is_on(y) {
            return Err(InputError::OffScreen { x, y });
        }
        let mice: Vec<Mouse> = self.client.execute_as("query-mice", ()).await?;
        if !mice.iter().any(|mouse| mouse.absolute) {
            let mice = mice.into_iter().map(|mouse| mouse.name).collect();
            return Err(InputError::NoAbsolutePointer { mice });
        }
        #[expect(clippy::cast_possible_truncation, reason = "a part of 32767")]
        let axis = |axis: &str, at: f64| {
            let value = (at * LAST_PLACE).round() as i64;
            json!({ "type": "abs", "data": { "axis": axis, "value": value } })
        };
        self.send(json!([axis("x", x), axis("y", y)])).await
    }

    /// Moves the pointer by a way, to the right and down; what that is in pixels, the guest decides.
    ///
    /// # Errors
    /// [`InputError::Command`], also when the machine does not run, or has no mouse.
    pub async fn move_by(&self, right: i32, down: i32) -> Result<(), InputError> {
        let axis =
            |axis: &str, value: i32| json!({ "type": "rel", "data": { "axis": axis, "value": value } });
        self.send(json!([axis("x", right), axis("y", down)])).await
    }

    /// Presses a button where the pointer is, and releases it after [`Input::hold`]; also if the future is dropped meanwhile.
    ///
    /// # Errors
    /// As [`Input::move_by`].
    pub async fn click(&self, button: Button) -> Result<(), InputError> {
        let ended = |source| ExecuteError::Disconnected { command: INPUT_SEND_EVENT.into(), source };
        // Told at once, whatever the limit is.
        if let Some(why) = self.client.ended() {
            return Err(ended(why).into());
        }
        let input = self.clone();
        // A task of its own, which lives on when the caller goes away.
        let clicked = tokio::spawn(async move {
            let pressed = input.press_button(button).await;
            match &pressed {
                Ok(()) => input.pause(input.hold).await,
                // It may have been pressed.
                Err(InputError::Command(ExecuteError::TimedOut(_))) => {}
                Err(_) => return pressed,
            }
            pressed.and(input.release_button(button).await)
        });
        let ended =
            |_| ExecuteError::Disconnected { command: INPUT_SEND_EVENT.into(), source: Disconnect::Runtime };
        clicked.await.map_err(ended)?
    }

    /// Presses a button and leaves it pressed, to drag something.
    ///
    /// # Errors
    /// As [`Input::move_by`].
    pub async fn press_button(&self, button: Button) -> Result<(), InputError> {
        self.send(json!([button_event(button.name(), true)])).await
    }

    /// Releases a button.
    ///
    /// # Errors
    /// As [`Input::move_by`].
    pub async fn release_button(&self, button: Button) -> Result<(), InputError> {
        self.send(json!([button_event(button.name(), false)])).await
    }

    /// Turns the wheel by so many steps: away from oneself, which is up, or down with a negative number.
    ///
    /// # Errors
    /// As [`Input::move_by`].
    pub async fn scroll(&self, steps: i32) -> Result<(), InputError> {
        let wheel = if steps > 0 { "wheel-up" } else { "wheel-down" };
        for _ in 0..steps.unsigned_abs() {
            self.send(json!([button_event(wheel, true), button_event(wheel, false)])).await?;
        }
        Ok(())
    }

    async fn check_runs(&self) -> Result<(), InputError> {
        #[derive(Deserialize)]
        struct Status {
            running: bool,
            status: String,
        }
        let Status { running, status } = self.client.execute_as("query-status", ()).await?;
        // A key may be what wakes it.
        match running || status == "suspended" {
            true => Ok(()),
            false => Err(InputError::NotRunning { status }),
        }
    }

    /// Has QEMU press and release `keys`, and waits as long as it takes for that.
    async fn press(&self, keys: &Keys) -> Result<(), InputError> {
        let codes = keys.codes().iter().map(|code| json!({ "type": "qcode", "data": code }));
        let hold = u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX);
        let arguments = json!({ "keys": codes.collect::<Vec<_>>(), "hold-time": hold });
        self.client.execute("send-key", arguments).await?;
        // It answers at once, and then has a pause of the hold time behind each press and each release. Nothing tells when it
        // is done, and what comes too early is queued, of which QEMU drops what is too much.
        let pauses = u32::try_from(2 * keys.codes().len()).unwrap_or(u32::MAX);
        self.pause(self.hold * pauses).await;
        Ok(())
    }

    /// Lets `time` go by, as a person would; nothing tells when the guest has seen a key. With the connection it is over.
    async fn pause(&self, time: Duration) {
        let _time_over = within(time, "end of the session", self.client.closed()).await;
    }

    async fn send(&self, events: Value) -> Result<(), InputError> {
        self.client.execute(INPUT_SEND_EVENT, json!({ "events": events })).await?;
        Ok(())
    }
}

const INPUT_SEND_EVENT: &str = "input-send-event";

/// QEMU counts places on a screen from 0 to this, whatever its size.
const LAST_PLACE: f64 = 32767.0;

/// A pointing device, as `query-mice` tells.
#[derive(Deserialize)]
struct Mouse {
    name: String,
    absolute: bool,
}

impl Button {
    /// QEMU's name of it (`InputButton`).
    fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Middle => "middle",
            Self::Right => "right",
            Self::Side => "side",
            Self::Extra => "extra",
        }
    }
}

impl fmt::Display for Button {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn button_event(name: &str, down: bool) -> Value {
    json!({ "type": "btn", "data": { "button": name, "down": down } })
}
