//! What mends what is missing: the packages of each distribution, and the commands that install them.
//!
//! Debian's names are those of Debian 12, and were looked up there. The others are as far as known, and were not tried.

use std::fs;

/// A family of distributions that name their packages alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distribution {
    Debian,
    Fedora,
    Arch,
    Suse,
    Alpine,
}

/// What may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    /// The QEMU for this target: `x86_64`, `aarch64`, ….
    Qemu(&'a str),
    /// UEFI firmware for this target.
    Firmware(&'a str),
    /// The program `qemu-img`.
    QemuImg,
}

/// What lets a user who is not root use KVM.
pub(crate) const JOIN_KVM: &str = "sudo usermod -aG kvm $USER";

impl Distribution {
    /// The one that this system is, as os-release(5) tells.
    pub(crate) fn here() -> Option<Self> {
        let files = ["/etc/os-release", "/usr/lib/os-release"];
        files.iter().find_map(|file| fs::read_to_string(file).ok()).and_then(|text| Self::of(&text))
    }

    fn of(os_release: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        // Its own name first, and then those that it resembles.
        let (id, like) = (value("ID"), value("ID_LIKE"));
        [id.as_str()].into_iter().chain(like.split(' ')).find_map(|id| match id {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::Fedora),
            "arch" => Some(Self::Arch),
            "opensuse" | "suse" | "opensuse-tumbleweed" | "opensuse-leap" => Some(Self::Suse),
            "alpine" => Some(Self::Alpine),
            _ => None,
        })
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian and Ubuntu",
            Self::Fedora => "Fedora",
            Self::Arch => "Arch Linux",
            Self::Suse => "openSUSE",
            Self::Alpine => "Alpine",
        }
    }

    /// The command that installs it, if there is a package of it.
    pub(crate) fn install(self, need: Need<'_>) -> Option<String> {
        let package = self.package(need)?;
        Some(match self {
            Self::Debian => format!("sudo apt install {package}"),
            Self::Fedora => format!("sudo dnf install {package}"),
            Self::Arch => format!("sudo pacman -S {package}"),
            Self::Suse => format!("sudo zypper install {package}"),
            Self::Alpine => format!("doas apk add {package}"),
        })
    }

    fn package(self, need: Need<'_>) -> Option<String> {
        match need {
            Need::Qemu(target) => Some(self.qemu(target)),
            Need::Firmware(target) => self.firmware(target).map(str::to_owned),
            Need::QemuImg => Some(self.qemu_img().to_owned()),
        }
    }

    fn qemu(self, target: &str) -> String {
        let family = match target {
            "i386" | "x86_64" => "x86",
            "aarch64" | "arm" => "arm",
            "mips" | "mips64" | "mips64el" | "mipsel" => "mips",
            "ppc" | "ppc64" => "ppc",
            "sparc" | "sparc64" => "sparc",
            "riscv32" | "riscv64" => "riscv",
            "s390x" => "s390x",
            _ => "",
        };
        match (self, family) {
            (Self::Debian, "x86" | "arm" | "mips" | "ppc" | "sparc") => format!("qemu-system-{family}"),
            (Self::Debian, _) => "qemu-system-misc".into(),
            // There, 64-bit ARM is a package of its own, and other targets are named as QEMU names them.
            (Self::Fedora | Self::Arch, "arm" | "") => format!("qemu-system-{target}"),
            (Self::Fedora | Self::Arch, family) => format!("qemu-system-{family}"),
            (Self::Suse, "x86" | "arm" | "ppc" | "s390x") => format!("qemu-{family}"),
            (Self::Suse, _) => "qemu-extra".into(),
            (Self::Alpine, _) => format!("qemu-system-{target}"),
        }
    }

    fn firmware(self, target: &str) -> Option<&'static str> {
        Some(match (self, target) {
            (Self::Debian | Self::Alpine, "x86_64") => "ovmf",
            (Self::Fedora | Self::Arch, "x86_64") => "edk2-ovmf",
            (Self::Suse, "x86_64") => "qemu-ovmf-x86_64",
            (Self::Debian, "aarch64") => "qemu-efi-aarch64",
            (Self::Fedora | Self::Arch, "aarch64") => "edk2-aarch64",
            (Self::Suse, "aarch64") => "qemu-uefi-aarch64",
            (Self::Alpine, "aarch64") => "aavmf",
            _ => return None,
        })
    }

    fn qemu_img(self) -> &'static str {
        match self {
            Self::Debian => "qemu-utils",
            Self::Fedora | Self::Arch | Self::Alpine => "qemu-img",
            Self::Suse => "qemu-tools",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_told_by_its_name_or_by_what_it_resembles() {
        let check = |text, expected| assert_eq!(Distribution::of(text), expected, "{text}");

        check("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n", Some(Distribution::Debian));
        check("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(Distribution::Debian));
        check("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(Distribution::Fedora));
        check("ID=manjaro\nID_LIKE=arch\n", Some(Distribution::Arch));
        check("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Some(Distribution::Suse));
        check("ID=alpine\n", Some(Distribution::Alpine));
        check("ID=nixos\n", None);
        check("", None);
    }

    #[test]
    fn a_missing_qemu_is_in_a_package() {
        let check = |here: Distribution, target, expected: &str| {
            assert_eq!(here.install(Need::Qemu(target)).unwrap(), expected);
        };

        check(Distribution::Debian, "x86_64", "sudo apt install qemu-system-x86");
        check(Distribution::Debian, "riscv64", "sudo apt install qemu-system-misc");
        check(Distribution::Fedora, "aarch64", "sudo dnf install qemu-system-aarch64");
        check(Distribution::Fedora, "i386", "sudo dnf install qemu-system-x86");
        check(Distribution::Arch, "riscv64", "sudo pacman -S qemu-system-riscv");
        check(Distribution::Suse, "aarch64", "sudo zypper install qemu-arm");
        check(Distribution::Suse, "avr", "sudo zypper install qemu-extra");
        check(Distribution::Alpine, "x86_64", "doas apk add qemu-system-x86_64");
    }

    #[test]
    fn firmware_is_in_a_package_where_there_is_one() {
        assert_eq!(
            Distribution::Debian.install(Need::Firmware("aarch64")).as_deref(),
            Some("sudo apt install qemu-efi-aarch64")
        );
        assert_eq!(Distribution::Debian.install(Need::Firmware("avr")), None);
    }
}
