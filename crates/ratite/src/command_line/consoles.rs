//! Consoles, the guest agent's channel, and the bus that they share.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::RawFd;

use crate::command_line::option;
use crate::command_line::push_value;
use crate::config::AgentChannel;
use crate::config::ConsoleConfig;
use crate::config::Device;
use crate::config::MachineConfig;
use crate::options::doubled;

pub(super) fn push_consoles(words: &mut Vec<OsString>, config: &MachineConfig, fds: &[RawFd]) {
    let consoles = &config.consoles;
    let ports = serial_ports(consoles);
    // QEMU counts `-serial` options; only their order says which port is meant.
    for port in ports {
        match port {
            None => words.extend(["-serial", "null"].map(OsString::from)),
            Some(console) => {
                push_console_chardev(words, &consoles[console], fds[console]);
                words
                    .extend(["-serial".into(), format!("chardev:{}", chardev_id(&consoles[console])).into()]);
            }
        }
    }
    let for_console =
        consoles.iter().any(|console| matches!(console.device, Device::Virtio { bus: None, .. }));
    if for_console || matches!(config.agent, Some(AgentChannel { bus: None })) {
        words.extend(["-device", "virtio-serial,id=ratite-serial"].map(OsString::from));
    }
    for (console, fd) in consoles.iter().zip(fds) {
        let mut device = match &console.device {
            Device::Serial => continue,
            Device::Other(device) => doubled(device),
            Device::Virtio { port: None, .. } => option("virtconsole"),
            Device::Virtio { .. } => option("virtserialport"),
        };
        push_console_chardev(words, console, *fd);
        device.push(format!(",chardev={}", chardev_id(console)));
        if let Device::Virtio { port, bus } = &console.device {
            push_value(&mut device, "bus", bus.as_deref().unwrap_or(OsStr::new(OUR_BUS)));
            if let Some(port) = port {
                push_value(&mut device, "name", port);
            }
        }
        words.extend(["-device".into(), device]);
    }
}

/// The virtio-serial bus of the consoles and the agent that have none of their own.
const OUR_BUS: &str = "ratite-serial.0";

/// The channel by which the agent of a guest finds its host, and its name (qemu-ga(8), `--path`).
pub(super) fn push_agent(words: &mut Vec<OsString>, agent: &AgentChannel, fd: RawFd) {
    let mut device = option("virtserialport,chardev=guest-agent,name=org.qemu.guest_agent.0");
    push_value(&mut device, "bus", agent.bus.as_deref().unwrap_or(OsStr::new(OUR_BUS)));
    words.extend([
        "-chardev".into(),
        format!("socket,id=guest-agent,fd={fd}").into(),
        "-device".into(),
        device,
    ]);
}

/// Which console each serial port has, as places in `consoles`.
fn serial_ports(consoles: &[ConsoleConfig]) -> Vec<Option<usize>> {
    let mut ports: Vec<Option<usize>> = Vec::new();
    let reach = |ports: &mut Vec<_>, count: usize| ports.resize(ports.len().max(count), None);
    for (place, console) in consoles.iter().enumerate() {
        let Some(index) = console.index.map(|index| index as usize) else { continue };
        match console.device {
            Device::Serial => {
                reach(&mut ports, index + 1);
                ports[index] = Some(place);
            }
            _ => reach(&mut ports, index),
        }
    }
    for (place, console) in consoles.iter().enumerate() {
        if console.device == Device::Serial && console.index.is_none() {
            match ports.iter_mut().find(|port| port.is_none()) {
                Some(free) => *free = Some(place),
                None => ports.push(Some(place)),
            }
        }
    }
    ports
}

fn push_console_chardev(words: &mut Vec<OsString>, console: &ConsoleConfig, fd: RawFd) {
    words.extend(["-chardev".into(), format!("socket,id={},fd={fd}", chardev_id(console)).into()]);
}

