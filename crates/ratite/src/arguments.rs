//! What the arguments that a caller has written say of the machine, as far as ratite has to know it. Pure.

use std::ffi::OsStr;
use std::ffi::OsString;

use crate::config::MachineConfig;
use crate::options::Options;

/// The places and values of every option of this name, however many dashes it was given.
pub(crate) fn given<'a>(arguments: &'a [OsString], name: &str) -> impl Iterator<Item = (usize, &'a OsStr)> {
    let pairs = arguments.windows(2).enumerate();
    pairs.filter(move |(_, pair)| is_option(&pair[0], name)).map(|(place, pair)| (place, pair[1].as_os_str()))
}

/// Whether a word is the option of this name. QEMU takes one dash and two.
pub(crate) fn is_option(word: &OsStr, name: &str) -> bool {
    word.to_str().and_then(|word| word.strip_prefix('-')).map(|word| word.strip_prefix('-').unwrap_or(word))
        == Some(name)
}

/// QEMU's options that take no value, of all its versions.
const FLAGS: [&str; 36] = [
    "S",
    "alt-grab",
    "ctrl-grab",
    "curses",
    "daemonize",
    "enable-fips",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-frame",
    "no-hpet",
    "no-kvm",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "old-param",
    "only-migratable",
    "portrait",
    "preconfig",
    "s",
    "semihosting",
    "singlestep",
    "snapshot",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
];

/// The places of the words that are neither an option nor the value of one: QEMU takes such a word for the image of the first
/// hard disk. Behind an option that is not known to take none, a word is its value.
pub(crate) fn words_alone(arguments: &[OsString]) -> Vec<usize> {
    let is_flag = |word: &OsString| FLAGS.iter().any(|name| is_option(word, name));
    let mut alone = Vec::new();
    let mut place = 0;
    while let Some(word) = arguments.get(place) {
        let is_option = word.as_encoded_bytes().starts_with(b"-");
        if !is_option {
            alone.push(place);
        }
        place += if is_option && !is_flag(word) { 2 } else { 1 };
    }
    alone
}

/// How much RAM the machine is to have, in bytes; `None` if nothing is said, or not so that it can be read.
pub(crate) fn memory_size(arguments: &[OsString]) -> Option<u64> {
    let (_, value) = given(arguments, "m").last()?;
    let options = Options::parse(value);
    let size = options.get("size").or_else(|| options.implied())?.to_str()?;
    bytes(size)
}

/// A size as QEMU reads it: mebibytes, unless a suffix says what it is; fractions are allowed.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        (at, 't' | 'T') => (&text[..at], 40),
        (at, 'b' | 'B') => (&text[..at], 0),
        _ => (text, 20),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << unit).filter(|bytes| *bytes > 0);
    }
    let parts: Vec<_> = number.split('.').collect();
    let [whole, part] = parts[..] else { return None };
    let digits = u32::try_from(part.len()).ok().filter(|digits| *digits <= 9)?;
    let scaled = format!("{whole}{part}").parse::<u128>().ok()?.checked_mul(1_u128 << unit)?;
    u64::try_from(scaled / 10_u128.pow(digits)).ok().filter(|bytes| *bytes > 0)
}

/// The machine's type, if it is said: the last word counts, with QEMU.
pub(crate) fn machine_type(config: &MachineConfig) -> Option<OsString> {
    let named = ["machine", "M"].iter().flat_map(|name| given(&config.args, name));
    let said = named.filter_map(|(place, value)| {
        let options = Options::parse(value);
        let word = options.implied().or_else(|| options.get("type"))?;
        Some((place, word.to_owned()))
    });
    said.max_by_key(|(place, _)| *place).map(|(_, word)| word).or_else(|| config.machine_type.clone())
}

/// Whether a machine of this configuration is a PC: with ACPI, and a PCI bus that devices are put on without being told where.
pub(crate) fn is_pc(config: &MachineConfig) -> bool {
    let binary = config.binary.to_string_lossy();
    let is_x86 = ["x86_64", "i386", "kvm"].iter().any(|it| binary.ends_with(it));
    is_x86
        && machine_type(config).is_none_or(|word| {
            let word = word.to_string_lossy();
            word == "pc" || word == "q35" || word.starts_with("pc-i440fx") || word.starts_with("pc-q35")
        })
}

/// Whether a device of one of these types is among the arguments.
pub(crate) fn has_device(arguments: &[OsString], types: &[&str]) -> bool {
    given(arguments, "device")
        .any(|(_, value)| device_type(value).is_some_and(|it| types.contains(&it.as_str())))
}

/// The type of a device that is given as an option string or as JSON.
pub(crate) fn device_type(value: &OsStr) -> Option<String> {
    if let Some(text) = value.to_str().filter(|text| text.starts_with('{')) {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        return value["driver"].as_str().map(str::to_owned);
    }
    let options = Options::parse(value);
    let word = options.implied().or_else(|| options.get("driver"))?;
    word.to_str().map(str::to_owned)
}

