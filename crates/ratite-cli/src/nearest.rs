//! What somebody may have meant who misspelt a name. Pure.

/// The names that are nearest to `wrong`, the nearest first; none that is too far off. At most three.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wrong.to_lowercase();
    let near = (wrong.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| {
            *distance <= near || (lower.len() >= 3 && name.to_lowercase().contains(&lower))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// How many letters have to be changed, put in, left out, or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, &a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == other[j - 1] && one[i - 1] == b {
                least = least.min(before[j - 1] + 1);
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

    #[test]
    fn letters_are_counted() {
        let check = |one, other, expected| assert_eq!(distance(one, other), expected, "{one} {other}");

        check("", "abc", 3);
        check("kernel", "kernel", 0);
        check("kernle", "kernel", 1);
        check("memry", "memory", 1);
        check("abc", "xyz", 3);
    }

    #[test]
    fn the_nearest_come_first_and_the_far_do_not() {
        let names = ["peripheral", "peripheral-anon", "unattached", "type", "Type2"];

        assert_eq!(nearest("periferal", names), ["peripheral"]);
        assert_eq!(nearest("tpye", names), ["type"]);
        assert_eq!(nearest("TYPE", names), ["type", "Type2"]);
        assert!(nearest("gpu", names).is_empty());
    }
}
