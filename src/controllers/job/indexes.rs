//! Sets of completion indexes as they stand in a status: `0,2-5,7`.

use std::fmt;

/// Disjoint ranges in order, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a set, without what lies outside of the completions asked for.
    pub(crate) fn parse(text: &str, completions: i32) -> Self {
        let ranges = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<i32>().ok()?.min(completions - 1));
            (0 <= first && first <= last).then_some((first, last))
        });
        Self::of(ranges.collect())
    }

    fn of(mut ranges: Vec<(i32, i32)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    pub(crate) fn with(&self, more: impl IntoIterator<Item = i32>) -> Self {
        let ranges = self.0.iter().copied().chain(more.into_iter().map(|index| (index, index)));
        Self::of(ranges.collect())
    }

    pub(crate) fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| index <= *last)
    }

    pub(crate) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of `wanted` are in the set.
    pub(crate) fn common(&self, wanted: &Self) -> i32 {
        let pairs = self.0.iter().flat_map(|a| wanted.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        pairs.filter(|(first, last)| first <= last).map(|(first, last)| last - first + 1).sum()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_joined_and_written_as_upstream_does() {
        let set = Indexes::parse("0,2-5,7,90", 10);
        assert_eq!((set.to_string().as_str(), set.total()), ("0,2-5,7", 6));
        assert!(set.has(0) && set.has(4) && !set.has(1) && !set.has(6) && !set.has(90));
        assert_eq!(set.with([6, 1]).to_string(), "0-7");
        assert_eq!(Indexes::default().with([3, 4]).to_string(), "3,4");
        assert_eq!(Indexes::parse("0-9", 10).common(&Indexes::parse("1-2,8-20", 30)), 4);
        assert_eq!(Indexes::parse("", 10), Indexes::default());
    }
}
