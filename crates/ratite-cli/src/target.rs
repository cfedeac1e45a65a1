//! Which machine a verb is about: one of ratite's by its name, or any QEMU by the address of its monitor.

use std::error::Error;

use std::time::Duration;

use ratite::qmp::Address;
use ratite::qmp::Agent;
use ratite::qmp::Client;
use ratite::qmp::Options;
use ratite::qmp::nearest;
use ratite::reach;
use ratite::reach::ReachError;
use ratite::reach::Remote;

use crate::report::Failure;

/// What stands for a machine on every command line that is about one.
pub(crate) const WORD: &str = "NAME|ADDRESS";

/// What that is where QMP is spoken.
pub(crate) const MONITOR: &str =
    "A machine's name, or the address of a QMP monitor: ./qmp.sock, localhost:4444";

/// What that is where a console is attached to.
pub(crate) const SERIAL_PORT: &str =
    "A machine's name, or the address of a serial port: ./serial.sock, localhost:4444";

/// What that is where an agent is spoken with.
pub(crate) const CHANNEL: &str =
    "A machine's name, or the address of an agent's channel: ./agent.sock, localhost:4444";

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
            Self::Name(name) => remote(name).await?.qmp(options).await.map_err(failure),
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
            Self::Name(name) => remote(name).await?.agent(limit).await.map_err(failure),
        }
    }
}

/// The machine of this name.
pub(crate) async fn remote(name: &str) -> Result<Remote, Failure> {
    match reach::attach(name).await {
        Ok(remote) => Ok(remote),
        Err(error @ ReachError::NotThere { .. }) => {
            let hint = Some(who_is_there(name).await);
            Err(Failure::Reach { error: Box::new(error), hint })
        }
        Err(error) => Err(failure(error)),
    }
}

pub(crate) fn failure(error: ReachError) -> Failure {
    let hint = match &error {
        ReachError::Folder { .. } => Some(FOLDER.to_owned()),
        _ => None,
    };
    Failure::Reach { error: Box::new(error), hint }
}

/// What helps where the folder of reachable machines is not to be had.
pub(crate) const FOLDER: &str =
    "`XDG_RUNTIME_DIR` names a folder that belongs to this user; reachable machines are below it";

/// What helps somebody who has named a machine that is not there.
async fn who_is_there(wanted: &str) -> String {
    let names: Vec<String> =
        reach::list().await.unwrap_or_default().into_iter().map(|facts| facts.name).collect();
    let near = nearest(wanted, names.iter().map(String::as_str));
    match (near, names.as_slice()) {
        (_, []) => "no machine is reachable now; `ratite run --name NAME` starts one that is".into(),
        (Some(near), [_]) => format!("there is `{near}`: is that the one?"),
        (Some(near), all) => format!("there are {}: is `{near}` the one?", quoted(all)),
        (None, [only]) => format!("there is `{only}`; an address holds a `/` or a `:`"),
        (None, all) => format!("there are {}; an address holds a `/` or a `:`", quoted(all)),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
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
