//! What is written down of changes of voters, and means something for what voters report: the change on which the fault
//! budget counts, and the height of the last step.

use std::collections::BTreeMap;

use althing_crds::group::MemberDirection;
use althing_crds::names;

use super::members::{Change, Direction};
use super::observe::Observed;
use crate::chain::agreement::Facts;
use crate::context::Context;
use crate::kinds::Owner;

/// The facts with both.
pub fn expect(context: &Context, owner: &Owner, observed: &Observed, mut facts: Facts) -> Facts {
    facts.is_late = facts.height < written_at(observed);
    let Some(change) = change(observed).filter(|change| change.is_borne) else { return facts };
    let identity = |number: u32| {
        let node = context.node(&owner.namespace, &names::node(&owner.name, number))?;
        Some((number, node.status?.identity?))
    };
    let changed = std::iter::once(change.number).chain(change.replaces);
    // Whoever it is: it may vote already, or not any more.
    let Some(changed) = changed.map(identity).collect::<Option<BTreeMap<u32, String>>>() else {
        facts.is_nameless = true;
        return facts;
    };
    let pending = change.pending(&facts, |number| changed.get(&number).cloned().unwrap_or_default());
    facts.expecting(pending)
}

/// The change that is written down.
pub fn change(observed: &Observed) -> Option<Change> {
    let change = observed.status()?.members.as_ref()?.change.as_ref()?;
    Some(Change {
        number: u32::try_from(change.number).ok()?,
        direction: match change.direction {
            MemberDirection::Join => Direction::Join,
            MemberDirection::Leave => Direction::Leave,
        },
        replaces: change.replaces.and_then(|number| u32::try_from(number).ok()),
        is_borne: change.is_borne,
        proposed_until: change.proposed_until.and_then(|height| u64::try_from(height).ok()),
    })
}

/// The height that the chain had when the numbers and the change were written down.
pub fn written_at(observed: &Observed) -> u64 {
    let members = observed.status().and_then(|status| status.members.as_ref());
    members.and_then(|members| u64::try_from(members.height?).ok()).unwrap_or(0)
}
