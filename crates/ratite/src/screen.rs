//! What a machine shows: pictures of its screen, its text, and waits for what is to be seen.
//!
//! Stands on a QMP session alone, so it serves any QEMU. QEMU has no event for a change of the screen, so waits take a picture
//! again and again. A picture travels through memory whose descriptor goes with the command: no file is made, and QEMU may be
//! confined to wherever it is. Where descriptors cannot travel (TCP), it is a file in a private folder, which is removed.

use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::CommandError;
use ratite_qmp::Disconnect;
use ratite_qmp::ExecuteError;
use ratite_qmp::within;
use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::glyphs::ScreenText;
use crate::pattern::Pattern;
use crate::picture::Difference;
use crate::picture::Picture;
use crate::picture::PictureError;
use crate::picture::Tolerance;

/// A machine's screen. Cheap to clone; it keeps the QMP session alive.
///
/// Without [`Screen::device`] it is the one that QEMU shows first. Every call is bounded by its limit as a whole, and each QMP
/// command in it by [`Client::command_limit`], too. A call whose future is dropped leaves no file and no descriptor.
#[derive(Debug, Clone)]
pub struct Screen {
    client: Client,
    device: Option<String>,
    head: Option<u32>,
    every: Duration,
}

/// Why there is nothing to be seen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScreenError {
    /// The machine has no graphics card: ratite gives it none, unless [`crate::MachineConfig::with_screen`] is said.
    #[error("the machine has no screen")]
    NoScreen(#[source] CommandError),
    /// QEMU took no picture.
    #[error("could not take a picture of the screen")]
    Command(#[source] ExecuteError),
    /// The memory or the file that QEMU writes to could not be made or read.
    #[error("could not hand a picture over from QEMU")]
    File(#[source] io::Error),
    /// What QEMU wrote is no picture.
    #[error("could not understand the picture that QEMU took")]
    Picture(#[from] PictureError),
    /// The screen shows no text, or text in a font that is not built in.
    #[error("the screen shows no text that can be read: it has {}x{} pixels", picture.width(), picture.height())]
    NoText {
        /// What it shows.
        picture: Picture,
    },
    /// It was not to be seen in time.
    #[error("no {what} within {limit:?}{}", told(why))]
    TimedOut {
        /// What was waited for: "text `login:` on the screen".
        what: String,
        /// How long.
        limit: Duration,
        /// Why the last picture was not it, if there is one.
        why: Option<String>,
        /// The last picture.
        last: Option<Picture>,
    },
}

fn told(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
}

impl ScreenError {
    /// The last picture that was taken, if there is one: to be saved, or looked at.
    #[must_use]
    pub fn picture(&self) -> Option<&Picture> {
        match self {
            Self::NoText { picture } => Some(picture),
            Self::TimedOut { last, .. } => last.as_ref(),
            _ => None,
        }
    }

    /// QEMU's own words, if it refused to take a picture.
    #[must_use]
    pub fn refusal(&self) -> Option<&CommandError> {
        match self {
            Self::NoScreen(refusal) => Some(refusal),
            Self::Command(error) => error.refusal(),
            _ => None,
        }
    }
}

/// How often a wait takes a picture, if nothing else is said: ten times a second.
const EVERY: Duration = Duration::from_millis(100);

impl Screen {
    /// The screen of the machine at the other end of a session.
    #[must_use]
    pub fn over(client: Client) -> Self {
        Self { client, device: None, head: None, every: EVERY }
    }

    /// The screen of the graphics card with this `id`: its first, or the one that [`Screen::head`] says.
    #[must_use]
    pub fn device(mut self, id: impl Into<String>) -> Self {
        self.device = Some(id.into());
        self
    }

    /// Which of a card's screens, from 0 on. QEMU refuses it without [`Screen::device`].
    #[must_use]
    pub fn head(mut self, head: u32) -> Self {
        self.head = Some(head);
        self
    }

    /// How often waits take a picture: every 100 ms by default, at least every millisecond.
    #[must_use]
    pub fn every(mut self, pause: Duration) -> Self {
        self.every = pause.max(Duration::from_millis(1));
        self
    }

    /// Takes a picture.
    ///
    /// # Errors
    /// [`ScreenError`]; [`ScreenError::NoScreen`] when the machine has none.
    pub async fn screenshot(&self, limit: Duration) -> Result<Picture, ScreenError> {
        let outcome = within(limit, PICTURE, self.take()).await;
        outcome.unwrap_or_else(|_| Err(timed_out(PICTURE, limit)))
    }

    /// Takes a picture as a PNG: QEMU's own where it writes one (from 7.1 on), converted where not.
    ///
    /// # Errors
    /// As [`Screen::screenshot`].
    pub async fn screenshot_png(&self, limit: Duration) -> Result<Vec<u8>, ScreenError> {
        let png = async {
            match self.shoot(Some("png")).await {
                Err(error) if error.refusal().is_some_and(is_about_format) => Ok(self.take().await?.to_png()),
                outcome => outcome,
            }
        };
        let outcome = within(limit, PICTURE, png).await;
        outcome.unwrap_or_else(|_| Err(timed_out(PICTURE, limit)))
    }

    /// Waits until the screen no longer looks like `before`, and returns what it shows then.
    ///
    /// # Errors
    /// [`ScreenError::TimedOut`] with the last picture after `limit`; otherwise as [`Screen::screenshot`].
    pub async fn changed_from(
        &self,
        before: &Picture,
        tolerance: &Tolerance,
        limit: Duration,
    ) -> Result<Picture, ScreenError> {
        self.watch("change of the screen", limit, |picture| match picture.difference(before, tolerance) {
            same if same.is_within(tolerance) => Err(Some(same.to_string())),
            _ => Ok(picture.clone()),
        })
        .await
    }

    /// Waits until the screen has stayed as it is for `time`, within `tolerance`, and returns what it shows.
    ///
    /// What changes and changes back between two looks is not seen; see [`Screen::every`].
    ///
    /// # Errors
    /// As [`Screen::changed_from`].
    pub async fn still(
        &self,
        time: Duration,
        tolerance: &Tolerance,
        limit: Duration,
    ) -> Result<Picture, ScreenError> {
        let mut first: Option<(Picture, Instant)> = None;
        self.watch(format!("screen that is still for {time:?}"), limit, |picture| {
            let changed = match &first {
                Some((first, since)) => match picture.difference(first, tolerance) {
                    same if same.is_within(tolerance) && since.elapsed() >= time => {
                        return Ok(picture.clone());
                    }
                    same if same.is_within(tolerance) => return Err(None),
                    other => Some(other.to_string()),
                },
                None if time.is_zero() => return Ok(picture.clone()),
                None => None,
            };
            first = Some((picture.clone(), Instant::now()));
            Err(changed)
        })
        .await
    }

    /// Waits until the screen looks like `reference`, within `tolerance`, and returns what it shows.
    ///
    /// # Errors
    /// As [`Screen::changed_from`]; the error says how the last picture differed.
    pub async fn looks_like(
        &self,
        reference: &Picture,
        tolerance: &Tolerance,
        limit: Duration,
    ) -> Result<Picture, ScreenError> {
        self.watch("screen that looks like the reference", limit, |picture| {
            let difference: Difference = picture.difference(reference, tolerance);
            match difference.is_within(tolerance) {
                true => Ok(picture.clone()),
                false => Err(Some(difference.to_string())),
            }
        })
        .await
    }

    /// Reads the text that the screen shows now; see [`ScreenText::read`].
    ///
    /// # Errors
    /// [`ScreenError::NoText`] with the picture when there is none; otherwise as [`Screen::screenshot`].
    pub async fn text(&self, limit: Duration) -> Result<ScreenText, ScreenError> {
        let picture = self.screenshot(limit).await?;
        ScreenText::read(&picture).ok_or(ScreenError::NoText { picture })
    }

    /// Waits until `pattern` is on the screen, and returns all its text.
    ///
    /// The pattern is looked for as [`ScreenText::contains`] does. A screen without text does not end the wait: a guest changes
    /// modes as it boots.
    ///
    /// # Errors
    /// As [`Screen::changed_from`].
    pub async fn wait_text(
        &self,
        pattern: impl Into<Pattern>,
        limit: Duration,
    ) -> Result<ScreenText, ScreenError> {
        let pattern: Pattern = pattern.into();
        self.watch(format!("{pattern} on the screen"), limit, |picture| match ScreenText::read(picture) {
            Some(text) if text.contains(&pattern) => Ok(text),
            Some(_) => Err(None),
            None => Err(Some("it shows no text that can be read".into())),
        })
        .await
    }

    /// Takes picture after picture until `look` is content with one; what it says otherwise is why it was not.
    async fn watch<T>(
        &self,
        what: impl Into<String>,
        limit: Duration,
        mut look: impl FnMut(&Picture) -> Result<T, Option<String>>,
    ) -> Result<T, ScreenError> {
        let (mut last, mut why) = (None, None);
        let watching = async {
            let mut ticks = interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let picture = self.take().await?;
                match look(&picture) {
                    Ok(found) => return Ok(found),
                    Err(reason) => why = reason,
                }
                last = Some(picture);
            }
        };
        match within(limit, PICTURE, watching).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ScreenError::TimedOut { what: what.into(), limit, why, last }),
        }
    }

    async fn take(&self) -> Result<Picture, ScreenError> {
        Ok(Picture::from_ppm(&self.shoot(None).await?)?)
    }

    /// Has QEMU take a picture and returns what it wrote.
    ///
    /// A task of its own sees it to its end, so that nothing stays in QEMU when the caller goes away.
    async fn shoot(&self, format: Option<&'static str>) -> Result<Vec<u8>, ScreenError> {
        let ended = |source| {
            ScreenError::Command(ExecuteError::Disconnected { command: "screendump".into(), source })
        };
        // Told at once, whatever the limit is.
        if let Some(why) = self.client.ended() {
            return Err(ended(why));
        }
        let (client, device, head) = (self.client.clone(), self.device.clone(), self.head);
        let shot = Shot { client, device, head, format };
        tokio::spawn(shot.take()).await.map_err(|_| ended(Disconnect::Runtime))?
    }
}

