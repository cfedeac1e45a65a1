//! A visit to the agent in the machine's guest.

use std::os::fd::AsFd;

use ratite_qmp::Agent;
use ratite_qmp::Socket;

use crate::reach_server::visit::GONE;
use crate::reach_server::visit::Over;
use crate::reach_server::visit::Visit;
use crate::reach_words::Channel;

/// Why there is no agent to speak with.
const NO_CHANNEL: &str =
    "it has no channel to a guest agent: `MachineConfig::agent` gives it one, and `ratite run --agent`";

impl Visit {
    /// Lets it speak with the agent, until either of both goes or the machine ends.
    pub(super) async fn speak_with_the_agent(&mut self, begun: &[u8]) -> Result<(), Over> {
        let agent = match self.agent() {
            Ok(agent) => agent,
            Err(reason) => return self.refuse(reason).await,
        };
        // The agent's side wants a socket of its own; it is the same connection.
        let socket = self.reader.as_ref().as_fd().try_clone_to_owned().and_then(Socket::try_from);
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return self.refuse(format!("could not begin: {error}")).await,
        };
        self.answer(Channel {}).await?;
        let mut end = self.desk.end.subscribe();
        tokio::select! {
            () = agent.attend(socket, begun) => Ok(()),
            _ended = end.wait_for(Option::is_some) => Err(Over),
        }
    }

    fn agent(&self) -> Result<Agent, &'static str> {
        let running = self.desk.machine.upgrade().ok_or(GONE)?;
        running.agent.clone().ok_or(NO_CHANNEL)
    }
}
