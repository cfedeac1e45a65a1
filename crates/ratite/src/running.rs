//! The live parts of one machine, as one value. No behaviour.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;

use ratite_qmp::Agent;
use ratite_qmp::Client;
use ratite_qmp::Listener;
use tokio::sync::OnceCell;

use crate::command_line::CommandLine;
use crate::config::Timeouts;
use crate::console::Console;
use crate::exit::Asked;
use crate::exit::Exit;
use crate::frame::Frame;
use crate::process::Process;
use crate::qtest::Qtest;
use crate::reach_folder::Reach;
use crate::workdir::Log;

/// Everything that a running machine consists of.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) monitor: Option<MonitorSession>,
    /// The consoles with their names, in the order of the description.
    pub(crate) consoles: Vec<(String, Console)>,
    pub(crate) agent: Option<Agent>,
    pub(crate) qtest: Option<Qtest>,
    /// Where others reach it, if they may.
    pub(crate) reach: Option<Reach>,
    pub(crate) log: Log,
    pub(crate) work_folder: PathBuf,
    pub(crate) command_line: CommandLine,
    pub(crate) frame: Frame,
    pub(crate) timeouts: Timeouts,
    pub(crate) started: SystemTime,
    pub(crate) launch_time: Duration,
    /// What we have asked of it, if anything.
    pub(crate) asked: Mutex<Option<Asked>>,
    /// How it ended, once that is known.
    pub(crate) exit: OnceCell<Exit>,
}

/// The QMP session and the listeners that were armed before it began.
#[derive(Debug)]
pub(crate) struct MonitorSession {
    pub(crate) client: Client,
    /// Every event, for `event_wait` and its like.
    pub(crate) events: Listener,
    /// `SHUTDOWN` alone, so that no flood of others can push out why the machine ended.
    pub(crate) shutdowns: Listener,
}
