//! What came out of all rounds, and the table of it.
//!
//! Figures are medians; a run that went wrong has none, but is told: where one did, the figures of the others
//! stand with their number and without a ratio.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Sample;
use super::rows::{Figure, Part, Row};
use crate::process::median;

/// What one run has brought.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Sample(Sample),
    /// The broker cannot do this.
    Unable,
    /// It did something wrong, so that its figures mean nothing.
    Void(String),
}

/// All runs.
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    /// Names of the brokers; the first is what the others are compared with.
    pub(crate) brokers: Vec<String>,
    cells: BTreeMap<(usize, usize), Vec<Cell>>,
}

impl Results {
    pub(crate) fn new(rows: Vec<Row>, brokers: Vec<String>) -> Results {
        Results { rows, brokers, cells: BTreeMap::new() }
    }

    /// One run.
    pub(crate) fn add(&mut self, row: usize, broker: usize, cell: Cell) {
        self.cells.entry((row, broker)).or_default().push(cell);
    }

    fn samples(&self, row: usize, broker: usize) -> impl Iterator<Item = &Sample> {
        let cells = self.cells.get(&(row, broker)).into_iter().flatten();
        cells.filter_map(|cell| if let Cell::Sample(sample) = cell { Some(sample) } else { None })
    }

    /// Rounds so far, sound or not.
    pub(crate) fn rounds(&self) -> usize {
        self.cells.values().map(Vec::len).max().unwrap_or(0)
    }

    /// How many of the rounds were sound, where not all of them were.
    pub(crate) fn short(&self, row: usize, broker: usize) -> Option<usize> {
        self.cells.get(&(row, broker)).filter(|cells| cells.iter().any(|cell| *cell != Cell::Unable))?;
        let sound = self.samples(row, broker).count();
        (sound < self.rounds()).then_some(sound)
    }

    /// Whether any row is short of rounds.
    pub(crate) fn is_short(&self) -> bool {
        self.cells.keys().any(|(row, broker)| self.short(*row, *broker).is_some())
    }

    /// The figure in the middle of the rounds, and the least and the most of them.
    pub(crate) fn middle(&self, row: usize, broker: usize, figure: usize) -> Option<[f64; 3]> {
        let mut figures: Vec<f64> = self.samples(row, broker).map(|sample| sample[figure]).collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        Some([median(figures), least, most])
    }

    /// How many times the first broker's figure this one's is, where both have all their rounds.
    pub(crate) fn ratio(&self, row: usize, broker: usize, figure: usize) -> Option<f64> {
        if broker == 0 || [0, broker].into_iter().any(|broker| self.short(row, broker).is_some()) {
            return None;
        }
        let [theirs, ..] = self.middle(row, 0, figure)?;
        let [ours, ..] = self.middle(row, broker, figure)?;
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// What this broker did wrong, by row.
    pub(crate) fn faults(&self, broker: &str) -> Vec<String> {
        let of = |((row, number), cells): (&(usize, usize), &Vec<Cell>)| {
            let name = &self.rows[*row].name;
            let void = |cell: &Cell| match cell {
                Cell::Void(reason) => Some(format!("{broker}, {name}: {reason}")),
                _ => None,
            };
            let faults: Vec<String> = cells.iter().filter_map(void).collect();
            if self.brokers[*number] == broker { faults } else { Vec::new() }
        };
        self.cells.iter().flat_map(of).collect()
    }

    /// The brokers that have run in a part, soundly or not.
    pub(crate) fn takers(&self, part: Part) -> Vec<usize> {
        let has = |broker: &usize| {
            let mut cells = self.rows_of(part).filter_map(|row| self.cells.get(&(row, *broker))).flatten();
            cells.any(|cell| *cell != Cell::Unable)
        };
        (0..self.brokers.len()).filter(has).collect()
    }

    /// The brokers that should have, and cannot do what it takes.
    pub(crate) fn unable(&self, part: Part) -> Vec<&str> {
        let cannot = |broker: &usize| {
            let mut cells = self.rows_of(part).filter_map(|row| self.cells.get(&(row, *broker))).flatten();
            cells.any(|cell| *cell == Cell::Unable)
        };
        (0..self.brokers.len()).filter(cannot).map(|broker| self.brokers[broker].as_str()).collect()
    }

    pub(crate) fn rows_of(&self, part: Part) -> impl Iterator<Item = usize> {
        let rows = self.rows.iter().enumerate();
        rows.filter(move |(_, row)| row.part == part).map(|(number, _)| number)
    }

    /// The tables for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nmedians of {} in turns; in brackets the ratio to {}{}\n",
            counted(self.rounds()),
            self.brokers[0],
            if self.is_short() { "; of [fewer] where the others were void" } else { "" }
        );
        for part in Part::ALL {
            let takers = self.takers(part);
            if takers.is_empty() {
                continue;
            }
            let _ = write!(text, "\n{}\n", part.title());
            self.unable(part).iter().for_each(|broker| _ = writeln!(text, "  {broker} cannot do this here"));
            for (number, figure) in part.figures().iter().enumerate() {
                self.table(&mut text, part, &takers, (number, figure));
            }
        }
        for broker in &self.brokers {
            self.faults(broker).iter().for_each(|fault| _ = writeln!(text, "void: {fault}"));
        }
        text
    }

    fn table(&self, text: &mut String, part: Part, takers: &[usize], (number, figure): (usize, &Figure)) {
        let _ = write!(text, "  {:<56}", format!("{}, {}", figure.name, figure.unit));
        takers.iter().for_each(|broker| _ = write!(text, "{:>20}", self.brokers[*broker]));
        text.push('\n');
        for row in self.rows_of(part) {
            let _ = write!(text, "    {:<54}", self.rows[row].title);
            for broker in takers {
                let middle =
                    self.middle(row, *broker, number).map_or("-".into(), |[middle, ..]| shown(middle));
                let ratio = self.ratio(row, *broker, number);
                let ratio = ratio.map_or(String::new(), |found| format!(" ({})", times(found)));
                let short = self.short(row, *broker);
                let short = short.map_or(String::new(), |sound| format!(" [{sound} of {}]", self.rounds()));
                let _ = write!(text, "{:>20}", format!("{middle}{ratio}{short}"));
            }
            text.push('\n');
        }
    }
}

