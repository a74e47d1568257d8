//! Trials of the real operator against a real API server and the stand-in: one namespace and one operator process for
//! each, with or without a fault; what it left behind and how often it made and deleted things is the result.

mod change;
mod follow;
mod installations;
mod keep;
mod ledger;
mod members;
mod mixture;
mod operator;
mod pause;
mod rename;
mod snapshot;
mod taken;
mod upgrade;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use althing_operator::faults::{Plan, STOPPED};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::environment::Environment;
use crate::network::{condition, kind_api};

pub use change::Change;
pub use ledger::{Counts, KINDS, Ledger};
pub use operator::{LEASE, Operator, Start};
pub use snapshot::snapshot;

/// The kind of routes that a cluster has only with the Gateway API, for those that need one: as much of it as is written.
pub const ROUTES: &str = include_str!("tlsroutes.yaml");
/// Pauses of the operator in percent of what they are in production: a settled object is looked at once a second.
pub const PAUSES_PERCENT: u32 = 10;
/// Longest pause between two looks, with these pauses.
const RESYNC: Duration = Duration::from_secs(1);
/// For so many of them nothing may be written at the end.
const QUIET_RESYNCS: u32 = 3;
/// How long a trial may take to its goal, and from there to silence.
const GOAL_MAX: Duration = Duration::from_secs(120);
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What trials need.
#[derive(Clone)]
pub struct Stage {
    /// The API server and our programs.
    pub environment: Environment,
    /// Its client.
    pub client: Client,
    /// Who made and deleted what.
    pub ledger: Ledger,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Objects without what differs from run to run, by kind and name.
    pub state: BTreeMap<String, serde_json::Value>,
    /// How often each object was made and deleted.
    pub counts: Counts,
}

/// An outcome, and what happened on the way.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The result.
    pub outcome: Outcome,
    /// Writes of the first process, as the fault layer counts them.
    pub writes: Vec<String>,
    /// Events of watches of the first process; none where the plan changes none of them.
    pub events: u64,
    /// The planned fault came to pass.
    pub has_fired: bool,
    /// How long it took.
    pub took: Duration,
}

/// What must not change any more where it is quiet.
#[derive(PartialEq)]
struct Moment {
    changes: u64,
    /// What was just refused is tried again after a pause that grows.
    faults: usize,
    state: BTreeMap<String, serde_json::Value>,
}

impl Stage {
    /// Makes this API server ready and starts the ledger on it. The ledger comes last: nothing can be watched before its
    /// definition exists, and a watch that has to be tried again misses what is made and deleted meanwhile.
    ///
    /// # Errors
    /// When there is no way to it, or it refuses what trials need.
    pub async fn new(environment: Environment) -> Result<Self> {
        let client = environment.client().await?;
        prepare(&environment).await?;
        let ledger = Ledger::start(&client).await?;
        Ok(Self { environment, client, ledger })
    }

    /// A stage on which nothing is counted.
    ///
    /// # Errors
    /// When there is no way to the API server, or it refuses what trials need.
    pub async fn without_ledger(environment: Environment) -> Result<Self> {
        let client = environment.client().await?;
        prepare(&environment).await?;
        Ok(Self { environment, client, ledger: Ledger::default() })
    }

    /// Runs the scenario `create`: a network of so many voters is applied and brought up by an operator with this plan.
    /// A process that the plan ends is followed by one without a plan.
    ///
    /// # Errors
    /// When the goal is not reached, or it does not become quiet.
    pub async fn create(&self, namespace: &str, voters: u32, plan: &Plan) -> Result<Trial> {
        let begin = Instant::now();
        self.make_namespace(namespace).await?;
        let log = self.log(namespace);
        let start = Start::trial(namespace, plan, &log, PAUSES_PERCENT);
        let mut operator = Operator::start(&self.environment, &start).await?;
        let manifest = manifest("alpha", voters);
        let apply = ["apply", "--namespace", namespace, "-f", "-"];
        self.environment.kubectl_call(&apply).input(manifest).stdout().await?;
        // The fault may come to pass only after the goal was reached.
        let settled = async {
            self.goal(namespace, "alpha-main", voters).await?;
            self.quiet(namespace).await
        };
        let state = self.while_operated(&mut operator, &start, settled).await?;
        operator.stop().await?;
        self.result(namespace, begin, state)
    }

