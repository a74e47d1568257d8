//! What voters report of their chain, put together with what this cluster knows of them.

use std::time::Instant;

use super::observe::{BLOCK_AGE_MIN, Observed, Voter};
use super::outside::Outside;
use super::pending;
use crate::chain::agreement::{self, Facts, Limits, Report};
use crate::config::REPORT_AGE_MAX;
use crate::context::Context;
use crate::kinds::Owner;

/// What f+1 of these voters report, with what is written down of changes of voters.
pub fn gather(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    (voters, outside): (&[Voter], &[Outside]),
) -> Option<Facts> {
    let own = voters.iter().filter_map(|voter| voter.report.clone());
    let reports: Vec<Report> = own.chain(outside.iter().filter_map(|node| node.report.clone())).collect();
    let (now, block_age_max) = (Instant::now(), observed.block_age_max());
    let facts = agreement::agree(&reports, &Limits { now, report_age_max: REPORT_AGE_MAX, block_age_max })?;
    Some(matched(observed, voters, pending::expect(context, owner, observed, facts)))
}

/// Who signs is counted over the last heights: when there are no new ones, a voter that does not answer, or says that it
/// waits, does not count as signing. And who of them runs here is known only while each voter of this group has its identity.
fn matched(observed: &Observed, voters: &[Voter], mut facts: Facts) -> Facts {
    let lacks_name = |voter: &Voter| voter.identity().is_none() && !observed.is_newcomer(voter);
    facts.is_nameless |= observed.kept_genesis().is_some() && voters.iter().any(lacks_name);
    if facts.block_age < BLOCK_AGE_MIN {
        return facts;
    }
    let silent = voters.iter().filter(|voter| voter.report.is_none() || voter.waits_for_proof());
    facts.without(&silent.filter_map(|voter| voter.identity().map(str::to_string)).collect())
}

#[cfg(test)]
mod tests {
    use althing_crds::group::{MemberChange, MemberDirection, Members};
    use node_api::proto::{Session, SessionState};

    use super::super::fixtures::observed;
    use super::super::observe;
    use super::*;

    fn facts(seen: &Observed) -> Facts {
        let facts = seen.facts.clone().expect("there");
        matched(seen, &seen.voters, facts)
    }

    #[test]
    fn a_voter_without_a_known_identity_leaves_open_who_signs() {
        let mut seen = observed();
        assert!(!facts(&seen).is_nameless);
        seen.voters[2].node = None;
        assert!(facts(&seen).is_nameless, "somebody has deleted its ValidatorNode");
        seen.genesis = observe::GenesisRead::Missing;
        assert!(!facts(&seen).is_nameless, "nobody votes yet");
    }

    #[test]
    fn a_newcomer_is_observed_and_needs_no_name() {
        let mut seen = observed();
        let change = MemberChange {
            number: 4,
            direction: MemberDirection::Join,
            replaces: None,
            since: "2026-01-01T00:00:00Z".to_string(),
            is_borne: true,
            proposed_until: Some(200),
            transaction: None,
        };
        let members = Members { numbers: vec![0, 1, 2, 3], change: Some(change), height: Some(100) };
        seen.group.status.as_mut().expect("there").members = Some(members);
        seen.numbers = observe::numbers(&seen.group, &seen.genesis);
        assert_eq!((seen.numbers.clone(), seen.members()), (vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3]));
        let name = althing_crds::names::node("demo-main", 4);
        let (connection, said) = (None, Err("no pod".to_string()));
        seen.voters.push(Voter { name, node: None, pod: None, connection, said, report: None });
        assert!(!facts(&seen).is_nameless);
    }

    #[test]
    fn what_a_voter_says_of_itself_counts_while_blocks_stand_still() {
        let mut seen = observed();
        let session = Session { state: SessionState::WaitingForProof.into(), ..Session::default() };
        for voter in &mut seen.voters {
            voter.report = Some(Report {
                reporter: voter.identity().expect("there").to_string(),
                height: 100,
                block_age: BLOCK_AGE_MIN,
                answered: Instant::now(),
                window: 10,
                voters: Vec::new(),
            });
        }
        for voter in &mut seen.voters[..2] {
            voter.said.as_mut().expect("it answers").session = Some(session.clone());
        }
        assert!(facts(&seen).has_quorum(), "blocks are young");
        seen.facts.as_mut().expect("there").block_age = BLOCK_AGE_MIN;
        assert_eq!(facts(&seen).signing(), 2);
    }
}
