//! Changes of a chain's voters: one more, one less, and another one in the place of one that is named. Keys and volumes of a
//! voter that has left stay.

use std::collections::{BTreeMap, BTreeSet};

use althing_crds::names;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::change::{Change, GROUP};
use super::{Counts, Stage};
use crate::network::kind_api;
use crate::stand_in::Witness;

/// The voter that is replaced.
const RETIRED: u32 = 1;

impl Change {
    /// How many voters there are before it.
    pub const fn voters_before(self) -> u32 {
        match self {
            Self::Roll | Self::Rollover | Self::Grow | Self::Replace => 4,
            Self::Shrink => 5,
        }
    }

    /// The numbers of the voters after it.
    pub fn voters_after(self) -> BTreeSet<u32> {
        match self {
            Self::Roll | Self::Rollover | Self::Shrink => (0..4).collect(),
            Self::Grow => (0..5).collect(),
            Self::Replace => (0..5).filter(|number| *number != RETIRED).collect(),
        }
    }

    /// How often the pod of this voter was made and deleted at the end.
    pub fn made_and_deleted(self, number: u32) -> (usize, usize) {
        match self {
            Self::Roll => (2, 1),
            Self::Rollover => (1, 0),
            Self::Grow | Self::Shrink | Self::Replace => (1, usize::from(!self.voters_after().contains(&number))),
        }
    }
}

/// Kinds that a node owns and that hold neither keys nor data.
const COLLECTED: [&str; 4] = ["ConfigMap", "Service", "ServiceAccount", "NetworkPolicy"];

/// Counts once what a node owned that has left: a write that was on its way when the node went makes it once more, and it is
/// collected once more. Its pod and its StatefulSet are none of it: who has left never starts again.
pub(super) fn without_echoes(counts: &mut Counts, change: Change) {
    let gone = (0..change.voters_before()).filter(|number| !change.voters_after().contains(number));
    for node in gone.map(|number| names::node(GROUP, number)) {
        let suffixes = ["", "-p2p", "-rpc"];
        for what in COLLECTED.iter().flat_map(|kind| suffixes.map(|suffix| format!("{kind}/{node}{suffix}"))) {
            if let (Some(made), Some(deleted)) = (counts.made.get_mut(&what), counts.deleted.get_mut(&what))
                && made == deleted
            {
                (*made, *deleted) = (1, 1);
            }
        }
    }
}

impl Stage {
    /// Asks for another number of voters, or for another one in the place of one.
    pub(super) async fn ask_for_voters(&self, change: Change, namespace: &str) -> Result<()> {
        let mut groups = self.groups(namespace).await?;
        let group = groups.get_mut(0).and_then(Value::as_object_mut).context("there is a group")?;
        match change {
            Change::Replace => group.insert("retired".to_string(), json!([names::node(GROUP, RETIRED)])),
            Change::Roll | Change::Rollover | Change::Grow | Change::Shrink => {
                group.insert("replicas".to_string(), json!(change.voters_after().len()))
            }
        };
        self.ask(namespace, json!({ "groups": groups })).await
    }

    /// The chain's own voters are these, no change is under way, and there are no other pods.
    pub(super) async fn are_voters(&self, change: Change, namespace: &str, witness: &Witness) -> Result<()> {
        let (wanted, voters) = (change.voters_after(), witness.voters(namespace));
        ensure!(voters == wanted, "the voters of the chain are {voters:?}");
        let group = kind_api(self.client.clone(), namespace, "ConsensusGroup").get(GROUP).await?;
        let begun = group.data.pointer("/status/members/change").filter(|change| !change.is_null());
        ensure!(begun.is_none(), "a change is written down: {begun:?}");
        let numbers = group.data.pointer("/status/members/numbers").context("no voter has changed yet")?;
        let numbers: BTreeSet<u32> = serde_json::from_value(numbers.clone())?;
        ensure!(numbers == wanted, "the status names the voters {numbers:?}");
        let pods: BTreeSet<String> = self.pods(namespace).await?.into_keys().collect();
        let expected = wanted.iter().map(|number| names::pod(&names::node(GROUP, *number))).collect();
        ensure!(pods == expected, "there are the pods {pods:?}");
        Ok(())
    }

    /// UIDs of what holds keys and data of voters.
    pub(super) async fn keys_and_data(&self, namespace: &str) -> Result<BTreeMap<String, String>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let all = ListParams::default();
        let secrets = secrets.list_metadata(&all).await?.items.into_iter().map(|secret| ("Secret", secret.metadata));
        let claims = claims.list_metadata(&all).await?.items.into_iter().map(|claim| ("Claim", claim.metadata));
        let is_identity = |name: &str| (0..9).any(|number| name == names::identity_secret(&names::node(GROUP, number)));
        let named = secrets.chain(claims).filter_map(|(kind, meta)| Some((kind, meta.name?, meta.uid?)));
        let kept = named.filter(|(kind, name, _)| *kind == "Claim" || is_identity(name));
        Ok(kept.map(|(kind, name, uid)| (format!("{kind}/{name}"), uid)).collect())
    }

    /// What held keys and data before is still there, and the same.
    pub(super) async fn are_kept(&self, namespace: &str, before: &BTreeMap<String, String>) -> Result<()> {
        let now = self.keys_and_data(namespace).await?;
        for (what, uid) in before {
            ensure!(now.get(what) == Some(uid), "{what} is not what it was before");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_is_deleted_once_and_nobody_else_is() {
        let table = |change: Change| (0..5).map(|number| change.made_and_deleted(number).1).collect::<Vec<_>>();
        assert_eq!(table(Change::Grow), [0, 0, 0, 0, 0]);
        assert_eq!(table(Change::Shrink), [0, 0, 0, 0, 1]);
        assert_eq!(table(Change::Replace), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn what_is_made_once_more_for_a_node_that_left_counts_once_and_its_pod_does_not() {
        let of = |entries: &[(&str, usize)]| entries.iter().map(|(what, count)| (what.to_string(), *count)).collect();
        let all = [("ConfigMap/alpha-main-4", 2), ("Pod/alpha-main-4-0", 2), ("Service/alpha-main-3-p2p", 2)];
        let mut counts = Counts { made: of(&all), deleted: of(&all) };
        without_echoes(&mut counts, Change::Shrink);
        let expected = [("ConfigMap/alpha-main-4", 1), ("Pod/alpha-main-4-0", 2), ("Service/alpha-main-3-p2p", 2)];
        assert_eq!(counts, Counts { made: of(&expected), deleted: of(&expected) });
        let mut left =
            Counts { made: of(&[("ConfigMap/alpha-main-4", 2)]), deleted: of(&[("ConfigMap/alpha-main-4", 1)]) };
        let before = left.clone();
        without_echoes(&mut left, Change::Shrink);
        assert_eq!(left, before, "one is still there");
    }
}
