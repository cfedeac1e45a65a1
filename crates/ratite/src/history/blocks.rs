//! Bytes in the order of their arrival, in the blocks in which they came.

use std::collections::VecDeque;

/// Bytes of which some come behind the others and the first go. A large block is kept as it is, small ones are gathered, so
/// that little is copied and little room is wasted.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// None is empty.
    blocks: VecDeque<Vec<u8>>,
    /// How many bytes of the first block are gone.
    gone: usize,
    length: usize,
}

/// The room of a block, and the most that is gathered in one.
pub(crate) const BLOCK: usize = 64 << 10;

/// What is copied at once rather than kept with all the room around it.
const SMALL: usize = 4 << 10;

impl Blocks {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds what is in `block` and leaves it empty, perhaps without room.
    pub(super) fn take_in(&mut self, block: &mut Vec<u8>) {
        if block.len() <= self.room().max(SMALL) {
            self.gather(block);
            block.clear();
        } else {
            self.length += block.len();
            self.blocks.push_back(std::mem::take(block));
        }
    }

    /// Adds a copy of `bytes`.
    pub(super) fn gather(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(self.room().min(bytes.len()));
        if let Some(last) = self.blocks.back_mut() {
            last.extend_from_slice(head);
        }
        if !rest.is_empty() {
            // There may be many streams that carry little.
            let mut block = Vec::with_capacity(self.length.clamp(SMALL, BLOCK).max(rest.len()));
            block.extend_from_slice(rest);
            self.blocks.push_back(block);
        }
        self.length += bytes.len();
    }

    fn room(&self) -> usize {
        self.blocks.back().map_or(0, |last| last.capacity() - last.len())
    }

    /// Lets the first `count` bytes go; an empty block with room, if one has become free.
    pub(super) fn forget(&mut self, count: usize) -> Option<Vec<u8>> {
        self.length -= count;
        self.gone += count;
        let mut free = None;
        while let Some(first) = self.blocks.pop_front_if(|first| first.len() <= self.gone) {
            self.gone -= first.len();
            free = Some(first);
        }
        free.filter(|block| block.capacity() >= BLOCK).map(|mut block| {
            block.clear();
            block
        })
    }

    /// The bytes behind the first `skip`, piece by piece; none is empty.
    pub(super) fn behind(&self, skip: usize) -> impl Iterator<Item = &[u8]> {
        // Most often only the last few are wanted.
        let mut wanted = self.length.saturating_sub(skip);
        let mut first = self.blocks.len();
        let mut within = 0;
        while wanted > 0 {
            first -= 1;
            within = self.blocks[first].len().saturating_sub(wanted);
            wanted = wanted.saturating_sub(self.blocks[first].len());
        }
        let offset = move |number| if number == 0 { within } else { 0 };
        self.blocks.range(first..).enumerate().map(move |(number, block)| &block[offset(number)..])
    }

    /// A copy of at most `limit` bytes behind the first `skip`.
    pub(super) fn copy(&self, skip: usize, limit: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.length.saturating_sub(skip).min(limit));
        for piece in self.behind(skip) {
            copy.extend_from_slice(&piece[..piece.len().min(limit - copy.len())]);
            if copy.len() == limit {
                break;
            }
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A block as a pump has read it: with room for more.
    fn block(bytes: &[u8]) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(bytes);
        block
    }

    #[test]
    fn a_full_block_is_kept_as_it_is_and_comes_back_when_it_is_forgotten() {
        let mut blocks = Blocks::default();
        let mut full = block(&[7; BLOCK]);
        let address = full.as_ptr();

        blocks.take_in(&mut full);

        assert_eq!(full.capacity(), 0);
        assert_eq!(blocks.behind(0).map(<[u8]>::as_ptr).collect::<Vec<_>>(), [address]);
        assert_eq!(blocks.forget(BLOCK).map(|free| (free.as_ptr(), free.len())), Some((address, 0)));
    }

    #[test]
    fn a_few_bytes_take_little_room() {
        let mut blocks = Blocks::default();
        let mut little = block(b"$ ");

        for _ in 0..100 {
            blocks.take_in(&mut little);
            little.extend_from_slice(b"$ ");
        }

        assert_eq!(blocks.blocks.iter().map(Vec::capacity).sum::<usize>(), SMALL);
    }

    proptest! {
        #[test]
        fn what_is_there_is_the_end_of_what_came(
            steps in prop::collection::vec((0_usize..3 * SMALL, 0_usize..3 * SMALL, any::<bool>()), 0..30),
            from in 0_usize..4 * BLOCK,
        ) {
            let (mut blocks, mut expected) = (Blocks::default(), Vec::new());
            for (number, (come, go, by_block)) in steps.into_iter().enumerate() {
                // Now and then a large one.
                let come = if number % 5 == 4 { come + BLOCK - 3 * SMALL } else { come };
                let bytes: Vec<u8> = (0..come).map(|at| (number * 31 + at) as u8).collect();
                if by_block {
                    blocks.take_in(&mut block(&bytes));
                } else {
                    blocks.gather(&bytes);
                }
                expected.extend(bytes);
                let go = go.min(expected.len());
                blocks.forget(go);
                expected.drain(..go);
            }
            let from = from.min(expected.len());

            prop_assert_eq!(blocks.len(), expected.len());
            prop_assert!(blocks.behind(from).all(|piece| !piece.is_empty()));
            prop_assert_eq!(blocks.behind(from).collect::<Vec<_>>().concat(), &expected[from..]);
            prop_assert_eq!(blocks.copy(from, 1000), &expected[from..expected.len().min(from + 1000)]);
        }
    }
}
