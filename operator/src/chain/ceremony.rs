//! The next step of a genesis ceremony, decided from what is recorded and what the nodes say.
//!
//! Whatever an earlier run left behind, the same function continues it: a recorded genesis is never replaced, one that
//! a node has accepted is adopted or the group stalls, and a candidate is dropped only while no node has started it.

/// What is recorded outside the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// `status.genesisHash`.
    pub status: Option<String>,
    /// Hash of the genesis in the ConfigMap.
    pub config_map: Option<String>,
    /// `status.ceremony.candidateHash`.
    pub candidate: Option<String>,
    /// `spec.chain.genesisHash`.
    pub pinned: Option<String>,
}

/// What one voter's node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing, and why.
    Nothing(String),
    /// Its report.
    Report {
        /// Genesis that it has accepted.
        accepted: Option<String>,
        /// It has started that genesis.
        is_started: bool,
        /// No node holds a genesis, or the one that is held names this node with its present session key.
        fits: bool,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be done now.
    Wait(String),
    /// Only a person can help.
    Refuse(Refusal, String),
    /// Record the hash of the genesis that these reports make.
    Propose,
    /// Record this hash, which the node with this index has accepted.
    Adopt(usize, String),
    /// Forget the candidate: its voters cannot all accept it any more.
    Forget,
    /// Make the nodes with these indices drop the candidate with this hash.
    Drop(Vec<usize>, String),
    /// Put the genesis with this hash before the nodes with these indices.
    Accept(Vec<usize>, String),
    /// Every voter has accepted: write the ConfigMap, then the status.
    Record(String),
    /// Start the nodes with these indices.
    Start(Vec<usize>, String),
    /// Every voter runs.
    Done,
}

/// Why a ceremony stops for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Kept data belongs to another genesis.
    RetainedDataMismatch,
    /// The genesis is not the pinned one.
    GenesisMismatch,
    /// The recorded genesis is gone.
    GenesisLost,
}

/// The next step. `names` are those of the voters, in the order of `said`; `rebuilt` is the hash of the genesis that
/// the present reports make, when all have reported.
pub fn decide(recorded: &Recorded, names: &[String], said: &[Said], rebuilt: Option<&str>) -> Step {
    if let (Some(status), None) = (&recorded.status, &recorded.config_map) {
        return Step::Refuse(
            Refusal::GenesisLost,
            format!("the ConfigMap with genesis {} is gone; restore it from a backup", short(status)),
        );
    }
    if let (Some(status), Some(kept)) = (&recorded.status, &recorded.config_map)
        && status != kept
    {
        return Step::Refuse(
            Refusal::RetainedDataMismatch,
            format!("the ConfigMap holds genesis {}, this chain has {}", short(kept), short(status)),
        );
    }
    let fixed = recorded.config_map.as_ref();
    if let (Some(fixed), Some(pinned)) = (fixed, &recorded.pinned)
        && fixed != pinned
    {
        return Step::Refuse(
            Refusal::GenesisMismatch,
            format!("the kept genesis is {}, chain.genesisHash names {}", short(fixed), short(pinned)),
        );
    }
    match fixed {
        Some(fixed) => resume(fixed, recorded, names, said),
        None => agree(recorded, names, said, rebuilt),
    }
}

/// The genesis is fixed: every node that has none gets it, every node that has it starts.
fn resume(fixed: &str, recorded: &Recorded, names: &[String], said: &[Said]) -> Step {
    if let Some((index, other)) = accepted(said).find(|(_, hash)| *hash != fixed) {
        return mismatch(names, index, other, fixed);
    }
    if recorded.status.is_none() {
        return Step::Record(fixed.to_string());
    }
    let without = indices(said, |said| matches!(said, Said::Report { accepted: None, .. }));
    if !without.is_empty() {
        return Step::Accept(without, fixed.to_string());
    }
    let waiting = indices(said, |said| matches!(said, Said::Report { is_started: false, .. }));
    if !waiting.is_empty() {
        return Step::Start(waiting, fixed.to_string());
    }
    silent(names, said).map_or(Step::Done, Step::Wait)
}

