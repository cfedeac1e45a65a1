//! Which of the known words a wrong one was probably meant to be. Pure.

/// The word among `known` that is nearest to `word`, if one is near enough to be what was meant.
///
/// Counts insertions, removals, replacements and swaps of neighbours, without regard to case and to `_` for `-`; one of
/// these in three characters is near enough. A known word that `word` begins, or is a part of, is near, too.
///
/// ```
/// use ratite_qmp::nearest;
///
/// assert_eq!(nearest("query_stauts", ["query-stats", "query-status", "quit"]), Some("query-status"));
/// assert_eq!(nearest("teapot", ["query-status", "quit"]), None);
/// ```
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    let candidates = known.into_iter().filter_map(|candidate| {
        let letters = folded(candidate);
        Some(((rank(&word, &letters)?, word.len().abs_diff(letters.len())), candidate))
    });
    candidates.min_by_key(|(rank, _)| *rank).map(|(_, candidate)| candidate)
}

/// How far apart two words are that are near enough.
fn rank(word: &[char], candidate: &[char]) -> Option<usize> {
    let longest = word.len().max(candidate.len());
    if longest > LONGEST || word.is_empty() {
        return None;
    }
    let distance = distance(word, candidate);
    if distance * 3 <= longest {
        return Some(distance);
    }
    let is_part = word.len() >= 3 && candidate.windows(word.len()).any(|part| part == word);
    // Behind all that are near by their letters, and the shorter the better.
    is_part.then_some(LONGEST + candidate.len())
}

/// What is longer is no name.
const LONGEST: usize = 200;

fn folded(word: &str) -> Vec<char> {
    word.chars().flat_map(char::to_lowercase).map(|letter| if letter == '_' { '-' } else { letter }).collect()
}

/// The number of insertions, removals, replacements and swaps of neighbours between two words.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut row = vec![at + 1];
        for (place, candidate) in other.iter().enumerate() {
            let replaced = last[place] + usize::from(letter != candidate);
            let mut least = replaced.min(last[place + 1] + 1).min(row[place] + 1);
            if at > 0 && place > 0 && *letter == other[place - 1] && one[at - 1] == *candidate {
                least = least.min(before[place - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<&str>) {
        let known = ["query-status", "query-block", "blockdev-add", "device_add", "quit", "stop", "cont"];
        assert_eq!(nearest(word, known), expected, "{word}");
    }

    #[test]
    fn a_slip_of_the_fingers_is_recognised() {
        check("query-stauts", Some("query-status"));
        check("qeury-status", Some("query-status"));
        check("QUIT", Some("quit"));
        check("blockdev_add", Some("blockdev-add"));
        check("device-add", Some("device_add"));
        check("status", Some("query-status"));
        check("stp", Some("stop"));
    }

    #[test]
    fn what_is_far_from_everything_is_nothing() {
        check("xyzzy", None);
        check("", None);
        check(&"q".repeat(1000), None);
    }

    #[test]
    fn distances_count_swaps_once() {
        let check = |one: &str, other: &str, expected| {
            assert_eq!(distance(&folded(one), &folded(other)), expected, "{one} {other}");
        };

        check("abc", "abc", 0);
        check("abc", "acb", 1);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
    }
}
