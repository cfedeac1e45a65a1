//! What QEMU says first: its version and what it can negotiate.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::malformed::Malformed;

/// What QEMU says first: its version and what it can negotiate.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// QEMU's version.
    pub version: Version,
    /// The capabilities on offer, such as `oob`.
    pub capabilities: Vec<String>,
    text: Arc<str>,
}

impl Greeting {
    pub(crate) fn parse(text: &str, qmp: &str) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Body {
            version: VersionBody,
            capabilities: Vec<Value>,
        }
        #[derive(Deserialize)]
        struct VersionBody {
            #[serde(default)]
            qemu: Triple,
            #[serde(default)]
            package: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Triple {
            major: u32,
            minor: u32,
            micro: u32,
        }
        let body: Body = serde_json::from_str(qmp)
            .map_err(|error| Malformed::shape(text, format!("its greeting is odd: {error}")))?;
        let Triple { major, minor, micro } = body.version.qemu;
        Ok(Self {
            version: Version { major, minor, micro, package: body.version.package },
            // A capability that is no string is one that we do not know.
            capabilities: body.capabilities.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            text: text.into(),
        })
    }

    /// The whole greeting as it arrived.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A QEMU version; versions of one QEMU compare by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 7 of 7.2.1.
    pub major: u32,
    /// The 2 of 7.2.1.
    pub minor: u32,
    /// The 1 of 7.2.1.
    pub micro: u32,
    /// The distributor's name for the build; often empty.
    pub package: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)?;
        if self.package.is_empty() { Ok(()) } else { write!(f, " ({})", self.package) }
    }
}