/// What the line of a round says of a cell.
pub(crate) fn said(cell: &Cell) -> String {
    match cell {
        Cell::Sample(sample) => shown(sample[0]),
        Cell::Unable => "-".into(),
        Cell::Void(reason) => format!("VOID: {reason}"),
    }
}

/// So many rounds, in words.
pub(crate) fn counted(rounds: usize) -> String {
    if rounds == 1 { "one round".into() } else { format!("{rounds} rounds") }
}

/// A ratio.
pub(crate) fn times(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

/// Three digits, or all of a large number.
pub(crate) fn shown(figure: f64) -> String {
    match figure.abs() {
        1_000.0.. => {
            let digits = format!("{figure:.0}");
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                let left = digits.len() - place;
                if place > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        1.0.. => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::page;
    use super::super::rows::all;
    use super::*;

    #[test]
    fn a_row_with_void_rounds_shows_how_many_were_sound_and_has_no_ratio() {
        let results = five_rounds(|broker, round| broker == 1 || round == 0);
        assert_eq!((results.short(1, 0), results.short(1, 1)), (Some(1), None));
        assert_eq!(line(&results, 1), "70.0 [1 of 5] 140");
        assert_eq!(line(&results, 0), "70.0 140 (2.00)", "other rows are as they were");
        assert!(
            results.text().contains("medians of 5 rounds in turns; in brackets the ratio to one; of [fewer]")
        );
        let page = page(&results);
        assert!(page.contains("<td>70.0<small>70.0 to 70.0, 1 of 5 rounds</small></td><td>140<small>"));
        assert!(page.contains("Medians of 5 rounds in turns, of fewer where it is said,"));

        let results = five_rounds(|broker, round| broker == 0 || round > 0);
        assert_eq!(line(&results, 1), "70.0 140 [4 of 5]");
    }

    #[test]
    fn who_was_void_in_every_round_still_has_a_place() {
        let results = five_rounds(|broker, _| broker == 0);
        assert_eq!(line(&results, 1), "70.0 - [0 of 5]");
        assert!(page(&results).contains("<td>–<small>0 of 5 rounds</small></td>"));
    }

    #[test]
    fn rounds_that_were_all_sound_are_counted_once_for_all() {
        let results = five_rounds(|_, _| true);
        assert_eq!((results.is_short(), line(&results, 1).as_str()), (false, "70.0 140 (2.00)"));
        assert!(results.text().contains("medians of 5 rounds in turns; in brackets the ratio to one\n"));
        assert!(page(&results).contains("Medians of 5 rounds in turns, with the least"));
    }

    /// Two brokers under the first two loads; of the second only these rounds are sound.
    fn five_rounds(is_sound: fn(usize, usize) -> bool) -> Results {
        let rows = all().into_iter().take(2).collect();
        let mut results = Results::new(rows, vec!["one".into(), "other".into()]);
        for round in 0..5 {
            for (broker, figure) in [(0, 70.0), (1, 140.0)] {
                let sample = || Cell::Sample(vec![figure; 4]);
                results.add(0, broker, sample());
                let sound = is_sound(broker, round);
                results.add(1, broker, if sound { sample() } else { Cell::Void("lost".into()) });
            }
        }
        results
    }

    /// What the first table says of a row.
    fn line(results: &Results, row: usize) -> String {
        let text = results.text();
        let title = &results.rows[row].title;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(title)).expect("a line");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
