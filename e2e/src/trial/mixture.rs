//! A fifth voter and another image are asked for at the same time: both come to their end, inside one budget. Then a spec that is
//! refused: the disruption budget goes on following who signs.

use std::collections::BTreeSet;

use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::operator::{LEASE, Operator, Start};
use super::pause::{GROUP, IMAGE, SECONDS_MAX, with};
use super::{PAUSES_PERCENT, Stage};
use crate::network::{condition, eventually, kind_api};
use crate::stand_in::Witness;

impl Stage {
    /// Asks for the image while the fault budget counts on the voter.
    ///
    /// # Errors
    /// When more voters are away than the chain bears, or when one of the two does not come to its end.
    pub async fn mixture(&self, namespace: &str, witness: &Witness) -> Result<()> {
        self.run_one(namespace, 4).await.context("before the changes")?;
        witness.watch(namespace);
        let (log, plan) = (self.log(namespace), Plan::default());
        let operator =
            Operator::start(&self.environment, &Start::trial(namespace, &plan, &log, PAUSES_PERCENT)).await?;
        let mixed = async {
            self.is_held(namespace, LEASE).await?;
            self.grow_and_roll(namespace, witness).await?;
            self.refuse(namespace).await
        };
        tokio::select! {
            mixed = mixed => mixed?,
            violation = witness.violated(namespace) => bail!("{violation}"),
        }
        operator.stop().await
    }

    async fn grow_and_roll(&self, namespace: &str, witness: &Witness) -> Result<()> {
        let before = self.pods(namespace).await?;
        let groups = self.groups(namespace).await?;
        self.ask(namespace, json!({ "groups": with(&groups, "replicas", json!(5)) })).await?;
        // From here on nobody may be restarted until the fifth one votes: the change has to go first.
        eventually("the fault budget counts on the fifth voter", SECONDS_MAX, || async {
            let members = self.status_of(namespace, "/status/members").await?;
            let is_borne = members.pointer("/change/isBorne") == Some(&json!(true));
            let is_over = members.pointer("/numbers/4").is_some();
            ensure!(is_borne || is_over, "it does not: {members}");
            Ok(())
        })
        .await?;
        self.ask(namespace, json!({ "node": { "image": IMAGE } })).await?;
        eventually("five voters run the new image", 2 * SECONDS_MAX, || async {
            let voters = witness.voters(namespace);
            ensure!(voters == (0..5).collect::<BTreeSet<u32>>(), "the voters of the chain are {voters:?}");
            let now = self.pods(namespace).await?;
            let same = before.iter().filter(|(pod, uid)| now.get(*pod) == Some(uid)).count();
            let updated = self.status_of(namespace, "/status/updatedReplicas").await?;
            ensure!(now.len() == 5 && same == 0 && updated == json!(5), "{same} are as before, {updated} are updated");
            Ok(())
        })
        .await?;
        self.goal(namespace, GROUP, 5).await?;
        self.wait_allowance(namespace, (5, 5, 1)).await.context("after the changes")
    }

    /// A spec with a name that no voter has, and a voter that falls silent.
    async fn refuse(&self, namespace: &str) -> Result<()> {
        let groups = self.groups(namespace).await?;
        self.ask(namespace, json!({ "groups": with(&groups, "retired", json!(["nobody"])) })).await?;
        eventually("the group waits for a person", SECONDS_MAX, || async {
            let group = kind_api(self.client.clone(), namespace, "ConsensusGroup").get(GROUP).await?;
            let stalled = condition(&group, "Stalled");
            ensure!((stalled.status.as_str(), stalled.reason.as_str()) == ("True", "InvalidSpec"), "{stalled:?}");
            Ok(())
        })
        .await?;
        self.silence(namespace, "alpha-main-2-0").await?;
        self.wait_allowance(namespace, (4, 4, 0)).await.context("a voter is silent while the spec is refused")
    }

    async fn status_of(&self, namespace: &str, pointer: &str) -> Result<Value> {
        let group = kind_api(self.client.clone(), namespace, "ConsensusGroup").get(GROUP).await?;
        Ok(group.data.pointer(pointer).cloned().unwrap_or_default())
    }
}
