//! A search in what is unread, and what it found.

use crate::history::History;
use crate::history::Place;
use crate::pattern::Located;
use crate::pattern::Pattern;
use crate::pattern::Patterns;
use crate::pattern::Search;
use crate::pattern::SearchError;
use crate::pattern::Stepped;

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

/// How many bytes are searched before the first look at the time.
const FIRST_STRETCH: usize = 256;

/// How many at most between two looks, when they are cheap.
const LONGEST_STRETCH: usize = 64 << 10;

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
        let mut stretch = FIRST_STRETCH;
        for mut piece in self.since(cursor.seen) {
            while !piece.is_empty() {
                if !go_on() {
                    return Ok(Searched::Unfinished);
                }
                let length = piece.len().min(stretch);
                match cursor.search.step(&piece[..length])? {
                    Stepped::Hit(hit) => {
                        let end = cursor.seen + hit.end as u64;
                        return Ok(Searched::Found(Spot { end, index: hit.index }));
                    }
                    Stepped::Over(count) => {
                        cursor.seen += count as u64;
                        piece = &piece[count..];
                        stretch =
                            if count < length { FIRST_STRETCH } else { LONGEST_STRETCH.min(2 * stretch) };
                    }
                }
            }
        }
        // Only here, not at the end of a block, is the end of what has arrived.
        Ok(match cursor.search.match_at_end()? {
            Some(index) => Searched::Found(Spot { end: cursor.seen, index }),
            None => Searched::NotYet,
        })
    }
}
