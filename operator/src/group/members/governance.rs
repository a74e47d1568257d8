//! Who may change the chain, as its voters say, and whether the operator's own key is enough. Pure.

use crate::budget::faults;

/// What one voter answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Power of the voter that answers.
    pub power: u64,
    /// Height of the state that it speaks of.
    pub height: u64,
    /// Nonce of the next governance transaction.
    pub nonce: u64,
    /// Who may change the chain.
    pub governance: Governance,
}

/// Who may change the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governance {
    /// How many of the keys must sign.
    pub threshold: u32,
    /// Public keys, hexadecimal.
    pub keys: Vec<String>,
}

/// What the operator's key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its signature is enough.
    Alone,
    /// Others must sign too.
    WithOthers,
    /// It is none of the keys.
    Outside,
}

/// The keys that voters with more than f power name, and of several the newest; with them the nonce of the highest state
/// at which they are named.
pub fn agreed(answers: &[Answer], total_power: u64) -> Option<(Governance, u64)> {
    let backing = |governance: &Governance| -> u64 {
        answers.iter().filter(|answer| answer.governance == *governance).map(|answer| answer.power).sum()
    };
    let newest = answers
        .iter()
        .filter(|answer| backing(&answer.governance) > faults(total_power))
        .max_by_key(|answer| answer.height)?;
    Some((newest.governance.clone(), newest.nonce))
}

impl Governance {
    /// What this key can do.
    pub fn standing(&self, key: &str) -> Standing {
        match (self.keys.iter().any(|known| known == key), self.threshold) {
            (false, _) => Standing::Outside,
            (true, 0 | 1) => Standing::Alone,
            (true, _) => Standing::WithOthers,
        }
    }

    /// `2 of 33ba.., 5c20..`.
    pub fn words(&self) -> String {
        let keys: Vec<String> =
            self.keys.iter().map(|key| format!("{}..", key.chars().take(8).collect::<String>())).collect();
        format!("{} of {}", self.threshold, keys.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn governance(threshold: u32, keys: &[&str]) -> Governance {
        Governance { threshold, keys: keys.iter().map(|key| (*key).to_string()).collect() }
    }

    fn answer(height: u64, governance: &Governance) -> Answer {
        Answer { power: 1, height, nonce: height + 1, governance: governance.clone() }
    }

    #[test]
    fn a_key_that_was_replaced_signs_nothing_and_one_of_several_not_alone() {
        assert_eq!(governance(1, &["a"]).standing("a"), Standing::Alone);
        assert_eq!(governance(1, &["b"]).standing("a"), Standing::Outside);
        assert_eq!(governance(2, &["a", "b"]).standing("a"), Standing::WithOthers);
    }

    #[test]
    fn one_voter_alone_does_not_say_who_may_change_the_chain() {
        let (old, new) = (governance(1, &["a"]), governance(1, &["b"]));
        let honest = [answer(7, &old), answer(8, &old), answer(9, &old)];
        let lie = answer(99, &new);
        let with_lie: Vec<Answer> = honest.iter().cloned().chain([lie.clone()]).collect();
        assert_eq!(agreed(&with_lie, 4), Some((old.clone(), 10)));
        assert_eq!(agreed(&[lie], 4), None);
        let changed = [answer(7, &old), answer(7, &old), answer(9, &new), answer(9, &new)];
        assert_eq!(agreed(&changed, 4), Some((new, 10)), "the newest of two that are backed");
    }
}
