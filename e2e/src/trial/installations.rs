//! Two installations of the operator work in one namespace, each under a lease of its own: they share one disruption.

use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::change::{GROUP, IMAGE, VOTERS, was_made_and_deleted};
use super::operator::{LEASE, Operator, Start, writes};
use super::{GOAL_MAX, PAUSES_PERCENT, Stage};
use crate::network::eventually;
use crate::stand_in::Witness;

/// The lease of the other installation.
const LEASE_OTHER: &str = "trial-operator-other";

impl Stage {
    /// Brings a network of four voters up, then lets two operators carry out one change of its image.
    ///
    /// # Errors
    /// When two voters are away at once, a pod is made anew twice or not at all, or it does not come to rest.
    pub async fn installations(&self, namespace: &str, witness: &Witness) -> Result<()> {
        self.run_one(namespace, VOTERS).await.context("before the change")?;
        let before = self.pods(namespace).await?;
        witness.watch(namespace);
        let (plan, logs) = (Plan::default(), [self.log(namespace), self.log(&format!("{namespace}-other"))]);
        let mut operators = Vec::new();
        for (lease_name, log) in [LEASE, LEASE_OTHER].into_iter().zip(&logs) {
            let start = Start { lease_name, ..Start::trial(namespace, &plan, log, PAUSES_PERCENT) };
            operators.push(Operator::start(&self.environment, &start).await?);
        }
        let changed = async {
            self.is_held(namespace, LEASE).await?;
            self.is_held(namespace, LEASE_OTHER).await?;
            self.ask(namespace, json!({ "node": { "image": IMAGE } })).await?;
            let are_all_new = || self.are_all_new(namespace, &before);
            eventually("every pod is another one", GOAL_MAX.as_secs(), are_all_new).await?;
            self.goal(namespace, GROUP, VOTERS).await?;
            self.quiet(namespace).await
        };
        tokio::select! {
            state = changed => drop(state?),
            violation = witness.violated(namespace) => bail!("{violation}"),
        }
        for operator in operators {
            operator.stop().await?;
        }
        let seen = witness.violations(namespace);
        ensure!(seen.is_empty(), "{}", seen.join("; "));
        for log in &logs {
            let text = std::fs::read_to_string(log).with_context(|| format!("failed to read {}", log.display()))?;
            ensure!(!writes(&text).is_empty(), "an installation did nothing, see {}", log.display());
        }
        let counts = self.ledger.counts(namespace);
        before.keys().try_for_each(|pod| was_made_and_deleted(pod, &counts, (2, 1)))
    }
}