/// Whether the arguments put RAM into backends of their own, in place of the one that QEMU or ratite would make.
pub(crate) fn has_memory_of_its_own(arguments: &[OsString]) -> bool {
    let of_machine = ["machine", "M"].iter().flat_map(|name| given(arguments, name));
    let named =
        of_machine.map(|(_, value)| Options::parse(value)).any(|it| it.get("memory-backend").is_some());
    let nodes = given(arguments, "numa").any(|(_, value)| {
        let options = Options::parse(value);
        options.get("memdev").is_some() || options.get("mem").is_some()
    });
    named || nodes || given(arguments, "mem-path").next().is_some()
}

/// A memory backend in a file that is shared with whoever else maps that.
pub(crate) fn shared_file(arguments: &[OsString]) -> Option<String> {
    given(arguments, "object").find_map(|(_, value)| {
        let text = value.to_string_lossy();
        let (kind, is_shared) = match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(object) => (object["qom-type"].as_str().map(str::to_owned), object["share"] == true),
            Err(_) => {
                let options = Options::parse(value);
                let kind = options.implied().or_else(|| options.get("qom-type"));
                (kind.map(|kind| kind.to_string_lossy().into_owned()), options.is_on("share"))
            }
        };
        (kind.as_deref() == Some("memory-backend-file") && is_shared).then(|| text.into_owned())
    })
}

/// The ids of the devices among the arguments that have one.
pub(crate) fn device_ids(arguments: &[OsString]) -> Vec<String> {
    let id = |value: &OsStr| match serde_json::from_str::<serde_json::Value>(&value.to_string_lossy()) {
        Ok(device) => device["id"].as_str().map(str::to_owned),
        Err(_) => Options::parse(value).get("id").map(|id| id.to_string_lossy().into_owned()),
    };
    given(arguments, "device").filter_map(|(_, value)| id(value)).collect()
}

/// The accelerators among the arguments.
pub(crate) fn accelerators(arguments: &[OsString]) -> Vec<String> {
    let word = |value: &OsStr| value.to_string_lossy().into_owned();
    let own = given(arguments, "accel").map(|(_, value)| word(value));
    let of_machine = ["machine", "M"].iter().flat_map(|name| given(arguments, name));
    let of_machine = of_machine.filter_map(|(_, value)| Options::parse(value).get("accel").map(word));
    let short =
        arguments.iter().filter(|argument| is_option(argument, "enable-kvm")).map(|_| "kvm".to_owned());
    own.chain(of_machine).chain(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[track_caller]
    fn check_size(line: &str, expected: Option<u64>) {
        assert_eq!(memory_size(&words(line)), expected, "{line}");
    }

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        check_size("-m 256", Some(256 << 20));
        check_size("-m 64 --m 1G", Some(1 << 30));
        check_size("-m size=0.5G,slots=2,maxmem=4G", Some(512 << 20));
        check_size("-m 8192k", Some(8 << 20));
        check_size("-m 1.5.2", None);
        check_size("-m 0", None);
        check_size("-smp 2", None);
    }

    #[test]
    fn the_last_word_on_the_machine_counts() {
        let config = MachineConfig::new("qemu-system-x86_64").machine_type("pc");

        assert_eq!(machine_type(&config).unwrap(), "pc");
        let config = config.args(["-M", "microvm,acpi=on", "-machine", "usb=off"]);
        assert_eq!(machine_type(&config).unwrap(), "microvm");
        assert!(!is_pc(&config));
        assert!(is_pc(&config.args(["-machine", "type=pc-q35-7.2"])));
        assert!(!is_pc(&MachineConfig::new("qemu-system-arm")));
    }

    #[test]
    fn words_that_stand_alone_are_found() {
        assert_eq!(words_alone(&words("a.img -m 64 -S b.img --nographic -unknown c.img")), [0, 4]);
        assert_eq!(words_alone(&words("-hda a.img --snapshot b.img -m")), [3]);
    }

    #[test]
    fn devices_are_found_in_both_ways_of_writing() {
        let arguments = words(r#"-device vmgenid,guid=auto -device {"driver":"virtio-rng-pci"}"#);

        assert!(has_device(&arguments, &["vmgenid"]) && has_device(&arguments, &["virtio-rng-pci"]));
        assert!(!has_device(&arguments, &["virtio-net-pci"]));
    }

    #[test]
    fn accelerators_are_found_in_all_ways_of_naming_them() {
        assert_eq!(
            accelerators(&words("-accel tcg -M q35,accel=kvm:tcg -enable-kvm")),
            ["tcg", "kvm:tcg", "kvm"]
        );
        assert_eq!(
            device_ids(&words(r#"-device x,id=a -device {"driver":"x","id":"b"} -device y"#)),
            ["a", "b"]
        );
    }

    #[test]
    fn memory_of_ones_own_is_seen() {
        assert!(has_memory_of_its_own(&words("-object x -machine q35,memory-backend=x")));
        assert!(has_memory_of_its_own(&words("-numa node,memdev=x")));
        assert!(!has_memory_of_its_own(&words("-machine q35 -m 256 -numa node")));
    }
}
