//! The process groups of this program's living machines, where the guard finds them once nobody is left to ask.
//!
//! A file in memory with a line for each group, all of one length: noting a group is one write, and a program that ends in
//! the middle of everything has left whole lines.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

/// The table. Each process has its own.
#[derive(Debug)]
pub(crate) struct GroupTable {
    file: OwnedFd,
    /// Which line a group has.
    lines: BTreeMap<u32, u64>,
    /// Lines that are empty again.
    free: Vec<u64>,
}

/// The length of a line: ten digits at most, filled up with blanks, and its end.
const LINE: usize = 11;

impl GroupTable {
    pub(crate) fn new() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("ratite-groups", MemfdFlags::CLOEXEC)?;
        Ok(Self { file, lines: BTreeMap::new(), free: Vec::new() })
    }

    /// Another descriptor of it, for the guard.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// Notes a group.
    pub(crate) fn insert(&mut self, group: u32) -> io::Result<()> {
        let next = self.lines.len() as u64;
        // Without free lines, those that are taken are the first ones.
        let line = self.free.pop().unwrap_or(next);
        self.lines.insert(group, line);
        self.write(line, &group.to_string())
    }

    /// Strikes out a group, if it is there.
    pub(crate) fn remove(&mut self, group: u32) -> io::Result<()> {
        let Some(line) = self.lines.remove(&group) else { return Ok(()) };
        self.free.push(line);
        self.write(line, "")
    }

    fn write(&self, line: u64, text: &str) -> io::Result<()> {
        let padded = format!("{text:width$}\n", width = LINE - 1);
        // At its place, so that the guard's reading begins at the first line.
        rustix::io::pwrite(&self.file, padded.as_bytes(), line * LINE as u64)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &GroupTable) -> String {
        let mut bytes = [0; 200];
        let count = rustix::io::pread(&table.file, &mut bytes, 0).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_group_has_a_line_for_as_long_as_it_is_noted() {
        let mut table = GroupTable::new().unwrap();

        for group in [1, u32::MAX, 77] {
            table.insert(group).unwrap();
        }
        table.remove(u32::MAX).unwrap();
        table.remove(5).unwrap();
        assert_eq!(text(&table), "1         \n          \n77        \n");

        table.insert(8).unwrap();
        table.insert(9).unwrap();
        assert_eq!(text(&table), "1         \n8         \n77        \n9         \n");
    }
}