fn chardev_id(console: &ConsoleConfig) -> String {
    match console.name.as_str() {
        ConsoleConfig::NAME => ConsoleConfig::NAME.into(),
        name => format!("console-{name}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::command_line::ChildEnds;
    use crate::command_line::render;
    use crate::config::ConsoleConfig;
    use crate::config::MachineConfig;

    #[track_caller]
    fn check(config: &MachineConfig, ends: &ChildEnds, expected: &str) {
        assert_eq!(render(config, ends).to_string(), expected);
    }

    #[test]
    fn a_machine_with_many_consoles() {
        let config = MachineConfig::new("qemu")
            .with_screen()
            .console(ConsoleConfig::serial())
            .console(ConsoleConfig::serial().name("debug").index(2))
            .console(ConsoleConfig::device("isa-debugcon,iobase=0x402").name("firmware"))
            .console(ConsoleConfig::virtconsole().name("hvc0"))
            .console(ConsoleConfig::virtserialport("org.example.0"))
            .console(ConsoleConfig::virtconsole().name("other").bus("my.0"))
            .console(ConsoleConfig::serial().name("second"));
        let ends = ChildEnds { consoles: (3..10).collect(), ..ChildEnds::default() };

        check(
            &config,
            &ends,
            "qemu -chardev 'socket,id=console,fd=3' -serial chardev:console \
             -chardev 'socket,id=console-second,fd=9' -serial chardev:console-second \
             -chardev 'socket,id=console-debug,fd=4' -serial chardev:console-debug \
             -device 'virtio-serial,id=ratite-serial' \
             -chardev 'socket,id=console-firmware,fd=5' \
             -device 'isa-debugcon,,iobase=0x402,chardev=console-firmware' \
             -chardev 'socket,id=console-hvc0,fd=6' \
             -device 'virtconsole,chardev=console-hvc0,bus=ratite-serial.0' \
             -chardev 'socket,id=console-org.example.0,fd=7' \
             -device 'virtserialport,chardev=console-org.example.0,bus=ratite-serial.0,name=org.example.0' \
             -chardev 'socket,id=console-other,fd=8' -device 'virtconsole,chardev=console-other,bus=my.0'",
        );
    }

    #[test]
    fn ports_that_no_console_has_are_null() {
        let config = MachineConfig::new("qemu").with_screen().console(ConsoleConfig::serial().index(2));
        let ends = ChildEnds { consoles: vec![3], ..ChildEnds::default() };

        check(
            &config,
            &ends,
            "qemu -serial null -serial null -chardev 'socket,id=console,fd=3' -serial chardev:console",
        );
    }

    #[test]
    fn an_agent_shares_the_bus_of_the_consoles() {
        let config = MachineConfig::new("qemu").with_screen().agent();
        let ends = ChildEnds { consoles: vec![3], agent: Some(4), ..ChildEnds::default() };
        let agent = "-chardev 'socket,id=guest-agent,fd=4' \
                     -device 'virtserialport,chardev=guest-agent,name=org.qemu.guest_agent.0,bus=ratite-serial.0'";

        check(&config, &ends, &format!("qemu -device 'virtio-serial,id=ratite-serial' {agent}"));
        check(
            &config.console(ConsoleConfig::virtconsole()),
            &ends,
            &format!(
                "qemu -device 'virtio-serial,id=ratite-serial' -chardev 'socket,id=console,fd=3' \
                 -device 'virtconsole,chardev=console,bus=ratite-serial.0' {agent}"
            ),
        );
    }

    #[test]
    fn an_agent_takes_another_bus() {
        let config = MachineConfig::new("qemu").with_screen().agent_on("my.0");
        let ends = ChildEnds { agent: Some(4), ..ChildEnds::default() };

        check(
            &config,
            &ends,
            "qemu -chardev 'socket,id=guest-agent,fd=4' \
             -device 'virtserialport,chardev=guest-agent,name=org.qemu.guest_agent.0,bus=my.0'",
        );
    }
}
