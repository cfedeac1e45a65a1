//! What needs no look at each byte: the text within a string, and the digits of a number.

/// Where, from `at` on, the next byte lies that a string does not merely hold: a quote, a backslash, a control character.
/// At the end of `bytes` if there is none.
#[inline]
pub(in crate::envelope) fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes[at..].first_chunk() {
        if let Some(place) = stop_in(u64::from_le_bytes(*eight)) {
            return at + place;
        }
        at += 8;
    }
    let stops = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    bytes[at..].iter().position(stops).map_or(bytes.len(), |place| at + place)
}

/// Where, from `at` on, the next byte lies that is no digit.
#[inline]
pub(in crate::envelope) fn end_of_digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes[at..].first_chunk() {
        // A digit becomes its value; what is more than nine sets the high bit, and carries only upwards.
        let word = u64::from_le_bytes(*eight) ^ (ONES * b'0' as u64);
        let others = (word.wrapping_add(ONES * (0x80 - 10)) | word) & HIGH;
        if others != 0 {
            return at + others.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |place| at + place)
}

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// Where the first byte stands in eight, the lowest first, that a string does not merely hold.
#[inline]
fn stop_in(word: u64) -> Option<usize> {
    /// A word whose lowest high bit stands in the first byte of `word` that is below `limit` (at most 128).
    const fn below(word: u64, limit: u64) -> u64 {
        word.wrapping_sub(ONES * limit) & !word
    }
    let quotes = below(word ^ (ONES * b'"' as u64), 1);
    let backslashes = below(word ^ (ONES * b'\\' as u64), 1);
    let stops = (quotes | backslashes | below(word, 0x20)) & HIGH;
    (stops != 0).then(|| stops.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn every_byte_is_told_apart_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for place in 0..40 {
                let (mut text, mut number) = ([b'x'; 40], [b'7'; 40]);
                (text[place], number[place]) = (byte, byte);

                assert_eq!(end_of_plain(&text, 0), if stops(byte) { place } else { 40 }, "{byte}");
                assert_eq!(
                    end_of_digits(&number, 0),
                    if byte.is_ascii_digit() { 40 } else { place },
                    "{byte}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_find_what_a_look_at_each_byte_finds(bytes in prop::collection::vec(any::<u8>(), 0..80), from in 0_usize..80) {
            let from = from.min(bytes.len());
            let next = |wanted: fn(&u8) -> bool| bytes[from..].iter().position(wanted).map_or(bytes.len(), |at| from + at);

            prop_assert_eq!(end_of_plain(&bytes, from), next(|byte| stops(*byte)));
            prop_assert_eq!(end_of_digits(&bytes, from), next(|byte| !byte.is_ascii_digit()));
        }
    }
}
