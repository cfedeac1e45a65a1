//! Machines that other programs of the same user run, reached by their names.
//!
//! A machine that was launched with [`crate::MachineConfig::reachable`] can be found, looked at, spoken with and ended from
//! any process of its user. It stays its owner's: it ends with the program that launched it, and not with those who
//! reach it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ratite::qmp::Options;
//! use ratite::reach;
//! use std::time::Duration;
//!
//! for machine in reach::list().await? {
//!     println!("{} {}", machine.name, machine.state);
//! }
//! let web = reach::attach("web").await?;
//! let client = web.qmp(Options::default()).await?;
//! println!("{}", client.execute("query-status", ()).await?);
//! println!("{}", web.shutdown(Duration::from_secs(5)).await?);
//! # Ok(())
//! # }
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Agent;
use ratite_qmp::Client;
use ratite_qmp::Options;
use ratite_qmp::within;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::check::check_reachable;
use crate::config::ConsoleConfig;
use crate::console::Console;
use crate::reach_folder;
use crate::reach_folder::CONTROL;
use crate::reach_folder::QMP;
use crate::reach_words::Answer;
use crate::reach_words::Ask;
use crate::reach_words::Channel;
use crate::reach_words::Ending;
use crate::reach_words::LONGEST_ANSWER;
use crate::reach_words::Opened;

pub use crate::reach_words::ConsoleFacts;
pub use crate::reach_words::Facts;
pub use crate::reach_words::ReachError;
pub use crate::reach_words::RemoteExit;

/// How long a machine has to answer what it can answer at once. QEMU has a second of it to say its state.
const ANSWERING: Duration = Duration::from_secs(5);

/// How long an end by force may take: the owner's own limit for it, and a little more.
const ENDING: Duration = Duration::from_secs(70);

/// How long a write to a console may take.
const TYPING: Duration = Duration::from_secs(30);

/// The machines of this user that are reachable, by their names. Those that do not answer within 5 s are left out; [`names`] has
/// them, too.
///
/// What programs that were killed have left of theirs is swept.
///
/// # Errors
/// [`ReachError::Folder`] if their folder cannot be read or trusted.
pub async fn list() -> Result<Vec<Facts>, ReachError> {
    let mut asked = Vec::new();
    for name in reach_folder::names()? {
        asked.push(tokio::spawn(async move { Remote::named(&name)?.facts().await }));
    }
    let mut machines = Vec::new();
    for asked in asked {
        match asked.await {
            Ok(Ok(facts)) => machines.push(facts),
            Ok(Err(error)) => tracing::debug!(%error, "a machine does not answer"),
            Err(error) => tracing::debug!(%error, "asking a machine was broken off"),
        }
    }
    Ok(machines)
}

/// The names that the machines of this user have taken, whether or not they answer.
///
/// Waits for nobody. What programs that were killed have left of theirs is swept.
///
/// # Errors
/// As [`list`].
pub fn names() -> Result<Vec<String>, ReachError> {
    reach_folder::names()
}

/// Finds the machine of this name. Bounded by 5 s.
///
/// # Errors
/// [`ReachError::NotThere`] if no machine that runs has this name; [`ReachError::Broken`] if it cannot be connected to.
pub async fn attach(name: impl AsRef<str>) -> Result<Remote, ReachError> {
    let remote = Remote::named(name.as_ref())?;
    within(ANSWERING, format!("connection to the machine `{}`", remote.name), remote.connect()).await??;
    Ok(remote)
}

/// A machine that another program runs. Holds no connection: each call makes its own.
#[derive(Debug, Clone)]
pub struct Remote {
    name: String,
    folder: PathBuf,
}

/// A console of a machine that another program runs, as a stream.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attached {
    /// The console's name.
    pub name: String,
    /// How many bytes the guest had written before those that the stream begins with.
    pub omitted: u64,
    /// How many bytes of the stream were recorded before: what a guest asked of a terminal then, nobody is to answer now.
    pub recorded: u64,
    /// What the guest writes, and where one types; in blocking mode. Its end is the console's, or the machine's.
    pub stream: StdUnixStream,
}

