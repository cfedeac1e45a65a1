//! The last bytes of a stream, and the places of its readers. Pure.

mod blocks;
mod search;

use crate::exit::Tail;
use blocks::Blocks;

pub(crate) use blocks::BLOCK;
pub(crate) use search::Candidate;
pub(crate) use search::Cursor;
pub use search::Match;
pub(crate) use search::Searched;

/// The last bytes of a stream. Offsets count from the stream's beginning.
#[derive(Debug)]
pub(crate) struct History {
    bytes: Blocks,
    capacity: usize,
    /// How many bytes came before `bytes`.
    forgotten: u64,
}

/// A reader's place in the stream: the offset behind the last byte that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl History {
    /// Keeps the last `capacity` bytes, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: Blocks::default(), capacity: capacity.max(1), forgotten: 0 }
    }

    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.forgotten + self.bytes.len() as u64
    }

    /// The place before the oldest byte that is still there.
    pub(crate) fn beginning(&self) -> Place {
        Place(self.forgotten)
    }

    /// The place behind the newest byte.
    pub(crate) fn now(&self) -> Place {
        Place(self.end())
    }

    /// Whether there is something to be taken at `place`.
    pub(crate) fn has_unread(&self, place: Place) -> bool {
        self.end() > self.first_unread(place)
    }

    /// The offset of the first byte that was not taken and is still there.
    fn first_unread(&self, place: Place) -> u64 {
        place.0.max(self.forgotten)
    }

    /// Takes in what is in `block`, and leaves it empty, perhaps without room.
    pub(crate) fn take_in(&mut self, block: &mut Vec<u8>) {
        self.bytes.take_in(block);
    }

    /// Lets the oldest bytes go that are more than are to be kept; a `block` without room may get theirs.
    pub(crate) fn forget_surplus(&mut self, block: &mut Vec<u8>) {
        let surplus = self.bytes.len().saturating_sub(self.capacity);
        self.forgotten += surplus as u64;
        if let Some(free) = self.bytes.forget(surplus)
            && block.capacity() == 0
        {
            *block = free;
        }
    }

    /// How many bytes went unread since this was last asked; reading goes on behind them.
    pub(crate) fn take_lag(&self, place: &mut Place) -> u64 {
        let dropped = self.dropped_at(*place);
        *place = Place(self.first_unread(*place));
        dropped
    }

    /// Takes everything that is unread.
    pub(crate) fn take_all(&self, place: &mut Place) -> Vec<u8> {
        self.take_at_most(place, usize::MAX)
    }

    fn dropped_at(&self, place: Place) -> u64 {
        self.forgotten.saturating_sub(place.0)
    }

    /// Takes at most `limit` bytes of what is unread.
    pub(crate) fn take_at_most(&self, place: &mut Place, limit: usize) -> Vec<u8> {
        let first = self.first_unread(*place);
        let end = first + (self.end() - first).min(limit as u64);
        let taken = self.unread(*place, self.unread_before(*place, end));
        *place = Place(end);
        taken
    }

    /// At most the last `limit` bytes.
    pub(crate) fn tail(&self, limit: usize) -> Tail {
        let start = self.bytes.len().saturating_sub(limit);
        Tail { bytes: self.bytes.copy(start, limit), omitted: self.forgotten + start as u64 }
    }

    /// How many unread bytes come before the offset `end`.
    fn unread_before(&self, place: Place, end: u64) -> usize {
        usize::try_from(end - self.first_unread(place)).unwrap_or(usize::MAX)
    }

    /// At most the first `length` bytes that are unread; only those are copied.
    fn unread(&self, place: Place, length: usize) -> Vec<u8> {
        self.bytes.copy(self.skipped(self.first_unread(place)), length)
    }

    /// The bytes from the offset `from` on, in the blocks in which they are kept.
    fn since(&self, from: u64) -> impl Iterator<Item = &[u8]> {
        self.bytes.behind(self.skipped(from))
    }

    /// How many of the bytes come before the offset `from`.
    fn skipped(&self, from: u64) -> usize {
        usize::try_from(from - self.forgotten).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::search::Spot;
    use super::*;
    use crate::pattern::Pattern;
    use crate::pattern::Patterns;
    use proptest::prelude::*;

    impl History {
        fn record(&mut self, bytes: &[u8]) {
            let mut block = bytes.to_vec();
            self.take_in(&mut block);
            self.forget_surplus(&mut block);
        }
    }

    /// Finds and takes what is known to be there.
    #[track_caller]
    fn find(history: &History, pattern: &Patterns, cursor: &mut Cursor, place: &mut Place) -> Match {
        let Ok(Searched::Found(spot)) = history.search(pattern, cursor, *place, || true) else {
            panic!("{pattern} is there")
        };
        let candidate = history.candidate(*place, spot);
        let located = candidate.locate(pattern.get(spot.index).unwrap());
        History::take_match(candidate, located, place).expect("nobody else reads")
    }

    #[test]
    fn what_does_not_fit_is_forgotten_and_counted() {
        let mut history = History::new(4);
        let mut place = history.beginning();
        history.record(b"abc");
        history.record(b"def");

        assert_eq!(history.take_lag(&mut place), 2);
        assert_eq!(history.take_all(&mut place), b"cdef");
        history.record(b"0123456789");
        assert_eq!(history.take_lag(&mut place), 6);
        assert_eq!(history.tail(2), Tail { bytes: b"89".to_vec(), omitted: 14 });
        assert_eq!((history.take_all(&mut place), history.take_lag(&mut place)), (b"6789".to_vec(), 0));
    }

    #[test]
    fn what_follows_a_match_stays() {
        let mut history = History::new(100);
        let mut place = history.beginning();
        history.record(b"boot login: later");
        let pattern = Patterns::from("login:");

        let mut cursor = history.begin(&pattern, place).unwrap();
        let found = find(&history, &pattern, &mut cursor, &mut place);

        assert_eq!((found.before_text().as_str(), found.text().as_str()), ("boot ", "login:"));
        assert_eq!(history.take_all(&mut place), b" later");
    }

    #[test]
    fn what_follows_a_match_is_seen_by_it() {
        let mut history = History::new(100);
        let mut place = history.beginning();
        history.record(b"a food");
        let pattern = Patterns::from(Pattern::regex(r"foo\B").unwrap());

        let mut cursor = history.begin(&pattern, place).unwrap();
        let found = find(&history, &pattern, &mut cursor, &mut place);

        assert_eq!((found.before_text().as_str(), found.text().as_str()), ("a ", "foo"));
    }

    #[test]
    fn the_end_is_where_nothing_follows_not_where_the_ring_wraps() {
        let mut history = History::new(8);
        let place = history.beginning();
        history.record(b"xxxxxxab");
        history.record(b"cd");
        let pattern = Patterns::from(Pattern::regex("b$").unwrap());

        assert_eq!(
            history.search(&pattern, &mut history.begin(&pattern, place).unwrap(), place, || true),
            Ok(Searched::NotYet)
        );
    }

    #[test]
    fn a_match_whose_beginning_is_forgotten_is_still_found() {
        let mut history = History::new(4);
        let mut place = history.beginning();
        let pattern = Patterns::from("abcdef");
        let mut cursor = history.begin(&pattern, place).unwrap();
        history.record(b"abcd");
        assert_eq!(history.search(&pattern, &mut cursor, place, || true), Ok(Searched::NotYet));

        history.record(b"ef");

        let found = find(&history, &pattern, &mut cursor, &mut place);
        assert_eq!((found.matched.as_slice(), found.dropped), (b"cdef".as_slice(), 2));
    }

    #[test]
    fn a_match_does_not_begin_in_what_somebody_else_took() {
        let mut history = History::new(100);
        let mut place = history.beginning();
        let pattern = Patterns::from("abcdef");
        let mut cursor = history.begin(&pattern, place).unwrap();
        history.record(b"abc");
        assert_eq!(history.search(&pattern, &mut cursor, place, || true), Ok(Searched::NotYet));
        assert_eq!(history.take_all(&mut place), b"abc");

        history.record(b"def abcdef");

        assert_eq!(
            history.search(&pattern, &mut cursor, place, || true),
            Ok(Searched::Found(Spot { end: 13, index: 0 }))
        );
    }

    #[test]
    fn a_search_that_is_interrupted_goes_on_where_it_was() {
        let mut history = History::new(10_000);
        let place = history.beginning();
        history.record(&[b'x'; 1000]);
        history.record(b"end");
        let pattern = Patterns::from("end");
        let mut cursor = history.begin(&pattern, place).unwrap();
        let mut rounds = 0;

        let found = loop {
            let mut stretches = 0;
            let one_stretch = || {
                stretches += 1;
                stretches == 1
            };
            match history.search(&pattern, &mut cursor, place, one_stretch) {
                Ok(Searched::Unfinished) => rounds += 1,
                other => break other,
            }
        };

        assert_eq!((found, rounds), (Ok(Searched::Found(Spot { end: 1003, index: 0 })), 3));
    }

    #[test]
    fn what_somebody_else_took_is_not_taken_again() {
        let mut history = History::new(100);
        let mut place = history.beginning();
        history.record(b"login: ");
        let candidate = history.candidate(place, Spot { end: 6, index: 0 });

        history.take_all(&mut place);

        assert_eq!(History::take_match(candidate, None, &mut place), None);
    }

    #[test]
    fn each_place_is_read_from_by_itself() {
        let mut history = History::new(100);
        let (mut one, mut other) = (history.beginning(), history.beginning());
        history.record(b"login: ");

        assert_eq!(history.take_at_most(&mut one, 5), b"login");
        assert_eq!(history.take_all(&mut other), b"login: ");
        assert_eq!(history.take_all(&mut one), b": ");
        assert!(!history.has_unread(history.now()) && history.has_unread(history.beginning()));
    }

    proptest! {
        #[test]
        fn what_is_read_is_the_end_of_what_was_written(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
            capacity in 1_usize..30,
        ) {
            let mut history = History::new(capacity);
        let mut place = history.beginning();
            blocks.iter().for_each(|block| history.record(block));
            let written = blocks.concat();
            let kept = &written[written.len().saturating_sub(capacity)..];

            prop_assert_eq!(history.end(), written.len() as u64);
            prop_assert_eq!(history.take_lag(&mut place) as usize, written.len() - kept.len());
            prop_assert_eq!(history.take_all(&mut place), kept);
        }
    }
}
