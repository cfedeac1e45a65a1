//! What `query-qmp-schema` returns, as it stands there.

use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;

/// One of the things that QEMU tells of itself. Members that we do not know are passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Entity {
    pub(crate) name: String,
    pub(crate) meta_type: String,
    #[serde(default)]
    pub(crate) members: Vec<Member>,
    #[serde(default)]
    pub(crate) values: Vec<String>,
    pub(crate) tag: Option<String>,
    #[serde(default)]
    pub(crate) variants: Vec<Variant>,
    pub(crate) element_type: Option<String>,
    pub(crate) arg_type: Option<String>,
    pub(crate) ret_type: Option<String>,
    #[serde(default)]
    pub(crate) allow_oob: bool,
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

/// A member of an object, a value of an enumeration, or a choice of an alternate.
#[derive(Debug, Deserialize)]
pub(crate) struct Member {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, rename = "type")]
    pub(crate) type_name: String,
    /// Whether it has a default, whatever that is: then it is optional.
    #[serde(default, rename = "default", deserialize_with = "is_there")]
    pub(crate) optional: bool,
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Variant {
    pub(crate) case: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}
