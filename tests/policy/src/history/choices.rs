//! Choices by bytes, a random generator's or a fuzzer's.

use arbitrary::Unstructured;

/// The same bytes choose the same. When they are at an end, what stands first is chosen.
#[derive(Debug)]
pub struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    /// By these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&mut self, least: usize, most: usize) -> usize {
        self.0.int_in_range(least..=most).unwrap_or(least)
    }

    /// True so many times of a hundred.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.number(0, 99) >= 100 - percent
    }

    pub(super) fn one<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.number(0, list.len() - 1)].clone()
    }

    /// The place of one of these weights; each is met as often as it says.
    pub(super) fn place(&mut self, weights: &[usize]) -> usize {
        let at = self.number(0, weights.iter().sum::<usize>() - 1);
        let mut sum = 0;
        let is_before = |weight: &&usize| {
            sum += **weight;
            sum <= at
        };
        weights.iter().take_while(is_before).count()
    }

    pub(super) fn weighted<T: Clone>(&mut self, list: &[(usize, T)]) -> T {
        let weights: Vec<usize> = list.iter().map(|(weight, _)| *weight).collect();
        list[self.place(&weights)].1.clone()
    }

    pub(super) fn some<T>(&mut self, percent: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.percent(percent).then(|| make(self))
    }

    pub(super) fn several<T>(
        &mut self,
        least: usize,
        most: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        (0..self.number(least, most)).map(|_| make(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_how_often() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut choices = Choices::new(&bytes);
        let mut found = [0; 3];
        for _ in 0..256 {
            found[choices.place(&[4, 1, 3])] += 1;
        }
        assert_eq!(found, [128, 32, 96]);
    }

    #[test]
    fn what_stands_first_at_the_end() {
        let mut choices = Choices::new(&[]);
        assert!(choices.is_over() && !choices.percent(99));
        assert_eq!(choices.weighted(&[(1, "a"), (9, "b")]), "a");
        assert_eq!(choices.several(1, 3, |choices| choices.number(7, 9)), [7]);
    }
}
