//! Which machine a verb is about: one of ratite's by its name, or any QEMU by the address of its monitor.

use std::error::Error;

use std::time::Duration;

use ratite::qmp::Address;
use ratite::qmp::Agent;
use ratite::qmp::Client;
use ratite::qmp::Options;

use crate::report::Failure;

/// A machine that some other process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One that ratite has started, and that is reachable by this name.
    Name(String),
    /// Whatever listens at this address.
    Address(Address),
}

impl Target {
    /// A name holds neither `/` nor `:`, and an address holds one of them.
    pub(crate) fn parse(text: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match text {
            "" => Err("it is empty".into()),
            address if address.contains(['/', ':']) => Ok(Self::Address(address.parse()?)),
            name => Ok(Self::Name(name.to_owned())),
        }
    }

    /// A QMP session with it.
    pub(crate) async fn qmp(&self, options: Options) -> Result<Client, Failure> {
        match self {
            Self::Address(address) => {
                Client::connect(address, options).await.map_err(|error| Failure::Conversation {
                    doing: format!("connect to {address}"),
                    source: Box::new(error),
                    exit: None,
                })
            }
            Self::Name(name) => Err(Failure::Usage {
                problem: format!("no machine is named `{name}`"),
                hint: "an address holds a `/` or a `:`, such as ./qmp.sock or localhost:4444".into(),
            }),
        }
    }

    /// Its guest's agent, each of whose commands has `limit`, and so does the connection.
    pub(crate) async fn agent(&self, limit: Duration) -> Result<Agent, Failure> {
        match self {
            Self::Address(address) => {
                let agent = Agent::connect(address, limit).await.map_err(|error| Failure::Conversation {
                    doing: format!("connect to {address}"),
                    source: Box::new(error),
                    exit: None,
                })?;
                Ok(agent.with_limit(limit))
            }
            Self::Name(name) => Err(Failure::Usage {
                problem: format!("the agent of a machine cannot be reached by its name yet: `{name}`"),
                hint: "an address holds a `/` or a `:`, such as ./agent.sock or localhost:4444".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_an_address() {
        let check = |text, expected| assert_eq!(Target::parse(text).unwrap(), expected);

        check("web", Target::Name("web".into()));
        check("./web", Target::Address(Address::unix("./web")));
        check("unix:web", Target::Address(Address::unix("web")));
        check("localhost:4444", Target::Address(Address::tcp("localhost", 4444)));
        assert!(Target::parse("").is_err());
        assert!(Target::parse("web:x").is_err());
    }
}
