//! A conversation with one machine: what it is called, what it knows, how lines are read and replies are shown.

use std::sync::Arc;

use ratite::qmp::Client;
use ratite::qmp::Command;
use ratite::qmp::Event;
use ratite::qmp::ExecuteError;
use ratite::qmp::Reply;
use ratite::qmp::within;
use serde_json::Value;
use serde_json::json;

use crate::args::Shell;
use crate::commands::dialogue;
use crate::commands::shell::FAREWELL;
use crate::commands::shell::hmp;
use crate::commands::shell::hmp::Hmp;
use crate::commands::shell::hmp::HmpWords;
use crate::commands::shell::interpreter::Interpreter;
use crate::commands::shell::interpreter::Step;
use crate::json;
use crate::language::Completion;
use crate::language::Mistake;
use crate::language::Request;
use crate::language::complete;
use crate::report::Failure;

/// A conversation with one machine.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    language: Language,
    pub(super) vocabulary: Vocabulary,
    is_verbose: bool,
    is_pretty: bool,
    /// Whether the machine has said, or was told, that it ends.
    expects_end: bool,
}

#[derive(Debug)]
enum Language {
    Qmp(Interpreter),
    Hmp(Hmp),
}

/// The words that can be completed.
#[derive(Debug, Clone)]
pub(super) enum Vocabulary {
    Qmp { schema: Option<Arc<ratite::qmp::Schema>>, names: Arc<[String]> },
    Hmp(Arc<HmpWords>),
}

impl Vocabulary {
    /// What may follow at the end of `line`.
    pub(super) fn complete(&self, line: &str, in_transaction: bool) -> Completion {
        match self {
            Self::Qmp { schema, names } => complete(line, schema.as_deref(), names, in_transaction),
            Self::Hmp(words) => words.complete(line),
        }
    }
}

impl Session {
    /// Learns what the machine knows. One that does not tell is spoken with all the same.
    pub(super) async fn begin(client: Client, shell: &Shell) -> Result<Self, Failure> {
        let is_strict = !shell.no_check;
        let (language, vocabulary) = if shell.hmp {
            let words = Arc::new(hmp_words(&client).await?);
            (Language::Hmp(Hmp::default()), Vocabulary::Hmp(words))
        } else {
            let (schema, names) = match shell.skip_negotiation {
                true => (None, agent_commands(&client).await),
                false => (dialogue::schema(&client).await?.map(Arc::new), Vec::new()),
            };
            let names: Arc<[String]> = names.into();
            let interpreter = Interpreter::new(schema.clone(), names.clone(), is_strict);
            (Language::Qmp(interpreter), Vocabulary::Qmp { schema, names })
        };
        let (is_verbose, is_pretty) = (shell.verbose, shell.pretty);
        Ok(Self { client, language, vocabulary, is_verbose, is_pretty, expects_end: false })
    }

    /// What a person sees first.
    pub(super) fn banner(&self) -> String {
        let language = match self.language {
            Language::Qmp(_) => "QMP",
            Language::Hmp(_) => "HMP",
        };
        let version = self.client.greeting().map(|greeting| format!(" to QEMU {}", greeting.version));
        format!("Welcome to ratite's {language} shell!\nConnected{}\n\n", version.unwrap_or_default())
    }