impl Attached {
    /// The stream as a [`Console`], which is read in the background, with 1 MiB of history.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn into_console(self) -> io::Result<Console> {
        Console::over(self.stream, &ConsoleConfig::serial(), TYPING)
    }
}

impl Remote {
    fn named(name: &str) -> Result<Self, ReachError> {
        // No name that leads anywhere else.
        if check_reachable(OsStr::new(name)).is_err() {
            return Err(ReachError::NotThere { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), folder: reach_folder::trusted()?.join(name) })
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of it. Bounded by 5 s.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn facts(&self) -> Result<Facts, ReachError> {
        self.ask(&Ask::Facts {}, "what is known of it", ANSWERING).await
    }

    /// A QMP session with its QEMU, beside that of its owner and those of others. Bounded by [`Options::connect_limit`].
    ///
    /// # Errors
    /// [`ReachError::NotThere`]; [`ReachError::Qmp`], also for a machine without a monitor.
    pub async fn qmp(&self, options: Options) -> Result<Client, ReachError> {
        let address = Address::unix(self.folder.join(QMP));
        Client::connect(&address, options).await.map_err(|source| match self.folder.exists() {
            false => ReachError::NotThere { name: self.name.clone() },
            true => ReachError::Qmp { name: self.name.clone(), source },
        })
    }

    /// A console, in both directions: the one of this name, or the first. The last `replay` of the bytes that are recorded
    /// come first. Bounded by 5 s.
    ///
    /// Any number may be attached at once; each sees all that the guest writes. Ending one's own direction of the stream
    /// (`shutdown(Shutdown::Write)`) ends the stream once what was typed is on its way to the guest.
    ///
    /// # Errors
    /// [`ReachError::Refused`] if there is no such console.
    pub async fn console(&self, name: Option<&str>, replay: usize) -> Result<Attached, ReachError> {
        let name = name.map(str::to_owned);
        self.open(&Ask::Console { name, replay }).await
    }

    /// All that is recorded of a console, from the oldest byte on, and with `follow` what comes up to the machine's end.
    /// Bounded by 5 s.
    ///
    /// # Errors
    /// As [`Remote::console`].
    pub async fn log(&self, name: Option<&str>, follow: bool) -> Result<Attached, ReachError> {
        let name = name.map(str::to_owned);
        self.open(&Ask::Log { name, follow }).await
    }

    /// The agent in its guest, as an agent of one's own: its commands take turns with those of the owner and of others. The
    /// connection and then each command may take `limit`; see [`Agent::with_limit`].
    ///
    /// That says nothing about the agent: the first command finds out whether there is one.
    ///
    /// # Errors
    /// [`ReachError::Refused`] if the machine has no channel to an agent: [`crate::MachineConfig::agent`].
    pub async fn agent(&self, limit: Duration) -> Result<Agent, ReachError> {
        let (Channel {}, stream) = self.begin(&Ask::Agent {}, "whether it has an agent", limit).await?;
        Ok(Agent::over(stream).with_limit(limit))
    }

    /// Ends the machine: QEMU is asked to quit, and killed once `grace` is over. Bounded by the grace and 70 s.
    ///
    /// # Errors
    /// [`ReachError::Unclean`] when it had to be killed, or ended otherwise than with status 0: it is down then.
    pub async fn shutdown(&self, grace: Duration) -> Result<RemoteExit, ReachError> {
        let ask = Ask::Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) };
        let ending: Ending = self.ask(&ask, HOW, grace.saturating_add(ENDING)).await?;
        let exit = ending.exit.read();
        match ending.fault {
            Some(fault) => Err(ReachError::Unclean { fault, exit }),
            None => Ok(exit),
        }
    }

    /// Ends the machine by force. Bounded by 70 s.
    ///
    /// # Errors
    /// [`ReachError::Refused`] only when even that does not end it.
    pub async fn kill(&self) -> Result<RemoteExit, ReachError> {
        let ending: Ending = self.ask(&Ask::Kill {}, HOW, ENDING).await?;
        Ok(ending.exit.read())
    }

    /// Waits until the machine ends, whoever brings that about, at most for `limit`. Unlike [`crate::Machine::wait`] it
    /// never ends the machine.
    ///
    /// # Errors
    /// [`ReachError::TimedOut`]; [`ReachError::Gone`] if the program that runs it was killed, and the machine with it.
    pub async fn wait(&self, limit: Duration) -> Result<RemoteExit, ReachError> {
        let ending: Ending = self.ask(&Ask::Wait {}, HOW, limit).await?;
        Ok(ending.exit.read())
    }

    async fn connect(&self) -> Result<UnixStream, ReachError> {
        UnixStream::connect(self.folder.join(CONTROL)).await.map_err(|source| match source.kind() {
            // Refused: its owner was killed, and nobody has swept yet. Invalid: longer than any path of a socket.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidInput => {
                ReachError::NotThere { name: self.name.clone() }
            }
            _ => ReachError::Broken { name: self.name.clone(), source },
        })
    }

    /// Asks, and reads the answer to its end.
    async fn ask<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        what: &'static str,
        limit: Duration,
    ) -> Result<T, ReachError> {
        let answered = async {
            let mut stream = self.send(ask).await?;
            let mut line = Vec::new();
            while !line.ends_with(b"\n") && line.len() < LONGEST_ANSWER {
                match stream.read_buf(&mut line).await {
                    Ok(1..) => {}
                    Ok(0) => return Err(self.gone(what)),
                    Err(source) => return Err(self.ended(source, what)),
                }
            }
            self.read(&line)
        };
        within(limit, format!("word from the machine `{}` on {what}", self.name), answered).await?
    }

    /// Asks for a console's stream.
    async fn open(&self, ask: &Ask) -> Result<Attached, ReachError> {
        let what = "whether there is such a console";
        let (Opened { name, omitted, recorded }, stream) = self.begin(ask, what, ANSWERING).await?;
        let stream = stream.into_std().map_err(|source| self.broken(source))?;
        stream.set_nonblocking(false).map_err(|source| self.broken(source))?;
        Ok(Attached { name, omitted, recorded, stream })
    }

    /// Asks for a stream, and reads the answer alone.
    async fn begin<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        what: &'static str,
        limit: Duration,
    ) -> Result<(T, UnixStream), ReachError> {
        let begun = async {
            let mut stream = self.send(ask).await?;
            let mut line = Vec::new();
            // Byte by byte: what comes behind the line is the stream's.
            while !line.ends_with(b"\n") && line.len() < LONGEST_ANSWER {
                match stream.read_u8().await {
                    Ok(byte) => line.push(byte),
                    Err(source) => return Err(self.ended(source, what)),
                }
            }
            Ok((self.read(&line)?, stream))
        };
        within(limit, format!("word from the machine `{}` on {what}", self.name), begun).await?
    }

    async fn send(&self, ask: &Ask) -> Result<UnixStream, ReachError> {
        let mut line = serde_json::to_vec(ask).map_err(|error| self.broken(error.into()))?;
        line.push(b'\n');
        let mut stream = self.connect().await?;
        match stream.write_all(&line).await {
            Ok(()) => Ok(stream),
            // One that turns us away may say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(stream),
            Err(source) => Err(self.broken(source)),
        }
    }

    fn read<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, ReachError> {
        let answer: Answer<T> = serde_json::from_slice(line).map_err(|error| self.broken(error.into()))?;
        let nothing = || "it answered nothing".to_owned();
        answer.answer.ok_or_else(|| ReachError::Refused {
            name: self.name.clone(),
            reason: answer.error.unwrap_or_else(nothing),
        })
    }

    /// Why nothing more can be read. A reset is how the end of a program looks that had not accepted us yet.
    fn ended(&self, source: io::Error, what: &'static str) -> ReachError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => self.gone(what),
            _ => self.broken(source),
        }
    }

    fn gone(&self, what: &'static str) -> ReachError {
        ReachError::Gone { name: self.name.clone(), what }
    }

    fn broken(&self, source: io::Error) -> ReachError {
        ReachError::Broken { name: self.name.clone(), source }
    }
}

/// What is waited for when an end is.
const HOW: &str = "how it ended";
