//! Bytes that were read and not yet handed out.
//!
//! A connection that is idle holds no memory for reading: an empty buffer is given back to the thread, for the next
//! connection that reads on it.

use std::cell::Cell;

/// How much room a read gets at least.
const READ_SIZE: usize = 32 << 10;

/// How much it usually gets: a Unix socket's queue rarely holds more.
const USUAL_SIZE: usize = 128 << 10;

/// A buffer that grew beyond this for one long message is not kept after it.
pub(super) const KEPT_CAPACITY: usize = 1 << 20;

thread_local! {
    /// A buffer that nobody uses.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where the bytes that are not yet handed out begin and end.
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that are not yet handed out.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Hands out the first `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let start = self.start;
        self.skip(count);
        &self.bytes[start..self.start]
    }

    /// The last `count` of the bytes that were handed out.
    pub(super) fn behind(&self, count: usize) -> &[u8] {
        &self.bytes[self.start - count..self.start]
    }

    pub(super) fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "not more than there are");
        self.start += count;
    }

    /// Room for the next read.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.rewind();
        } else if self.start > 0
            && self.bytes.len() > KEPT_CAPACITY
            && self.end - self.start < KEPT_CAPACITY / 2
        {
            self.shrink();
        }
        if self.bytes.is_empty() {
            self.bytes = SPARE.take();
        }
        if self.bytes.len() - self.end < READ_SIZE {
            self.make_room();
        }
        &mut self.bytes[self.end..]
    }

    /// Says that `count` bytes of the room hold what was read.
    pub(super) fn filled(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "more bytes than there was room for");
        self.end += count;
    }

    /// Says that nothing is to be read for now.
    pub(super) fn rest(&mut self) {
        if self.start == self.end {
            self.rewind();
            SPARE.set(std::mem::take(&mut self.bytes));
        }
    }

    fn rewind(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.bytes.len() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        }
    }

    /// Gives the large buffer of a long message back; the next one has begun in it, but is short so far.
    fn shrink(&mut self) {
        let mut small = self.unread().to_vec();
        small.resize(KEPT_CAPACITY, 0);
        self.bytes = small;
        self.end -= self.start;
        self.start = 0;
    }

    /// Moves what is left to the front if that frees half of the buffer, or else doubles it; so each byte is moved
    /// a bounded number of times.
    fn make_room(&mut self) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < READ_SIZE {
            let length = (self.bytes.len() * 2).max(self.end + READ_SIZE).max(USUAL_SIZE);
            match self.bytes.is_empty() {
                // The system's own zeros: pages that no read reaches are never there.
                true => self.bytes = vec![0; length],
                false => self.bytes.resize(length, 0),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}
