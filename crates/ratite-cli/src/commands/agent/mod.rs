//! `ratite agent`: what the agent in a guest can do, as a person asks for it.

mod exec;
mod files;
mod system;

use std::time::Duration;

use ratite::qmp;
use ratite::qmp::AgentError;

use crate::args::Agent;
use crate::args::AgentVerb;
use crate::commands::unless_signalled;
use crate::report::Failure;
use crate::signals::Signals;
use crate::target::Target;

/// Does what is asked of the agent.
pub(crate) async fn agent(agent: Agent, signals: &mut Signals) -> Result<(), Failure> {
    match agent.verb {
        AgentVerb::Exec(exec) => exec::exec(exec, signals).await,
        AgentVerb::Cat { channel, path } => files::cat(&channel, &path, signals).await,
        AgentVerb::Write { channel, path, append } => files::write(&channel, &path, append, signals).await,
        AgentVerb::Ping { channel } => unless_signalled(signals, system::ping(&channel)).await,
        AgentVerb::Info { channel, form } => unless_signalled(signals, system::info(&channel, form)).await,
        AgentVerb::Interfaces { channel, form } => {
            unless_signalled(signals, system::interfaces(&channel, form)).await
        }
        AgentVerb::Fsfreeze { channel, action, form } => {
            unless_signalled(signals, system::fsfreeze(&channel, action, form)).await
        }
        AgentVerb::Fstrim { channel, minimum, form } => {
            unless_signalled(signals, system::fstrim(&channel, minimum, form)).await
        }
        AgentVerb::Shutdown { channel, mode } => {
            unless_signalled(signals, system::shutdown(&channel, mode)).await
        }
        AgentVerb::Suspend { channel, mode } => {
            unless_signalled(signals, system::suspend(&channel, mode)).await
        }
    }
}

/// Connects to the agent's channel. Whether an agent is there is for the first command to find out.
async fn connect(target: &Target, timeout: Duration) -> Result<qmp::Agent, Failure> {
    target.agent(timeout).await
}

fn failure(doing: impl Into<String>) -> impl FnOnce(AgentError) -> Failure {
    let doing = doing.into();
    move |error| Failure::Conversation { doing, source: Box::new(error), exit: None }
}
