//! Templates of machines with devices that decide whether they can be frozen: a share that the guest mounts, played by the test
//! in place of a guest, and a disk that is a word alone.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Instant;

use ratite::FreezeError;
use ratite::Qtest;
use ratite::qmp::Address;
use ratite::qmp::Socket;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::templates::content;
use ratite_tests::templates::fill_sector;
use ratite_tests::templates::here;
use ratite_tests::templates::plain;

/// The device's place on the PCI bus, and where its registers are put.
const SLOT: u32 = 5;
const PORT: u32 = 0xc000;

/// Where the queue and a message each way are in the guest's memory.
const QUEUE: u64 = 0x10_0000;
const SENT: u64 = 0x20_0000;
const RECEIVED: u64 = 0x20_8000;

/// What a guest's driver of a virtio 9p device (in its first version, over PCI) does, over qtest.
struct Driver<'a> {
    qtest: &'a Qtest,
    /// How many entries the queue has.
    size: u64,
    /// How many messages were sent.
    sent: u16,
}

impl<'a> Driver<'a> {
    async fn begin(qtest: &'a Qtest) -> Self {
        let driver = Self { qtest, size: 0, sent: 0 };
        for (register, value) in [(0x10, PORT), (0x04, 0x7)] {
            driver.set(&format!("outl 0xcf8 {:#x}", 0x8000_0000 | SLOT << 11 | register)).await;
            driver.set(&format!("outl 0xcfc {value:#x}")).await;
        }
        // Acknowledged, driven, with a mount tag, the queue's size and place, ready.
        driver.set(&format!("outb {:#x} 0x3", PORT + 18)).await;
        driver.set(&format!("outl {:#x} 0x1", PORT + 4)).await;
        let size = qtest.command(&format!("inw {:#x}", PORT + 12)).await.unwrap();
        driver.set(&format!("outl {:#x} {:#x}", PORT + 8, QUEUE >> 12)).await;
        driver.set(&format!("outb {:#x} 0x7", PORT + 18)).await;
        Self { size: number(&size), ..driver }
    }

    async fn set(&self, command: &str) {
        self.qtest.command(command).await.unwrap();
    }

    async fn put(&self, place: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.set(&format!("write {place:#x} {:#x} 0x{digits}", bytes.len())).await;
    }

    /// Sends a message of this type, and returns the type of the answer.
    async fn ask(&mut self, kind: u8, content: &[&[u8]]) -> u64 {
        let content = content.concat();
        let length = u32::try_from(7 + content.len()).unwrap();
        let message = [&length.to_le_bytes()[..], &[kind, 1, 0], &content].concat();
        self.put(SENT, &message).await;
        // One descriptor to be read, with another one behind it, to be written to.
        for (number, (place, length, flags, next)) in
            [(SENT, length, 1_u16, 1_u16), (RECEIVED, 0x4000, 2, 0)].into_iter().enumerate()
        {
            let descriptor =
                [&place.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
            self.put(QUEUE + 16 * number as u64, &descriptor.concat()).await;
        }
        let available = QUEUE + 16 * self.size;
        let used = (available + 4 + 2 * self.size + 2).next_multiple_of(4096);
        self.put(available + 4 + 2 * (u64::from(self.sent) % self.size), &[0, 0]).await;
        self.sent += 1;
        self.put(available + 2, &self.sent.to_le_bytes()).await;
        self.set(&format!("outw {:#x} 0x0", PORT + 16)).await;
        let start = Instant::now();
        while number(&self.qtest.command(&format!("readw {:#x}", used + 2)).await.unwrap())
            != u64::from(self.sent)
        {
            assert!(start.elapsed() < PATIENCE, "the device does not answer");
        }
        number(&self.qtest.command(&format!("readb {:#x}", RECEIVED + 4)).await.unwrap())
    }
}

fn number(answer: &str) -> u64 {
    u64::from_str_radix(answer.trim_start_matches("0x"), 16).unwrap()
}

/// A text of the protocol: its length before it.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_le_bytes(), text.as_bytes()].concat()
}

/// The types of 9P's messages; an answer's is one more.
const VERSION: u8 = 100;
const ATTACH: u8 = 104;
const CLUNK: u8 = 120;

#[test]
fn a_share_that_is_mounted_stands_in_the_way_until_it_is_unmounted() {
    play(async |stage| {
        let shared = stage.path("shared");
        std::fs::create_dir(&shared).unwrap();
        let share = format!("local,id=f,security_model=none,path={}", shared.display());
        let device = format!("virtio-9p-pci,fsdev=f,mount_tag=our-files,disable-modern=on,addr={SLOT}");
        let path = stage.path("qtest");
        let line = format!("socket,id=qtest,server=on,wait=off,path={}", path.display());
        // No guest runs (`-S`) whose firmware would give the device another place.
        let config = plain(stage).machine_type("pc").args(["-S", "-fsdev", &share, "-device", &device]);
        let config = config.args(["-chardev", &line, "-qtest", "chardev:qtest"]).freezable();
        let machine = config.launch().await.unwrap();
        let qtest = Qtest::over(Socket::connect(&Address::unix(path)).await.unwrap(), PATIENCE);
        let mut driver = Driver::begin(&qtest).await;
        let fid = 7_u32.to_le_bytes();
        assert_eq!(driver.ask(VERSION, &[&8192_u32.to_le_bytes(), &text("9P2000.L")]).await, 101);
        let none = u32::MAX.to_le_bytes();
        assert_eq!(driver.ask(ATTACH, &[&fid, &none, &text("root"), &text("/"), &none]).await, 105);

        let refusal = machine.freeze().await.unwrap_err();

        assert!(
            matches!(&refusal, FreezeError::Blocked { reasons } if reasons[0].contains("our-files")),
            "{refusal}"
        );
        assert_eq!(driver.ask(CLUNK, &[&fid]).await, 121, "the device goes on");
        let template = machine.freeze().await.unwrap();
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        spawned.kill().await.unwrap();
    });
}

#[test]
fn an_image_that_is_a_word_alone_stays_as_it_is() {
    play(async |stage| {
        let image = stage.path("disk.img");
        std::fs::write(&image, vec![7; 1 << 20]).unwrap();
        let config = plain(stage).machine_type("pc").arg("-S").arg(&image).args(["-name", "any"]).freezable();
        let machine = config.launch().await.unwrap();
        fill_sector(&machine, "ide0-hd0", 0, 65).await;

        let template = machine.freeze().await.unwrap();

        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        let content = content(&spawned, "ide0-hd0").await;
        assert_eq!((&content[..512], &content[512..1024]), (&[65; 512][..], &[7; 512][..]));
        spawned.kill().await.unwrap();
        assert_eq!(std::fs::read(&image).unwrap(), vec![7; 1 << 20], "the caller's image is as it was");
    });
}
