//! A command to be sent, and QEMU's words when it refuses one.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::json::something_to_wire;
use crate::malformed::Malformed;
use crate::malformed::excerpt;

/// A command to be sent: its name, arguments, and how it is to be carried.
///
/// ```
/// use ratite_qmp::Command;
/// use serde_json::json;
/// use std::time::Duration;
///
/// let command = Command::new("device_del")
///     .arguments(json!({ "id": "disk0" }))?
///     .limit(Duration::from_secs(5));
/// assert_eq!(command.name(), "device_del");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug)]
pub struct Command {
    pub(crate) name: String,
    pub(crate) arguments: Option<String>,
    pub(crate) oob: bool,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) limit: Option<Duration>,
}

impl Command {
    /// A command without arguments, sent in band, with the connection's default limit.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), arguments: None, oob: false, fds: Vec::new(), limit: None }
    }

    /// Adds the arguments: anything that serialises to a JSON object.
    ///
    /// Nothing (`()`, `None`, an empty object) means that `arguments` is left out of the message.
    ///
    /// # Errors
    /// When the value does not serialise, serialises to something other than an object, or holds a number that
    /// JSON cannot hold (NaN, infinities).
    pub fn arguments(mut self, arguments: impl Serialize) -> Result<Self, serde_json::Error> {
        let text = something_to_wire(&arguments)?;
        self.arguments = match text.as_deref() {
            // JSON that was kept as text is looked at here.
            None | Some("null" | "{}") => None,
            Some(object) if object.starts_with('{') => text,
            Some(other) => {
                let shown = excerpt(other.as_bytes());
                return Err(serde::ser::Error::custom(format!("arguments are a JSON object, not `{shown}`")));
            }
        };
        Ok(self)
    }

    /// Sends it out of band (`exec-oob`): ahead of commands that wait, where the peer negotiated `oob`.
    #[must_use]
    pub fn oob(mut self) -> Self {
        self.oob = true;
        self
    }

    /// Lets `fd` travel with the command, as `getfd` and `add-fd` want it.
    #[must_use]
    pub fn fd(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push(fd.into());
        self
    }

    /// Bounds this command's wait, instead of the connection's default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The command's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// QEMU's own words for why it did not do a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{desc} ({class})")]
pub struct CommandError {
    /// The error class, such as `GenericError` or `CommandNotFound`.
    pub class: String,
    /// The description, verbatim.
    pub desc: String,
}

impl CommandError {
    pub(crate) fn parse(text: &str, error: &str) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Body {
            class: String,
            desc: String,
        }
        // A derived reader would take an array of two for it.
        if !error.starts_with('{') {
            return Err(Malformed::shape(text, "its `error` is no object"));
        }
        let Body { class, desc } = serde_json::from_str(error)
            .map_err(|error| Malformed::shape(text, format!("its `error` is odd: {error}")))?;
        Ok(Self { class, desc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_must_be_an_object() {
        assert!(Command::new("x").arguments(json!([1])).is_err());
        assert_eq!(Command::new("x").arguments(()).unwrap().arguments, None);
        assert_eq!(Command::new("x").arguments(json!({})).unwrap().arguments, None);
    }
}
