//! Changes of a running network while something goes wrong with the operator: a rolling restart of its voters, the
//! replacement of its certificate authority, and other voters. All the time a witness looks that no more voters are away than
//! the chain can bear, that voters come and go one after the other, and that everybody trusts everybody.

use std::collections::BTreeMap;

use althing_crds::{BlockchainNetwork, names};
use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::members::without_echoes;
use super::operator::{LEASE, Operator, Start};
use super::{Counts, GOAL_MAX, PAUSES_PERCENT, Stage, Trial, manifest};
use crate::network::eventually;
use crate::stand_in::Witness;

const NETWORK: &str = "alpha";
pub(super) const GROUP: &str = "alpha-main";
pub(super) const VOTERS: u32 = 4;
/// The image that is asked for.
pub(super) const IMAGE: &str = "docker.io/althing/node:two";

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The image of the voters.
    Roll,
    /// The certificate authority.
    Rollover,
    /// The number of voters: one more.
    Grow,
    /// The number of voters: one less.
    Shrink,
    /// A voter, which is named: another one takes its place.
    Replace,
}

/// What was there before a change.
struct Before {
    /// UIDs of the voters' pods.
    pods: BTreeMap<String, String>,
    /// UIDs of their identities and volumes.
    kept: BTreeMap<String, String>,
    /// The certificate of the authority.
    authority: String,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 5] = [Self::Roll, Self::Rollover, Self::Grow, Self::Shrink, Self::Replace];

    /// In one word, as cases are named.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Roll => "roll",
            Self::Rollover => "rollover",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Replace => "replace",
        }
    }
}

impl Stage {
    /// Brings a network up, ends its operator, and lets one with this plan carry the change out.
    ///
    /// # Errors
    /// When the change is not finished, it does not become quiet, a pod is made anew too often, keys or data of a voter are
    /// gone, or the witness saw what must never be.
    pub async fn change(&self, change: Change, namespace: &str, plan: &Plan, witness: &Witness) -> Result<Trial> {
        let begin = Instant::now();
        self.run_one(namespace, change.voters_before()).await.context("before the change")?;
        let before = Before {
            pods: self.pods(namespace).await?,
            kept: self.keys_and_data(namespace).await?,
            authority: self.authority(namespace).await?.signs,
        };
        witness.watch(namespace);
        let log = self.log(namespace);
        let start = Start::trial(namespace, plan, &log, PAUSES_PERCENT);
        let mut operator = Operator::start(&self.environment, &start).await?;
        let changed = async {
            // Its watches are there before the change is: their events are those of the change.
            self.is_held(namespace, LEASE).await?;
            self.ask_for(change, namespace).await?;
            self.is_carried_out(change, namespace, &before, witness).await?;
            let voters = change.voters_after().len();
            self.goal(namespace, GROUP, u32::try_from(voters)?).await?;
            self.quiet(namespace).await
        };
        let state = tokio::select! {
            state = self.while_operated(&mut operator, &start, changed) => state?,
            violation = witness.violated(namespace) => bail!("{violation}"),
        };
        operator.stop().await?;
        let seen = witness.violations(namespace);
        ensure!(seen.is_empty(), "{}", seen.join("; "));
        // It is still so after all the looks at which nothing was done.
        self.is_over(change, namespace, &before, witness).await?;
        self.are_kept(namespace, &before.kept).await?;
        let mut trial = self.result(namespace, begin, state)?;
        without_echoes(&mut trial.outcome.counts, change);
        for number in change.voters_after().into_iter().chain(0..change.voters_before()) {
            let pod = names::pod(&names::node(GROUP, number));
            was_made_and_deleted(&pod, &trial.outcome.counts, change.made_and_deleted(number))?;
        }
        Ok(trial)
    }