    pub(super) fn prompt(&self) -> &'static str {
        if self.is_in_transaction() { "TRANS> " } else { "(QEMU) " }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        matches!(&self.language, Language::Qmp(interpreter) if interpreter.is_in_transaction())
    }

    /// Gives up the transaction that is being written; whether there was one.
    pub(super) fn abandon(&mut self) -> bool {
        match &mut self.language {
            Language::Qmp(interpreter) => interpreter.abandon(),
            Language::Hmp(_) => false,
        }
    }

    /// What `line` asks for.
    pub(super) fn read(&mut self, line: &str) -> Result<Step, Mistake> {
        match &mut self.language {
            Language::Qmp(interpreter) => interpreter.read(line),
            Language::Hmp(hmp) => hmp.read(line),
        }
    }

    /// Remembers the CPU that commands are about.
    pub(super) fn choose(&mut self, cpu: u64) {
        if let Language::Hmp(hmp) = &mut self.language {
            hmp.cpu = Some(cpu);
        }
    }

    /// A request as it is shown before it is sent, if the user wants that.
    pub(super) fn echo(&self, request: &Request) -> Option<String> {
        let arguments = Value::Object(request.arguments.clone());
        let message = match request.arguments.is_empty() {
            true => json!({ "execute": request.name }),
            false => json!({ "execute": request.name, "arguments": arguments }),
        };
        self.is_verbose.then(|| self.shown(&message.to_string()))
    }

    /// Sends a request, and returns its reply, be it a value or a refusal.
    pub(super) async fn execute(&mut self, request: &Request) -> Result<Reply, ExecuteError> {
        let name = request.name.clone();
        let quits = self.quits(request);
        self.expects_end |= quits;
        let command = Command::new(&name)
            .arguments(&request.arguments)
            .map_err(|source| ExecuteError::Arguments { command: name, source })?;
        let reply = self.client.send(command).await?;
        match (quits, reply.error()) {
            (true, Some(_)) => self.expects_end = false,
            // Its end comes with the reply, or right behind it; a guest agent's does not come.
            (true, None) => drop(within(FAREWELL, "end of the connection", self.client.closed()).await),
            (false, _) => {}
        }
        Ok(reply)
    }

    /// Whether a request ends the machine.
    pub(super) fn quits(&self, request: &Request) -> bool {
        match self.language {
            Language::Qmp(_) => ["quit", "guest-shutdown"].contains(&request.name.as_str()),
            Language::Hmp(_) => hmp::is_quit(request),
        }
    }

    /// Looks at an event, and returns it as it is shown.
    pub(super) fn hear(&mut self, event: &Event) -> String {
        self.expects_end |= event.name() == "SHUTDOWN";
        self.shown(event.text())
    }

    /// Whether the machine has said, or was told, that it ends.
    pub(super) fn expects_end(&self) -> bool {
        self.expects_end
    }

    /// A reply as it is shown.
    pub(super) fn answer(&self, reply: &Reply) -> String {
        match (&self.language, reply.return_text(), reply.error()) {
            (Language::Hmp(_), _, Some(error)) => format!("{}: {}", error.class, error.desc),
            (Language::Hmp(_), Some(text), _) => hmp_text(text),
            (_, Some(text), _) => self.shown(&format!("{{\"return\": {text}}}")),
            (_, None, Some(error)) => {
                let error = json!({ "class": error.class, "desc": error.desc });
                self.shown(&format!("{{\"error\": {error}}}"))
            }
            (_, None, None) => self.shown(reply.text()),
        }
    }

    fn shown(&self, text: &str) -> String {
        if self.is_pretty { json::pretty(text) } else { json::one_line(text) }
    }
}

/// The text that HMP has returned, with lines as they end here.
fn hmp_text(json: &str) -> String {
    let text: String = serde_json::from_str(json).unwrap_or_else(|_| json.to_owned());
    text.replace("\r\n", "\n")
}

/// The words of HMP. A machine that refuses to tell them has none to be completed.
async fn hmp_words(client: &Client) -> Result<HmpWords, Failure> {
    let mut told = [String::new(), String::new()];
    for (line, text) in ["help", "help info"].into_iter().zip(&mut told) {
        let request = hmp::request(line, None);
        match client.execute_as::<String>(&request.name, &request.arguments).await {
            Ok(answer) => *text = answer,
            Err(ExecuteError::Refused { .. } | ExecuteError::Malformed { .. }) => {}
            Err(error) => return Err(dialogue::failure(error)),
        }
    }
    let [help, info] = told;
    Ok(HmpWords::of(&help, &info))
}

/// The commands of a guest agent. One that does not answer soon may do so later, and need not tell.
async fn agent_commands(client: &Client) -> Vec<String> {
    let asked = client.execute("guest-info", ());
    let Ok(Ok(told)) = within(FAREWELL, "reply to `guest-info`", asked).await else { return Vec::new() };
    let commands = told["supported_commands"].as_array().cloned().unwrap_or_default();
    commands.iter().filter_map(|command| command["name"].as_str()).map(str::to_owned).collect()
}
