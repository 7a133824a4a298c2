//! The end of a list that may grow without end.

use std::collections::VecDeque;

/// The last ones of a list, and how many came before them.
#[derive(Debug, Clone)]
pub struct Tail<T> {
    kept: VecDeque<T>,
    before: usize,
}

impl<T> Default for Tail<T> {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            before: 0,
        }
    }
}

impl<T> Tail<T> {
    /// Adds one at the end; beyond `max` the first one goes, and is counted.
    pub fn push(&mut self, item: T, max: usize) {
        self.kept.push_back(item);
        while self.kept.len() > max {
            self.kept.pop_front();
            self.before += 1;
        }
    }

    /// Those that are kept, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.kept.iter()
    }

    /// The last one.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.kept.back_mut()
    }

    /// How many came before those that are kept.
    pub fn before(&self) -> usize {
        self.before
    }

    /// Whether there never was one.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.before == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_the_others_counted() {
        let mut tail = Tail::default();
        assert!(tail.is_empty());
        for number in 1..=5 {
            tail.push(number, 3);
        }
        assert_eq!(tail.iter().copied().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!((tail.before(), tail.last_mut().copied()), (2, Some(5)));
    }
}