/// What every call waits for first.
const PICTURE: &str = "picture of the screen";

fn timed_out(what: &str, limit: Duration) -> ScreenError {
    ScreenError::TimedOut { what: what.into(), limit, why: None, last: None }
}

/// Whether QEMU refused only the format: it does not know the argument, or was built without PNG.
fn is_about_format(refusal: &CommandError) -> bool {
    refusal.desc.contains("'format'") || refusal.desc.contains("PNG")
}

/// One picture that is being taken.
struct Shot {
    client: Client,
    device: Option<String>,
    head: Option<u32>,
    format: Option<&'static str>,
}

impl Shot {
    async fn take(self) -> Result<Vec<u8>, ScreenError> {
        match self.through_memory().await {
            Some(outcome) => outcome,
            None => self.through_a_file().await,
        }
    }

    /// `None` if this QEMU cannot be given a descriptor, or not written to one.
    async fn through_memory(&self) -> Option<Result<Vec<u8>, ScreenError>> {
        #[derive(Deserialize)]
        struct Added {
            #[serde(rename = "fdset-id")]
            set: i64,
        }
        let (memory, writer) = memory().ok()?;
        let add = Command::new("add-fd").arguments(json!({ "opaque": "ratite: a screenshot" })).ok()?;
        let added = match self.client.send(add.fd(writer)).await {
            Ok(reply) => serde_json::from_str::<Added>(reply.return_text()?).ok()?,
            Err(ExecuteError::NoDescriptors { .. }) => return None,
            Err(error) => return Some(Err(ScreenError::Command(error))),
        };
        let path = format!("/dev/fdset/{}", added.set);
        let shown = self.screendump(&path).await;
        // It is there unless the connection has ended, and then QEMU closes it, or has ended, too.
        let _gone = self.client.execute("remove-fd", json!({ "fdset-id": added.set })).await;
        match shown {
            Err(error) if error.refusal().is_some_and(|refusal| refusal.desc.contains(&path)) => None,
            Err(error) => Some(Err(error)),
            Ok(()) => Some(contents(memory).map_err(ScreenError::File)),
        }
    }

