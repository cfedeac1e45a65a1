//! Where a stream is cut, as the input itself says.
//!
//! The first byte says by its low four bits how many bytes of cuts follow; each of those is by its low four bits the
//! length of one piece, 0 for a long one, over and over. So `212` in front means pieces of one and two bytes in turn.

use std::iter;

/// How long a piece of "length 0" is: as much as a peer's write often is.
const LONG: usize = 4096;

/// The lengths of pieces, over and over.
#[derive(Debug, Clone)]
pub(super) struct Cuts(Vec<usize>);

impl Cuts {
    /// Takes the cuts from the front of `data`, and gives back what follows them.
    pub(super) fn take(data: &[u8]) -> (Self, &[u8]) {
        let Some((count, rest)) = data.split_first() else { return (Self(Vec::new()), data) };
        let (lengths, stream) = rest.split_at(rest.len().min(low_bits(*count)));
        (Self(lengths.iter().map(|byte| low_bits(*byte)).collect()), stream)
    }

    /// `stream` in pieces, none of which is empty; in one piece where there are no cuts.
    pub(super) fn pieces<'a>(&self, stream: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let lengths = if self.0.is_empty() { vec![0] } else { self.0.clone() };
        let mut lengths = lengths.into_iter().cycle();
        let mut rest = stream;
        iter::from_fn(move || {
            let length = match lengths.next()? {
                0 => LONG,
                length => length,
            };
            let (piece, behind) = rest.split_at(rest.len().min(length));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// The low four bits, so that the digits of a readable input mean themselves.
pub(super) fn low_bits(byte: u8) -> usize {
    usize::from(byte & 15)
}
