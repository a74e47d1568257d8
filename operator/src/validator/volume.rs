//! How full a node's volume is.

use althing_crds::ValidatorNodeStatus;
use althing_crds::quantity::Quantity;
use node_api::proto::GetStatusResponse;

use super::observe::ClaimSeen;
use crate::events::Draft;

/// The last range: a person should look before the node stops signing.
const VOLUME_NEARLY_FULL: &str = ">=90%";

/// The event when the volume gets into the last range.
pub fn warning(before: &ValidatorNodeStatus, after: &ValidatorNodeStatus) -> Option<Draft> {
    let is_nearly_full = |status: &ValidatorNodeStatus| status.volume_used.as_deref() == Some(VOLUME_NEARLY_FULL);
    let note = "the volume is at least 90 % full: raise storage.size before the node stops signing";
    (is_nearly_full(after) && !is_nearly_full(before)).then(|| Draft::warning("VolumeRunsFull", note))
}

/// The size of a volume that is smaller than its claim asks for, and that size.
pub fn growing(claim: &ClaimSeen) -> Option<(&str, &str)> {
    let (capacity, requested) = (claim.capacity.as_deref()?, claim.requested.as_deref()?);
    let (has, wants) = (Quantity::parse(capacity).ok()?, Quantity::parse(requested).ok()?);
    (has.milli() < wants.milli()).then_some((capacity, requested))
}

/// How full the volume is as a range, so that it is not another one with every look.
pub fn used(said: &GetStatusResponse) -> Option<&'static str> {
    let (size, available) = (said.volume_size_bytes, said.volume_available_bytes);
    let used = u128::from(size.saturating_sub(available)) * 100;
    match used.checked_div(u128::from(size))? {
        0..50 => Some("<50%"),
        50..75 => Some("<75%"),
        75..90 => Some("<90%"),
        _ => Some(VOLUME_NEARLY_FULL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_of_a_volume_is_a_range_and_the_last_one_is_a_warning() {
        let table = [
            (0, 0, None),
            (100, 51, Some("<50%")),
            (100, 50, Some("<75%")),
            (100, 11, Some("<90%")),
            (100, 10, Some(">=90%")),
        ];
        for (size, available, expected) in table {
            let said = GetStatusResponse {
                volume_size_bytes: size,
                volume_available_bytes: available,
                ..GetStatusResponse::default()
            };
            assert_eq!(used(&said), expected, "{available} of {size}");
        }
        let at = |used: &str| ValidatorNodeStatus { volume_used: Some(used.into()), ..ValidatorNodeStatus::default() };
        assert!(warning(&at("<90%"), &at(">=90%")).is_some_and(|draft| draft.warning));
        assert_eq!(warning(&at(">=90%"), &at(">=90%")), None, "said once");
        assert_eq!(warning(&at(">=90%"), &at("<50%")), None);
    }
}