/// There is no genesis yet.
fn agree(recorded: &Recorded, names: &[String], said: &[Said], rebuilt: Option<&str>) -> Step {
    let mut held = accepted(said);
    if let Some((index, hash)) = held.next() {
        if let Some((other_index, other)) = held.find(|(_, other)| *other != hash) {
            return mismatch(names, other_index, other, hash);
        }
        if let Some(pinned) = recorded.pinned.as_ref().filter(|pinned| *pinned != hash) {
            return Step::Refuse(
                Refusal::GenesisMismatch,
                format!(
                    "{} holds genesis {}, chain.genesisHash names {}",
                    name(names, index),
                    short(hash),
                    short(pinned)
                ),
            );
        }
        if recorded.candidate.as_deref() != Some(hash) {
            return Step::Adopt(index, hash.to_string());
        }
    }
    if let Some(waiting) = silent(names, said) {
        return Step::Wait(waiting);
    }
    let Some(rebuilt) = rebuilt else {
        return Step::Wait("waiting for the reports of all voters".to_string());
    };
    let Some(candidate) = &recorded.candidate else {
        return match &recorded.pinned {
            Some(pinned) if pinned != rebuilt => Step::Refuse(
                Refusal::GenesisMismatch,
                format!("no voter holds genesis {}, which chain.genesisHash names", short(pinned)),
            ),
            Some(_) | None => Step::Propose,
        };
    };
    let without = indices(said, |said| matches!(said, Said::Report { accepted: None, .. }));
    let holders = indices(said, |said| matches!(said, Said::Report { accepted: Some(_), .. }));
    if without.is_empty() {
        return Step::Record(candidate.clone());
    }
    let can_all_accept = match holders.is_empty() {
        true => rebuilt == candidate,
        false => said.iter().all(|said| matches!(said, Said::Report { fits: true, .. })),
    };
    if can_all_accept {
        return Step::Accept(without, candidate.clone());
    }
    // A voter lost its volume in the middle of the ceremony: the candidate names a key that is gone.
    let is_started = said.iter().any(|said| matches!(said, Said::Report { is_started: true, .. }));
    match (holders.is_empty(), is_started) {
        (true, _) => Step::Forget,
        (false, false) => Step::Drop(holders, candidate.clone()),
        (false, true) => Step::Refuse(
            Refusal::RetainedDataMismatch,
            format!("genesis {} has started, and not every voter can accept it", short(candidate)),
        ),
    }
}

fn accepted(said: &[Said]) -> impl Iterator<Item = (usize, &str)> {
    said.iter().enumerate().filter_map(|(index, said)| match said {
        Said::Report { accepted: Some(hash), .. } => Some((index, hash.as_str())),
        Said::Report { accepted: None, .. } | Said::Nothing(_) => None,
    })
}

fn indices(said: &[Said], matches: impl Fn(&Said) -> bool) -> Vec<usize> {
    said.iter().enumerate().filter(|(_, said)| matches(said)).map(|(index, _)| index).collect()
}

/// Who does not answer, if anybody.
fn silent(names: &[String], said: &[Said]) -> Option<String> {
    let missing: Vec<String> = said
        .iter()
        .enumerate()
        .filter_map(|(index, said)| match said {
            Said::Nothing(why) => Some(format!("{} ({why})", name(names, index))),
            Said::Report { .. } => None,
        })
        .collect();
    (!missing.is_empty()).then(|| format!("waiting for {}", missing.join(", ")))
}

fn mismatch(names: &[String], index: usize, held: &str, wanted: &str) -> Step {
    Step::Refuse(
        Refusal::RetainedDataMismatch,
        format!("the volume of {} holds genesis {}, not {}", name(names, index), short(held), short(wanted)),
    )
}

