//! The part of a description that decides what the guest sees, as it is kept in a file.
//!
//! Left out is what belongs to one run: names, folders, logs, sockets, descriptors, limits.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::config::AgentChannel;
use crate::config::ConsoleConfig;
use crate::config::Device;
use crate::config::MachineConfig;
use crate::config::WorkingFolder;

/// What decides what the guest sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    binary: Text,
    wrapper: Vec<Text>,
    args: Vec<Text>,
    environment: Vec<(Text, Option<Text>)>,
    folder: Text,
    machine_type: Option<Text>,
    accelerators: Vec<Text>,
    headless: bool,
    consoles: Vec<ConsoleRecipe>,
    agent: Option<AgentRecipe>,
    qtest: bool,
    own_process_group: bool,
    exit_with_parent: bool,
}

/// Any bytes of the system: text where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsoleRecipe {
    name: String,
    device: DeviceRecipe,
    index: Option<u32>,
    history: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DeviceRecipe {
    Serial,
    Other(Text),
    Virtio { port: Option<Text>, bus: Option<Text> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentRecipe {
    bus: Option<Text>,
}

impl Recipe {
    /// Of a description whose relative paths start from `folder`.
    pub(crate) fn of(config: &MachineConfig, folder: &Path) -> Self {
        let texts = |words: &[OsString]| words.iter().map(|word| Text::of(word)).collect();
        let variable =
            |(name, value): &(OsString, Option<OsString>)| (Text::of(name), value.as_deref().map(Text::of));
        Self {
            binary: Text::of(&config.binary),
            wrapper: texts(&config.wrapper),
            args: texts(&config.args),
            environment: config.environment.iter().map(variable).collect(),
            folder: Text::of(folder.as_os_str()),
            machine_type: config.machine_type.as_deref().map(Text::of),
            accelerators: texts(&config.accelerators),
            headless: config.headless,
            consoles: config.consoles.iter().map(ConsoleRecipe::of).collect(),
            agent: config.agent.as_ref().map(|agent| AgentRecipe { bus: agent.bus.as_deref().map(Text::of) }),
            qtest: config.qtest,
            own_process_group: config.own_process_group,
            exit_with_parent: config.exit_with_parent,
        }
    }

    /// The description, with nothing in it that belongs to one run.
    pub(crate) fn config(&self) -> MachineConfig {
        let words = |texts: &[Text]| texts.iter().map(Text::word).collect();
        let mut config = MachineConfig::new(self.binary.word());
        config.wrapper = words(&self.wrapper);
        config.args = self.arguments();
        let variable = |(name, value): &(Text, Option<Text>)| (name.word(), value.as_ref().map(Text::word));
        config.environment = self.environment.iter().map(variable).collect();
        config.working_folder = WorkingFolder::At(self.folder());
        config.machine_type = self.machine_type.as_ref().map(Text::word);
        config.accelerators = words(&self.accelerators);
        config.headless = self.headless;
        config.consoles = self.consoles.iter().map(ConsoleRecipe::console).collect();
        config.agent =
            self.agent.as_ref().map(|agent| AgentChannel { bus: agent.bus.as_ref().map(Text::word) });
        config.qtest = self.qtest;
        config.own_process_group = self.own_process_group;
        config.exit_with_parent = self.exit_with_parent;
        config
    }

    /// The caller's arguments.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        self.args.iter().map(Text::word).collect()
    }

    /// Whether nothing stands before the binary, so that the file at its path is what runs.
    pub(crate) fn has_no_wrapper(&self) -> bool {
        self.wrapper.is_empty()
    }

    /// Where relative paths start.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.word().into()
    }
}

impl Text {
    fn of(word: &OsStr) -> Self {
        match word.to_str() {
            Some(text) => Self::Text(text.into()),
            None => Self::Bytes(word.as_encoded_bytes().to_vec()),
        }
    }

    fn word(&self) -> OsString {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes.clone()),
        }
    }
}

impl ConsoleRecipe {
    fn of(console: &ConsoleConfig) -> Self {
        let text = |word: &Option<OsString>| word.as_deref().map(Text::of);
        let device = match &console.device {
            Device::Serial => DeviceRecipe::Serial,
            Device::Other(device) => DeviceRecipe::Other(Text::of(device)),
            Device::Virtio { port, bus } => DeviceRecipe::Virtio { port: text(port), bus: text(bus) },
        };
        Self { name: console.name.clone(), device, index: console.index, history: console.history }
    }

    fn console(&self) -> ConsoleConfig {
        let word = |text: &Option<Text>| text.as_ref().map(Text::word);
        let mut console = ConsoleConfig::serial().name(&self.name).history(self.history);
        console.device = match &self.device {
            DeviceRecipe::Serial => Device::Serial,
            DeviceRecipe::Other(device) => Device::Other(device.word()),
            DeviceRecipe::Virtio { port, bus } => Device::Virtio { port: word(port), bus: word(bus) },
        };
        console.index = self.index;
        console
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_comes_back_from_its_text_as_it_was() {
        let bytes = OsString::from_vec(b"x\xff".to_vec());
        let config = MachineConfig::new("qemu-system-x86_64")
            .wrapper(["env"])
            .args(["-m", "64"])
            .arg(&bytes)
            .env("A", "1")
            .env_remove("B")
            .machine_type("q35")
            .accelerator("tcg")
            .with_screen()
            .console(ConsoleConfig::serial().index(1).history(7).log("/tmp/of-one-run"))
            .console(ConsoleConfig::virtserialport("port").bus("bus"))
            .console(ConsoleConfig::device("isa-debugcon").name("d"))
            .agent_on("bus")
            .qtest();

        let text = serde_json::to_string(&Recipe::of(&config, Path::new("/there"))).unwrap();
        let back = serde_json::from_str::<Recipe>(&text).unwrap().config();

        assert_eq!(back.args, config.args);
        assert_eq!(back.environment, config.environment);
        assert_eq!(back.working_folder, WorkingFolder::At("/there".into()));
        assert_eq!(back.consoles[1..], config.consoles[1..]);
        assert_eq!(back.consoles[0], ConsoleConfig::serial().index(1).history(7));
        assert_eq!(
            (back.agent, back.machine_type, back.accelerators, back.headless, back.qtest, back.wrapper),
            (config.agent, config.machine_type, config.accelerators, false, true, config.wrapper),
        );
    }
}
