//! The last bytes of a stream, and the places of its readers. Pure.

use std::collections::VecDeque;

use crate::exit::Tail;
use crate::pattern::Located;
use crate::pattern::Pattern;
use crate::pattern::Patterns;
use crate::pattern::Search;
use crate::pattern::SearchError;

/// The last bytes of a stream. Offsets count from the stream's beginning.
#[derive(Debug)]
pub(crate) struct History {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// How many bytes came before `bytes`.
    forgotten: u64,
}

/// A reader's place in the stream: the offset behind the last byte that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// What [`crate::Console::expect`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Match {
    /// Which of the patterns matched, by its place among them; 0 for a single one.
    pub index: usize,
    /// What came before the match, since the last read.
    pub before: Vec<u8>,
    /// What matched.
    pub matched: Vec<u8>,
    /// What the pattern's groups hold, from the first on; `None` for one that took no part.
    pub groups: Vec<Option<Vec<u8>>>,
    /// How many bytes before `before` were dropped, because nobody read them in time.
    pub dropped: u64,
}

impl Match {
    /// What came before the match, as text.
    #[must_use]
    pub fn before_text(&self) -> String {
        String::from_utf8_lossy(&self.before).into_owned()
    }

    /// What matched, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.matched).into_owned()
    }
}

/// How far a search has come.
#[derive(Debug)]
pub(crate) struct Cursor {
    search: Search,
    seen: u64,
    began_at: Place,
}

/// Where a match ends in the stream, and which of the patterns it is a match of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) end: u64,
    pub(crate) index: usize,
}

/// How far a search came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Searched {
    /// Here is a match.
    Found(Spot),
    /// There is none in what has arrived.
    NotYet,
    /// There is more to be searched.
    Unfinished,
}

/// How many bytes are searched between two looks at the time.
const STRETCH: usize = 256;

/// What is unread up to the end of a match.
#[derive(Debug)]
pub(crate) struct Candidate {
    bytes: Vec<u8>,
    length: usize,
    spot: Spot,
    place: Place,
    dropped: u64,
}

impl Candidate {
    /// Which of the patterns it is a match of.
    pub(crate) fn index(&self) -> usize {
        self.spot.index
    }

    /// Where in it the match lies.
    pub(crate) fn locate(&self, pattern: &Pattern) -> Option<Located> {
        pattern.locate(&self.bytes, self.length)
    }

    /// How many bytes that has to look at.
    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

impl History {
    /// Keeps the last `capacity` bytes, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity: capacity.max(1), forgotten: 0 }
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

    /// Adds bytes behind the others; the oldest go if there is no room.
    pub(crate) fn record(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let surplus = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..surplus);
        self.bytes.extend(kept);
        self.forgotten += (surplus + bytes.len() - kept.len()) as u64;
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

    /// What is unread up to `spot`, where a match was found to end.
    pub(crate) fn candidate(&self, place: Place, spot: Spot) -> Candidate {
        let length = self.unread_before(place, spot.end);
        // With the byte behind it, for a pattern that looks ahead.
        let bytes = self.unread(place, length.saturating_add(1));
        Candidate { bytes, length, spot, place, dropped: self.dropped_at(place) }
    }

    /// Takes a candidate, of which it is known where the match lies; `None` if somebody has read on meanwhile.
    pub(crate) fn take_match(
        candidate: Candidate,
        located: Option<Located>,
        place: &mut Place,
    ) -> Option<Match> {
        let Candidate { mut bytes, length, spot, place: taken_from, dropped } = candidate;
        if *place != taken_from {
            return None;
        }
        *place = Place(spot.end);
        let index = spot.index;
        bytes.truncate(length);
        Some(match located {
            Some(located) => {
                let matched = bytes.split_off(located.start);
                Match { index, before: bytes, matched, groups: located.groups, dropped }
            }
            // The beginning of the match is forgotten already.
            None => Match { index, before: Vec::new(), matched: bytes, groups: Vec::new(), dropped },
        })
    }

    /// Takes at most `limit` bytes of what is unread.
    pub(crate) fn take_at_most(&self, place: &mut Place, limit: usize) -> Vec<u8> {
        let first = self.first_unread(*place);
        let end = first + (self.end() - first).min(limit as u64);
        let taken = self.unread(*place, self.unread_before(*place, end));
        *place = Place(end);
        taken
    }

    /// Begins to search what is unread.
    ///
    /// # Errors
    /// When the patterns are too large together.
    pub(crate) fn begin(&self, patterns: &Patterns, place: Place) -> Result<Cursor, SearchError> {
        Ok(Cursor { search: patterns.search()?, seen: self.first_unread(place), began_at: place })
    }

    /// Searches what has come since `cursor` was here last, for as long as `go_on` says so.
    ///
    /// # Errors
    /// What the search gave up on.
    pub(crate) fn search(
        &self,
        patterns: &Patterns,
        cursor: &mut Cursor,
        place: Place,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Searched, SearchError> {
        // Somebody else has read on from this place, or bytes went before they were searched: a match must not begin in what is gone.
        if cursor.began_at != place || cursor.seen < self.forgotten {
            *cursor = self.begin(patterns, place)?;
        }
        for piece in self.since(cursor.seen).into_iter().flat_map(|piece| piece.chunks(STRETCH)) {
            if !go_on() {
                return Ok(Searched::Unfinished);
            }
            if let Some(hit) = cursor.search.step(piece)? {
                let end = cursor.seen + hit.end as u64;
                return Ok(Searched::Found(Spot { end, index: hit.index }));
            }
            cursor.seen += piece.len() as u64;
        }
        // Only here, not where the ring wraps, is the end of what has arrived.
        Ok(match cursor.search.match_at_end()? {
            Some(index) => Searched::Found(Spot { end: cursor.seen, index }),
            None => Searched::NotYet,
        })
    }

    /// At most the last `limit` bytes.
    pub(crate) fn tail(&self, limit: usize) -> Tail {
        let start = self.bytes.len().saturating_sub(limit);
        Tail { bytes: self.bytes.range(start..).copied().collect(), omitted: self.forgotten + start as u64 }
    }

    /// How many unread bytes come before the offset `end`.
    fn unread_before(&self, place: Place, end: u64) -> usize {
        usize::try_from(end - self.first_unread(place)).unwrap_or(usize::MAX)
    }

    /// At most the first `length` bytes that are unread; only those are copied.
    fn unread(&self, place: Place, length: usize) -> Vec<u8> {
        let [first, second] = self.since(self.first_unread(place));
        let first = &first[..first.len().min(length)];
        let second = &second[..second.len().min(length - first.len())];
        [first, second].concat()
    }

    /// The bytes from the offset `from` on, in the two pieces in which the ring holds them.
    fn since(&self, from: u64) -> [&[u8]; 2] {
        let skip = usize::try_from(from - self.forgotten).unwrap_or(usize::MAX).min(self.bytes.len());
        let (first, second) = self.bytes.as_slices();
        match skip.checked_sub(first.len()) {
            None => [&first[skip..], second],
            Some(skip) => [&[], &second[skip..]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