    async fn through_a_file(&self) -> Result<Vec<u8>, ScreenError> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("ratite-screen-{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(ScreenError::File)?;
        let path = folder.path().join("picture");
        // A temporary folder whose name is no text is none that QMP could tell.
        let name = path.to_str().ok_or_else(|| ScreenError::File(io::ErrorKind::InvalidFilename.into()))?;
        self.screendump(name).await?;
        std::fs::read(&path).map_err(ScreenError::File)
    }

    async fn screendump(&self, path: &str) -> Result<(), ScreenError> {
        let mut arguments = json!({ "filename": path });
        if let Some(device) = &self.device {
            arguments["device"] = device.as_str().into();
        }
        if let Some(head) = self.head {
            arguments["head"] = head.into();
        }
        if let Some(format) = self.format {
            arguments["format"] = format.into();
        }
        match self.client.execute("screendump", arguments).await {
            Ok(_) => Ok(()),
            Err(ExecuteError::Refused { source, .. }) if source.desc.contains(NO_CONSOLE) => {
                Err(ScreenError::NoScreen(source))
            }
            Err(error) => Err(ScreenError::Command(error)),
        }
    }
}

/// How QEMU says that a machine has no screen.
const NO_CONSOLE: &str = "There is no console";

/// Memory to read from, and a descriptor of it that can only be written to: QEMU takes one only in the mode that it asks for.
fn memory() -> io::Result<(File, OwnedFd)> {
    let memory = rustix::fs::memfd_create("ratite-screen", MemfdFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let writer = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((memory.into(), writer))
}

fn contents(mut memory: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    memory.rewind()?;
    memory.read_to_end(&mut bytes)?;
    Ok(bytes)
}