fn name(names: &[String], index: usize) -> &str {
    names.get(index).map_or("a voter", String::as_str)
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["a".to_string(), "b".to_string()]
    }

    fn said(held: Option<&str>, is_started: bool) -> Said {
        Said::Report { accepted: held.map(str::to_string), is_started, fits: true }
    }

    fn strange() -> Said {
        Said::Report { accepted: None, is_started: false, fits: false }
    }

    fn recorded(status: Option<&str>, config_map: Option<&str>, candidate: Option<&str>) -> Recorded {
        let text = |value: Option<&str>| value.map(str::to_string);
        Recorded { status: text(status), config_map: text(config_map), candidate: text(candidate), pinned: None }
    }

    fn step(recorded: &Recorded, said: &[Said], rebuilt: &str) -> Step {
        decide(recorded, &names(), said, Some(rebuilt))
    }

    #[test]
    fn a_ceremony_goes_from_reports_to_a_running_chain() {
        let (none, held, runs) = (said(None, false), said(Some("g"), false), said(Some("g"), true));
        let nothing = recorded(None, None, None);
        assert_eq!(step(&nothing, &[none.clone(), none.clone()], "g"), Step::Propose);
        let candidate = recorded(None, None, Some("g"));
        assert_eq!(step(&candidate, &[none.clone(), none.clone()], "g"), Step::Accept(vec![0, 1], "g".to_string()));
        assert_eq!(step(&candidate, &[held.clone(), none], "g"), Step::Accept(vec![1], "g".to_string()));
        assert_eq!(step(&candidate, &[held.clone(), held.clone()], "g"), Step::Record("g".to_string()));
        let copied = recorded(None, Some("g"), Some("g"));
        assert_eq!(step(&copied, &[held.clone(), held.clone()], "g"), Step::Record("g".to_string()));
        let fixed = recorded(Some("g"), Some("g"), Some("g"));
        assert_eq!(step(&fixed, &[runs.clone(), held], "g"), Step::Start(vec![1], "g".to_string()));
        assert_eq!(step(&fixed, &[runs.clone(), runs], "g"), Step::Done);
    }

    #[test]
    fn nothing_is_proposed_before_every_voter_has_reported() {
        let silent = Said::Nothing("no pod".to_string());
        let step = decide(&recorded(None, None, None), &names(), &[said(None, false), silent], None);
        assert_eq!(step, Step::Wait("waiting for b (no pod)".to_string()));
    }

    #[test]
    fn an_accepted_genesis_is_adopted_and_never_replaced() {
        let kept = [said(Some("old"), true), said(None, false)];
        assert_eq!(step(&recorded(None, None, None), &kept, "new"), Step::Adopt(0, "old".to_string()));
        assert_eq!(step(&recorded(None, None, Some("new")), &kept, "new"), Step::Adopt(0, "old".to_string()));
        let mixed = [said(Some("old"), true), said(Some("older"), true)];
        for recorded in
            [recorded(None, None, None), recorded(None, Some("old"), None), recorded(Some("old"), Some("old"), None)]
        {
            assert!(matches!(step(&recorded, &mixed, "new"), Step::Refuse(Refusal::RetainedDataMismatch, _)));
        }
    }

    #[test]
    fn a_recorded_genesis_that_is_gone_or_another_stalls() {
        let runs = [said(Some("g"), true), said(Some("g"), true)];
        assert!(matches!(step(&recorded(Some("g"), None, None), &runs, "g"), Step::Refuse(Refusal::GenesisLost, _)));
        let other = step(&recorded(Some("g"), Some("h"), None), &runs, "g");
        assert!(matches!(other, Step::Refuse(Refusal::RetainedDataMismatch, _)));
    }

    #[test]
    fn a_pinned_genesis_is_the_only_one() {
        let pinned = |base: Recorded| Recorded { pinned: Some("p".to_string()), ..base };
        let empty = [said(None, false), said(None, false)];
        let refused = |step: Step| matches!(step, Step::Refuse(Refusal::GenesisMismatch, _));
        assert!(refused(step(&pinned(recorded(None, None, None)), &empty, "g")));
        assert!(refused(step(&pinned(recorded(None, Some("g"), None)), &empty, "g")));
        assert!(refused(step(&pinned(recorded(None, None, None)), &[said(Some("g"), false), said(None, false)], "g")));
        let held = [said(Some("p"), false), said(None, false)];
        assert_eq!(step(&pinned(recorded(None, None, None)), &held, "g"), Step::Adopt(0, "p".to_string()));
    }

    #[test]
    fn a_candidate_that_cannot_be_accepted_any_more_is_dropped_before_the_start_only() {
        let candidate = recorded(None, None, Some("g"));
        let (none, held, runs) = (said(None, false), said(Some("g"), false), said(Some("g"), true));
        assert_eq!(step(&candidate, &[none.clone(), none.clone()], "other"), Step::Forget);
        assert_eq!(step(&candidate, &[held.clone(), strange()], "other"), Step::Drop(vec![0], "g".to_string()));
        assert!(matches!(
            step(&candidate, &[runs, strange()], "other"),
            Step::Refuse(Refusal::RetainedDataMismatch, _)
        ));
        // An adopted genesis is not the one that the reports would make now, and is put before the others all the same.
        assert_eq!(step(&candidate, &[held, none], "other"), Step::Accept(vec![1], "g".to_string()));
    }
}
