//! "Did you mean": the known word nearest to a wrong one.
//!
//! Optimal string alignment: a letter too many, too few, wrong, or two exchanged cost one each.

/// ` (did you mean "bind"?)`, or nothing where no word is near.
pub(super) fn suggestion<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    // A long text is no slip of the finger, and the distance costs its length squared.
    if wrong.len() > LONGEST {
        return String::new();
    }
    let nearest = known.map(|word| (distance(wrong, word), word)).min();
    match nearest {
        Some((distance, word)) if distance <= word.len().min(wrong.len()).div_ceil(3) => {
            format!(" (did you mean \"{word}\"?)")
        }
        _ => String::new(),
    }
}

fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, here) in left.chars().enumerate() {
        let mut costs = vec![row + 1];
        for (column, there) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut cost = at(&last, column) + usize::from(here != *there);
            cost = cost.min(at(&last, column + 1) + 1).min(at(&costs, column) + 1);
            let exchanged = column > 0 && right.get(column - 1) == Some(&here) && previous == Some(*there);
            if exchanged {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            costs.push(cost);
        }
        before = std::mem::replace(&mut last, costs);
        previous = Some(here);
    }
    last.last().copied().unwrap_or(0)
}

/// Longest word that is compared.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        let known = ["bind", "name", "allow_anonymous", "protocol"];
        let check = |wrong: &str, expected: &str| {
            assert_eq!(suggestion(wrong, known.into_iter()), expected, "{wrong}");
        };
        check("bnid", " (did you mean \"bind\"?)");
        check("allow_anonymus", " (did you mean \"allow_anonymous\"?)");
        check("protocoll", " (did you mean \"protocol\"?)");
        check("frobnicate", "");
        check("", "");
    }
}
