//! What needs no look at each byte: the text within a string, and the digits of a number.

/// What `bytes` are from the next byte on that a string does not merely hold: a quote, a backslash, a control character.
#[inline]
pub(in crate::envelope) fn behind_plain(mut bytes: &[u8]) -> &[u8] {
    while let Some((eight, rest)) = bytes.split_first_chunk() {
        if let Some(place) = stop_in(u64::from_le_bytes(*eight)) {
            return &bytes[place..];
        }
        bytes = rest;
    }
    while let [first, rest @ ..] = bytes
        && *first >= 0x20
        && !matches!(first, b'"' | b'\\')
    {
        bytes = rest;
    }
    bytes
}

/// What `bytes` are from the next byte on that is no digit.
#[inline]
pub(in crate::envelope) fn behind_digits(mut bytes: &[u8]) -> &[u8] {
    while let Some((eight, rest)) = bytes.split_first_chunk() {
        // A digit becomes its value; what is more than nine sets the high bit, and carries only upwards.
        let word = u64::from_le_bytes(*eight) ^ (ONES * b'0' as u64);
        let others = (word.wrapping_add(ONES * (0x80 - 10)) | word) & HIGH;
        if others != 0 {
            return &bytes[others.trailing_zeros() as usize / 8..];
        }
        bytes = rest;
    }
    while let [b'0'..=b'9', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
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

                let (stop, other) = (stops(byte), !byte.is_ascii_digit());
                assert_eq!(40 - behind_plain(&text).len(), if stop { place } else { 40 }, "{byte}");
                assert_eq!(40 - behind_digits(&number).len(), if other { place } else { 40 }, "{byte}");
            }
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_find_what_a_look_at_each_byte_finds(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let next = |wanted: fn(&u8) -> bool| bytes.iter().position(wanted).map_or(&bytes[..0], |at| &bytes[at..]);

            prop_assert_eq!(behind_plain(&bytes), next(|byte| stops(*byte)));
            prop_assert_eq!(behind_digits(&bytes), next(|byte| !byte.is_ascii_digit()));
        }
    }
}
