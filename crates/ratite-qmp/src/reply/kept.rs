//! A reply's text as it is kept: shared by clones, and given away whole by the last of them.

use std::ops::Deref;
use std::ops::Range;
use std::sync::Arc;

/// A text from this length on is worth an allocation more, so that its owner can have it without a copy.
const LONG: usize = 16 << 10;

#[derive(Debug, Clone)]
pub(in crate::reply) enum Kept {
    Short(Arc<str>),
    Long(Arc<String>),
}

impl Kept {
    /// The part of it that stands at `range`.
    pub(in crate::reply) fn into_part(self, range: Range<usize>) -> String {
        let whole = match self {
            Self::Short(text) => return text[range].to_owned(),
            Self::Long(text) => Arc::try_unwrap(text),
        };
        match whole {
            Ok(mut text) => {
                text.truncate(range.end);
                text.drain(..range.start);
                text
            }
            Err(shared) => shared[range].to_owned(),
        }
    }
}

impl From<&str> for Kept {
    fn from(text: &str) -> Self {
        if text.len() < LONG { Self::Short(text.into()) } else { Self::Long(Arc::new(text.to_owned())) }
    }
}

impl Deref for Kept {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Short(text) => text,
            Self::Long(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_however_the_text_is_kept() {
        for length in [3, LONG, 2 * LONG] {
            let text = "é".repeat(length);
            let (kept, shared) = (Kept::from(&*text), Kept::from(&*text));
            let _other = shared.clone();

            assert_eq!(kept.into_part(2..6), "éé");
            assert_eq!(shared.into_part(2..6), "éé");
        }
    }
}
