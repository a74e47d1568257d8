//! A bounded map that keeps what is used.

use std::{collections::HashMap, hash::Hash};

use ahash::RandomState;

/// Two generations: what is used moves to the younger one; when that is full, the older one is forgotten. So an entry
/// stays while it is used, at a constant cost for each use, and there are never more than twice the entries of one.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    generation_max: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Nothing yet.
    pub fn new(generation_max: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), generation_max }
    }

    /// An entry, if it is still known.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    /// Keeps an entry in place of what was known under its key.
    pub fn put(&mut self, key: K, value: V) {
        if let Some(known) = self.young.get_mut(&key) {
            *known = value;
            return;
        }
        self.old.remove(&key);
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets an entry.
    pub fn forget(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn an_entry_in_use_stays_and_one_that_is_not_goes() {
        let mut recent = Recent::new(100);
        recent.put(0, "used");
        recent.put(1, "not used");
        for number in 2..300 {
            recent.put(number, "other");
            assert_eq!(recent.get(&0), Some("used"), "after {number}");
            assert!(recent.young.len() + recent.old.len() <= 200);
        }
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn the_last_value_of_a_key_counts_whichever_generation_it_is_in() {
        let mut recent = Recent::new(2);
        for (key, value) in [(1, 1), (2, 1), (3, 1), (1, 2)] {
            recent.put(key, value);
        }
        assert_eq!(recent.get(&1), Some(2));
        recent.forget(&1);
        assert_eq!(recent.get(&1), None);
    }
}
