//! Smooth weighted round robin: shares follow the weights, and no backend gets its turns in one run.

/// The place of one backend on the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    weight: i64,
    credit: i64,
}

impl Slot {
    /// A place with this weight.
    pub fn new(weight: u32) -> Self {
        Self { weight: i64::from(weight.max(1)), credit: 0 }
    }
}

/// Chooses among the items that may be chosen; nothing when there is none.
pub fn next<T>(
    items: &mut [T],
    mut slot: impl FnMut(&mut T) -> &mut Slot,
    eligible: impl Fn(&T) -> bool,
) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, i64)> = None;
    for (index, item) in items.iter_mut().enumerate() {
        if !eligible(item) {
            continue;
        }
        let slot = slot(item);
        slot.credit += slot.weight;
        total += slot.weight;
        if best.is_none_or(|(_, credit)| slot.credit > credit) {
            best = Some((index, slot.credit));
        }
    }
    let (index, _) = best?;
    slot(items.get_mut(index)?).credit -= total;
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::{Slot, next};

    fn run(weights: &[u32], out: &[usize], turns: usize) -> Vec<usize> {
        let mut slots: Vec<(usize, Slot)> = weights.iter().map(|weight| Slot::new(*weight)).enumerate().collect();
        (0..turns).filter_map(|_| next(&mut slots, |(_, slot)| slot, |(index, _)| !out.contains(index))).collect()
    }

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        assert_eq!(run(&[1, 1, 1], &[], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(run(&[5, 1, 1], &[], 7), [0, 0, 1, 0, 2, 0, 0]);
        for weights in [[1, 2, 3], [100, 1, 7], [3, 3, 1]] {
            let round = weights.iter().sum::<u32>() as usize;
            let turns = run(&weights, &[], round * 10);
            for (index, weight) in weights.iter().enumerate() {
                let got = turns.iter().filter(|turn| **turn == index).count();
                assert_eq!(got, *weight as usize * 10, "{weights:?}");
            }
        }
    }

    #[test]
    fn who_is_out_gets_no_turn_and_the_others_share_it() {
        assert_eq!(run(&[1, 1, 1], &[1], 4), [0, 2, 0, 2]);
        assert_eq!(run(&[1, 1], &[0, 1], 3), Vec::<usize>::new());
        assert_eq!(run(&[], &[], 3), Vec::<usize>::new());
    }
}
