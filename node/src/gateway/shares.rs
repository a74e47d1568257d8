//! How much of something scarce one holder has, so that nobody takes all of it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

/// Counts what each holder has. As large as what is taken, which is bounded elsewhere.
#[derive(Debug)]
pub struct Shares {
    taken: Mutex<HashMap<u64, usize>>,
    most: usize,
    hasher: RandomState,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    holder: u64,
}

impl Shares {
    /// At most `most` for each holder.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), most, hasher: RandomState::new() })
    }

    /// Takes one for `holder`; nothing when the holder has enough.
    pub fn take(self: &Arc<Self>, holder: impl Hash) -> Option<Share> {
        let holder = self.hasher.hash_one(holder);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(holder).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { shares: Arc::clone(self), holder })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn each_holder_has_its_bound_and_nothing_is_remembered_of_who_left() {
        let shares = Shares::new(2);
        let held: Vec<_> = ["a", "a", "a", "b"].map(|holder| shares.take(holder)).into_iter().collect();
        assert_eq!(held.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
        drop(held);
        assert!(shares.take("a").is_some());
        assert!(shares.taken.lock().expect("lock").is_empty());
    }
}