    /// A network of voters that all sign; its operator is gone again.
    pub(super) async fn run_one(&self, namespace: &str, voters: u32) -> Result<()> {
        self.make_namespace(namespace).await?;
        let (log, plan) = (self.log(&format!("{namespace}-before")), Plan::default());
        let mut operator =
            Operator::start(&self.environment, &Start::trial(namespace, &plan, &log, PAUSES_PERCENT)).await?;
        let apply = ["apply", "--namespace", namespace, "-f", "-"];
        self.environment.kubectl_call(&apply).input(manifest(NETWORK, voters)).stdout().await?;
        let settled = async {
            self.goal(namespace, GROUP, voters).await?;
            self.quiet(namespace).await
        };
        tokio::select! {
            settled = settled => drop(settled?),
            code = operator.ended() => bail!("the operator ended with {:?}, see {}", code?, log.display()),
        }
        operator.stop().await?;
        self.free_lease(namespace).await
    }

    async fn ask_for(&self, change: Change, namespace: &str) -> Result<()> {
        match change {
            Change::Roll => self.ask(namespace, json!({ "node": { "image": IMAGE } })).await,
            Change::Rollover => {
                let patch = json!({ "metadata": { "annotations": { names::ANNOTATION_ROLL: "once" } } });
                let networks: Api<BlockchainNetwork> = Api::namespaced(self.client.clone(), namespace);
                networks.patch(NETWORK, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                Ok(())
            }
            Change::Grow | Change::Shrink | Change::Replace => self.ask_for_voters(change, namespace).await,
        }
    }

    async fn is_carried_out(&self, change: Change, namespace: &str, before: &Before, witness: &Witness) -> Result<()> {
        let what = format!("{} is carried out", change.word());
        eventually(&what, GOAL_MAX.as_secs(), || self.is_over(change, namespace, before, witness)).await
    }

    async fn is_over(&self, change: Change, namespace: &str, before: &Before, witness: &Witness) -> Result<()> {
        match change {
            Change::Roll => self.are_all_new(namespace, &before.pods).await,
            Change::Rollover => self.is_replaced(namespace, before, witness).await,
            Change::Grow | Change::Shrink | Change::Replace => self.are_voters(change, namespace, witness).await,
        }
    }

    /// Every pod is another one.
    pub(super) async fn are_all_new(&self, namespace: &str, before: &BTreeMap<String, String>) -> Result<()> {
        let now = self.pods(namespace).await?;
        let same = before.iter().filter(|(pod, uid)| now.get(*pod) == Some(uid)).count();
        ensure!(now.len() == before.len() && same == 0, "{same} of {} pods are as before", now.len());
        Ok(())
    }

    /// There is one authority, another one than before, and every process has a certificate of it and trusts it alone.
    async fn is_replaced(&self, namespace: &str, before: &Before, witness: &Witness) -> Result<()> {
        let now = self.authority(namespace).await?;
        ensure!(now.signs != before.authority, "the former authority signs");
        ensure!(now.entries == ["ca.crt", "tls.crt", "tls.key"], "the Secret has {:?}", now.entries);
        let processes = witness.processes(namespace);
        ensure!(processes.len() == before.pods.len(), "{} processes run", processes.len());
        let others = processes.iter().filter(|papers| papers.authorities.trim() != now.signs.trim()).count();
        ensure!(others == 0, "{others} processes trust somebody else");
        Ok(())
    }

    async fn authority(&self, namespace: &str) -> Result<AuthoritySecret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let data = secrets.get(&names::ca_secret(NETWORK)).await?.data.unwrap_or_default();
        let signs = data.get("tls.crt").context("nobody signs")?;
        Ok(AuthoritySecret { signs: String::from_utf8(signs.0.clone())?, entries: data.keys().cloned().collect() })
    }
}

/// How often this pod was made and deleted.
pub(super) fn was_made_and_deleted(pod: &str, counts: &Counts, expected: (usize, usize)) -> Result<()> {
    let pod = format!("Pod/{pod}");
    let count = |of: &BTreeMap<String, usize>| of.get(&pod).copied().unwrap_or(0);
    let found = (count(&counts.made), count(&counts.deleted));
    ensure!(found == expected, "{pod} was made and deleted {found:?} times instead of {expected:?}");
    Ok(())
}

struct AuthoritySecret {
    signs: String,
    entries: Vec<String>,
}