    /// What comes of the work while an operator does its own; one that its plan ends is followed by one without it.
    async fn while_operated<T>(
        &self,
        operator: &mut Operator,
        start: &Start<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (mut has_stopped, next) = (false, start.plan.map(Plan::of_the_next));
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                code = operator.ended() => {
                    let code = code?;
                    ensure!(code == Some(STOPPED) && !has_stopped, "the operator ended with {code:?}");
                    has_stopped = true;
                    self.free_lease(start.namespace).await?;
                    *operator = Operator::start(&self.environment, &Start { plan: next.as_ref(), ..*start }).await?;
                }
            }
        }
    }

    /// What came of a trial that ended in this state.
    fn result(&self, namespace: &str, begin: Instant, state: BTreeMap<String, serde_json::Value>) -> Result<Trial> {
        let log = self.log(namespace);
        let text = std::fs::read_to_string(&log).with_context(|| format!("failed to read {}", log.display()))?;
        Ok(Trial {
            outcome: Outcome { state, counts: self.ledger.counts(namespace) },
            writes: operator::writes(&text),
            events: operator::events(&text),
            has_fired: text.contains("fault injected"),
            took: begin.elapsed(),
        })
    }

    /// Makes the namespace of a trial.
    ///
    /// # Errors
    /// When it is there already.
    pub async fn make_namespace(&self, namespace: &str) -> Result<()> {
        let object = serde_json::from_value(serde_json::json!({ "metadata": { "name": namespace } }))?;
        Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Where the operator of a trial writes what it does.
    pub fn log(&self, namespace: &str) -> PathBuf {
        self.environment.root.join("target/faults").join(format!("{namespace}.log"))
    }

    /// The process that held it has ended: nobody has to wait until it expires.
    async fn free_lease(&self, namespace: &str) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        match leases.delete(operator::LEASE, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything of this group is as the spec says and all its voters sign.
    async fn goal(&self, namespace: &str, group: &str, voters: u32) -> Result<()> {
        let end = Instant::now() + GOAL_MAX;
        let mut pace = interval(Duration::from_millis(200));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let api = kind_api(self.client.clone(), namespace, "ConsensusGroup");
        loop {
            pace.tick().await;
            let (ready, signing) = match api.get_opt(group).await? {
                Some(group) => {
                    let signing = group.data.pointer("/status/signing").and_then(|it| it.as_str()).map(str::to_string);
                    (condition(&group, "Ready"), signing)
                }
                None => Default::default(),
            };
            if ready.status == "True" && signing == Some(format!("{voters}/{voters}")) {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("not ready within {} s: {ready:?}, signing {signing:?}", GOAL_MAX.as_secs());
            }
        }
    }

    /// Waits until nothing has changed for three resync periods, and returns what there is.
    async fn quiet(&self, namespace: &str) -> Result<BTreeMap<String, serde_json::Value>> {
        let end = Instant::now() + SILENCE_MAX;
        let mut pace = interval(RESYNC * QUIET_RESYNCS);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace.tick().await;
        let mut before = self.moment(namespace).await?;
        loop {
            pace.tick().await;
            let after = self.moment(namespace).await?;
            if before == after {
                return Ok(after.state);
            }
            if Instant::now() >= end {
                let changed = snapshot::difference(&before.state, &after.state);
                bail!("it does not become quiet: {} changes, the last: {changed}", after.changes - before.changes);
            }
            before = after;
        }
    }

    async fn moment(&self, namespace: &str) -> Result<Moment> {
        let log = std::fs::read_to_string(self.log(namespace)).unwrap_or_default();
        Ok(Moment {
            changes: self.ledger.changes(namespace),
            faults: log.matches("fault injected: write").count(),
            state: snapshot(&self.client, namespace).await?,
        })
    }
}

/// Makes the resource definitions, that of routes too, a StorageClass and two PriorityClasses known.
async fn prepare(environment: &Environment) -> Result<()> {
    let crds = environment.root.join("crds");
    let crds = crds.to_string_lossy();
    environment.kubectl(&["apply", "--server-side", "-f", &crds]).await?;
    environment.kubectl_call(&["apply", "-f", "-"]).input(ROUTES).stdout().await?;
    let class = "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: none, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
";
    environment.kubectl_call(&["apply", "-f", "-"]).input(class).stdout().await?;
    for name in crate::leaves::NAMES {
        environment.kubectl(&["create", "priorityclass", name, "--value", "1000"]).await?;
    }
    environment.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds]).await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=30s", "-f", "-"];
    environment.kubectl_call(&wait).input(ROUTES).stdout().await?;
    Ok(())
}

/// A network of so many voters.
pub fn manifest(name: &str, voters: u32) -> String {
    let account = althing_node::devnet::accounts::account(0);
    format!(
        "apiVersion: althing.dev/v1alpha1
kind: BlockchainNetwork
metadata: {{name: {name}}}
spec:
  node:
    image: docker.io/althing/node:one
    resources: {{cpu: 100m, memory: 128Mi}}
    storage: {{size: 1Gi}}
  groups:
    - name: main
      replicas: {voters}
      chain: {{accounts: [{{key: \"{account}\", amount: 1000}}]}}
"
    )
}

impl Outcome {
    /// What is different from a run without a fault; empty when nothing is.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = self.counts.differences(&expected.counts);
        let state = snapshot::difference(&expected.state, &self.state);
        if !state.is_empty() {
            found.push(format!("end state: {state}"));
        }
        found
    }
}
