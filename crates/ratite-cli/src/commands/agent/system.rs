//! What the agent tells of the guest, and does to it.

use ratite::qmp::AgentInfo;
use ratite::qmp::FsState;
use ratite::qmp::GuestInterface;
use ratite::qmp::ShutdownMode;
use ratite::qmp::SuspendMode;
use ratite::qmp::Trimmed;
use serde_json::json;

use crate::args::AgentChannel;
use crate::args::AgentSlowChannel;
use crate::args::Down;
use crate::args::Form;
use crate::args::FreezeAction;
use crate::args::Sleep;
use crate::commands::agent::connect;
use crate::commands::agent::failure;
use crate::output;
use crate::report::Failure;

pub(super) async fn ping(channel: &AgentChannel) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    agent.ping().await.map_err(failure("reach the guest's agent"))
}

pub(super) async fn info(channel: &AgentChannel, form: Form) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    let info = agent.info().await.map_err(failure("ask the guest's agent what it is"))?;
    match form.json {
        true => output::json(&info),
        false => output::text(&info_text(info)),
    }
    .map_err(Failure::output)
}

fn info_text(mut info: AgentInfo) -> String {
    info.commands.sort_by(|one, other| (!one.enabled, &one.name).cmp(&(!other.enabled, &other.name)));
    let mut text = format!("version   {}\n", info.version);
    for command in info.commands {
        text += &format!("{:<8}  {}\n", if command.enabled { "enabled" } else { "disabled" }, command.name);
    }
    text
}

pub(super) async fn interfaces(channel: &AgentChannel, form: Form) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    let interfaces = agent.interfaces().await.map_err(failure("list the guest's network interfaces"))?;
    match form.json {
        true => output::json(&interfaces),
        false => output::text(&interfaces_text(&interfaces)),
    }
    .map_err(Failure::output)
}

fn interfaces_text(interfaces: &[GuestInterface]) -> String {
    let longest = interfaces.iter().map(|interface| interface.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for interface in interfaces {
        let mac = interface.hardware_address.as_deref().unwrap_or("-");
        let addresses = interface.addresses.iter().map(|it| format!("  {}/{}", it.address, it.prefix));
        text += &format!("{:<longest$}  {mac:<17}{}", interface.name, addresses.collect::<String>());
        text = text.trim_end().to_owned() + "\n";
    }
    text
}

pub(super) async fn fsfreeze(
    channel: &AgentSlowChannel,
    action: FreezeAction,
    form: Form,
) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    let (json, text) = match action {
        FreezeAction::Status => {
            let state =
                agent.fs_status().await.map_err(failure("ask whether the file systems are frozen"))?;
            let word = match state {
                FsState::Thawed => "thawed",
                FsState::Frozen => "frozen",
            };
            (json!({ "status": word }), word.to_owned())
        }
        FreezeAction::Freeze => {
            let count = agent.fs_freeze().await.map_err(failure("freeze the guest's file systems"))?;
            (json!({ "frozen": count }), format!("{} frozen", file_systems(count)))
        }
        FreezeAction::Thaw => {
            let count = agent.fs_thaw().await.map_err(failure("thaw the guest's file systems"))?;
            (json!({ "thawed": count }), format!("{} thawed", file_systems(count)))
        }
    };
    match form.json {
        true => output::json(&json),
        false => output::text(&(text + "\n")),
    }
    .map_err(Failure::output)
}

fn file_systems(count: u64) -> String {
    match count {
        1 => "1 file system".into(),
        count => format!("{count} file systems"),
    }
}

pub(super) async fn fstrim(channel: &AgentSlowChannel, minimum: u64, form: Form) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    let trimmed = agent.fs_trim(minimum).await.map_err(failure("trim the guest's file systems"))?;
    match form.json {
        true => output::json(&trimmed),
        false => output::text(&trimmed.iter().map(trimmed_line).collect::<String>()),
    }
    .map_err(Failure::output)?;
    let failed: Vec<_> =
        trimmed.iter().filter_map(|it| it.error.as_ref().map(|why| (&it.path, why))).collect();
    let Some((path, why)) = failed.first() else { return Ok(()) };
    let doing = format!("trim {} of {}", failed.len(), file_systems(trimmed.len() as u64));
    Err(Failure::Conversation { doing, source: format!("{path}: {why}").into(), exit: None })
}

fn trimmed_line(trimmed: &Trimmed) -> String {
    match (&trimmed.error, trimmed.trimmed) {
        (Some(why), _) => format!("{}  not trimmed: {why}\n", trimmed.path),
        (None, bytes) => format!("{}  {} bytes\n", trimmed.path, bytes.unwrap_or_default()),
    }
}

pub(super) async fn shutdown(channel: &AgentChannel, mode: Down) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    let mode = match mode {
        Down::Powerdown => ShutdownMode::PowerDown,
        Down::Halt => ShutdownMode::Halt,
        Down::Reboot => ShutdownMode::Reboot,
    };
    agent.shutdown(mode).await.map_err(failure("shut the guest down"))
}

pub(super) async fn suspend(channel: &AgentChannel, mode: Sleep) -> Result<(), Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    let mode = match mode {
        Sleep::Disk => SuspendMode::Disk,
        Sleep::Ram => SuspendMode::Ram,
        Sleep::Hybrid => SuspendMode::Hybrid,
    };
    agent.suspend(mode).await.map_err(failure("send the guest to sleep"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_told_one_a_line() {
        let interfaces: Vec<GuestInterface> = serde_json::from_value(json!([
            { "name": "lo", "ip-addresses": [
                { "ip-address": "127.0.0.1", "prefix": 8, "ip-address-type": "ipv4" },
                { "ip-address": "::1", "prefix": 128, "ip-address-type": "ipv6" }] },
            { "name": "eth0", "hardware-address": "52:54:00:12:34:56" },
        ]))
        .unwrap();

        assert_eq!(
            interfaces_text(&interfaces),
            "lo    -                  127.0.0.1/8  ::1/128\neth0  52:54:00:12:34:56\n"
        );
    }

    #[test]
    fn what_was_not_trimmed_has_its_reason() {
        let trimmed: Vec<Trimmed> =
            serde_json::from_value(json!([{ "path": "/", "trimmed": 9 }, { "path": "/x", "error": "no" }]))
                .unwrap();

        assert_eq!(trimmed.iter().map(trimmed_line).collect::<String>(), "/  9 bytes\n/x  not trimmed: no\n");
    }
}
