//! What is written down of changes of voters, and means something for what voters report: the change on which the fault
//! budget counts, and the height of the last step.

use althing_crds::group::MemberDirection;
use althing_crds::names;

use super::members::POWER;
use super::observe::Observed;
use crate::chain::agreement::{Facts, Pending};
use crate::context::Context;
use crate::kinds::Owner;

/// The facts with both.
pub fn expect(context: &Context, owner: &Owner, observed: &Observed, mut facts: Facts) -> Facts {
    facts.is_late = facts.height < written_at(observed);
    let change = observed.status().and_then(|status| status.members.as_ref()?.change.as_ref());
    let Some(change) = change.filter(|change| change.is_borne) else { return facts };
    // One that has no identity yet is no voter either.
    let identity = |number: i32| {
        let name = names::node(&owner.name, u32::try_from(number).unwrap_or(u32::MAX));
        let node = context.node(&owner.namespace, &name);
        node.and_then(|node| node.status?.identity).unwrap_or(name)
    };
    let changed = identity(change.number);
    let pending = match change.direction {
        MemberDirection::Join => {
            let leaves = change.replaces.map(identity);
            let former = leaves.as_ref().and_then(|former| facts.voters.get(former));
            Pending { joins: Some((changed, former.map_or(POWER, |former| former.power))), leaves }
        }
        MemberDirection::Leave => Pending { joins: None, leaves: Some(changed) },
    };
    facts.expecting(pending)
}

/// The height that the chain had when the numbers and the change were written down.
pub fn written_at(observed: &Observed) -> u64 {
    let members = observed.status().and_then(|status| status.members.as_ref());
    members.and_then(|members| u64::try_from(members.height?).ok()).unwrap_or(0)
}
