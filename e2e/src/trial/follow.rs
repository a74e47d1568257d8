//! Sets, changes and unsets one leaf of a running object; after each step everything must be as if the object had been
//! made with that spec, made and deleted must be what differs and nothing else, and then it must be quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ledger::Counts;
use super::operator::{Operator, Start};
use super::{GOAL_MAX, PAUSES_PERCENT, Stage, snapshot};
use crate::leaves::{LeafCase, Moment, SUBJECTS, Shall};
use crate::network::condition;

type State = BTreeMap<String, Value>;

/// Kinds that stay when they are not wanted any more: the operator never deletes what holds keys or data.
const RETAINED: [&str; 2] = ["Secret/", "PersistentVolumeClaim/"];
/// Kinds of ours: their specs are what was asked for, not what came of it.
const OURS: [&str; 3] = ["BlockchainNetwork/", "ConsensusGroup/", "ValidatorNode/"];
/// Looks in a row at which an object needs a person before that counts as the end.
const STALLED_LOOKS: u32 = 25;

/// What there is after a step.
struct Seen {
    state: State,
    counts: Counts,
}

impl Stage {
    /// Tries one leaf on a running object, with an operator of this plan.
    ///
    /// # Errors
    /// When what comes of it is not what comes of a fresh object, or it does not become quiet.
    pub async fn follow(&self, namespace: &str, case: &LeafCase, plan: &Plan) -> Result<()> {
        let (Shall::BeFollowed { acts_elsewhere, .. }, Some(unset)) = (&case.shall, &case.unset) else {
            bail!("{} is no leaf that children follow", case.leaf);
        };
        let names = ["set", "change"].map(|word| format!("{namespace}-{word}"));
        let made_so = async {
            let set = self.fresh(&names[0], case, &case.set, plan).await?;
            anyhow::Ok((set, self.fresh(&names[1], case, &case.change, plan).await?))
        };
        let (running, (set, change)) = tokio::try_join!(self.all_steps(namespace, case, unset, plan), made_so)?;
        let [before, after_set, after_change, after_unset] = running;
        acts(&before.state, &set, *acts_elsewhere)?;
        acts(&set, &change, *acts_elsewhere).context("with another value")?;
        let steps = [
            (Moment::Set, &before, &before.state, &set, &after_set),
            (Moment::Change, &after_set, &set, &change, &after_change),
            (Moment::Unset, &after_change, &change, &before.state, &after_unset),
        ];
        for (moment, former, fresh_former, fresh, found) in steps {
            let mut differences = differences(fresh, &former.state, &found.state, &case.left_out(moment));
            differences.extend(miscounted(former, fresh_former, fresh, found));
            ensure!(differences.is_empty(), "@{}: {}", moment.as_str(), differences.join("\n"));
        }
        Ok(())
    }

    async fn all_steps(&self, namespace: &str, case: &LeafCase, unset: &Value, plan: &Plan) -> Result<[Seen; 4]> {
        let mut operator = self.begin(namespace, case, unset, plan).await?;
        let steps = async {
            let before = self.seen(namespace).await.context("before the first step")?;
            let step = async |moment: Moment, object: &Value| {
                self.put(namespace, object).await.with_context(|| format!("@{}", moment.as_str()))?;
                self.seen(namespace).await.with_context(|| format!("@{}", moment.as_str()))
            };
            let after_set = step(Moment::Set, &case.set).await?;
            let after_change = step(Moment::Change, &case.change).await?;
            anyhow::Ok([before, after_set, after_change, step(Moment::Unset, unset).await?])
        };
        let seen = while_it_runs(&mut operator, steps).await?;
        operator.stop().await?;
        Ok(seen)
    }

    /// The state of a namespace in which the object is made with this spec.
    async fn fresh(&self, namespace: &str, case: &LeafCase, object: &Value, plan: &Plan) -> Result<State> {
        let mut operator = self.begin(namespace, case, object, plan).await?;
        let seen = while_it_runs(&mut operator, self.seen(namespace)).await;
        let seen = seen.with_context(|| format!("made with {}", object["spec"]))?;
        operator.stop().await?;
        Ok(seen.state)
    }

    async fn begin(&self, namespace: &str, case: &LeafCase, object: &Value, plan: &Plan) -> Result<Operator> {
        self.make_namespace(namespace).await?;
        self.make_secrets(namespace).await?;
        let log = self.log(namespace);
        let operator = Operator::start(&self.environment, &Start::trial(namespace, plan, &log, PAUSES_PERCENT)).await?;
        for object in case.others.iter().chain([object]) {
            self.put(namespace, object).await?;
        }
        Ok(operator)
    }

    /// Makes an object, or gives it another spec as `kubectl edit` does.
    async fn put(&self, namespace: &str, object: &Value) -> Result<()> {
        let wanted: DynamicObject = serde_json::from_value(object.clone())?;
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let api = crate::network::kind_api(self.client.clone(), namespace, kind);
        loop {
            let written = match api.get_opt(&name).await? {
                None => api.create(&PostParams::default(), &wanted).await,
                Some(mut present) => {
                    let fields = present.data.as_object_mut().context("an object has fields")?;
                    fields.insert("spec".to_string(), object["spec"].clone());
                    api.replace(&name, &PostParams::default(), &present).await
                }
            };
            match written {
                // Its status was written meanwhile.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                written => return written.map(drop).with_context(|| format!("{kind} {name}")),
            }
        }
    }

    /// Waits until everything is as the specs say and quiet.
    async fn seen(&self, namespace: &str) -> Result<Seen> {
        loop {
            self.settled(namespace).await?;
            let state = self.quiet(namespace).await?;
            if self.unsettled(namespace).await?.is_none() {
                return Ok(Seen { state, counts: self.ledger.counts(namespace) });
            }
        }
    }

    async fn settled(&self, namespace: &str) -> Result<()> {
        let end = Instant::now() + GOAL_MAX;
        let mut pace = interval(Duration::from_millis(200));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stalled = 0;
        loop {
            pace.tick().await;
            let Some((why, needs_a_person)) = self.unsettled(namespace).await? else { return Ok(()) };
            stalled = if needs_a_person { stalled + 1 } else { 0 };
            ensure!(stalled < STALLED_LOOKS, "it needs a person: {why}");
            ensure!(Instant::now() < end, "not as the spec says within {} s: {why}", GOAL_MAX.as_secs());
        }
    }

    /// The first object of ours that is not as its spec says, and whether only a person can help.
    async fn unsettled(&self, namespace: &str) -> Result<Option<(String, bool)>> {
        for (kind, _) in SUBJECTS {
            let api = crate::network::kind_api(self.client.clone(), namespace, kind);
            for object in api.list(&ListParams::default()).await? {
                let seen = object.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
                let (ready, stalled) = (condition(&object, "Ready"), condition(&object, "Stalled"));
                if seen != object.metadata.generation || ready.status != "True" {
                    let name = object.metadata.name.unwrap_or_default();
                    let why = format!("{kind} {name}: {} {} {}", ready.status, ready.reason, ready.message);
                    return Ok(Some((why, stalled.status == "True")));
                }
            }
        }
        Ok(None)
    }

    /// Secrets that a spec may name.
    async fn make_secrets(&self, namespace: &str) -> Result<()> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        for name in crate::leaves::NAMES {
            let entries = ["password", "ca.crt", "tls.crt", "tls.key", "api-keys.yaml"];
            let data: BTreeMap<&str, &str> = entries.iter().map(|entry| (*entry, "anything")).collect();
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data,
            });
            api.patch(name, &PatchParams::apply("a-person"), &Patch::Apply(&secret)).await?;
        }
        Ok(())
    }
}

/// What comes of the work, unless the operator ends before.
async fn while_it_runs<T>(operator: &mut Operator, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        code = operator.ended() => bail!("the operator ended with {:?}", code?),
    }
}

/// The leaf is acted on somewhere: a field that changes nothing is a lie.
fn acts(without: &State, with: &State, acts_elsewhere: bool) -> Result<()> {
    let children = |state: &State| -> State {
        let is_child = |name: &String| !OURS.iter().any(|kind| name.starts_with(kind));
        state.iter().filter(|(name, _)| is_child(name)).map(|(name, object)| (name.clone(), object.clone())).collect()
    };
    match (children(without) == children(with), acts_elsewhere) {
        (true, false) => bail!("the leaf changes nothing anywhere"),
        (false, true) => bail!("the leaf changes children: it does not act elsewhere only"),
        (true, true) | (false, false) => Ok(()),
    }
}

/// How the state differs from that of a fresh object, but for what is kept although nobody wants it any more.
fn differences(fresh: &State, former: &State, found: &State, left_out: &[&str]) -> Vec<String> {
    let is_kept = |name: &String| {
        RETAINED.iter().any(|kind| name.starts_with(kind)) && former.contains_key(name) && !fresh.contains_key(name)
    };
    let reduced = |state: &State| -> State {
        let mut reduced: State = state.iter().map(|(name, object)| (name.clone(), object.clone())).collect();
        reduced.retain(|name, _| !is_kept(name));
        reduced.values_mut().for_each(|object| leave_out(object, left_out));
        reduced
    };
    let difference = snapshot::difference(&reduced(fresh), &reduced(found));
    if difference.is_empty() { Vec::new() } else { vec![format!("unlike a fresh object: {difference}")] }
}

fn leave_out(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|field| leave_out(field, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| leave_out(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What was made or deleted in this step without need, or was not although it had to be.
fn miscounted(former: &Seen, fresh_former: &State, fresh: &State, found: &Seen) -> Vec<String> {
    let mut expected = former.counts.clone();
    let names: BTreeSet<&String> = former.state.keys().chain(fresh.keys()).collect();
    for name in names {
        match (former.state.contains_key(name), fresh.contains_key(name)) {
            (false, true) => *expected.made.entry(name.clone()).or_default() += 1,
            (true, false) if !RETAINED.iter().any(|kind| name.starts_with(kind)) => {
                *expected.deleted.entry(name.clone()).or_default() += 1;
            }
            (true, true | false) | (false, false) => {}
        }
    }
    // A pod is made anew exactly when it has to take up another form or configuration.
    let pods: Vec<String> = former.counts.made.keys().filter(|name| name.starts_with("Pod/")).cloned().collect();
    for pod in pods {
        if takes_up_something(&pod, fresh_former, fresh) {
            *expected.made.entry(pod.clone()).or_default() += 1;
            *expected.deleted.entry(pod).or_default() += 1;
        }
    }
    found.counts.differences(&expected)
}

fn takes_up_something(pod: &str, former: &State, fresh: &State) -> bool {
    let node = pod.trim_start_matches("Pod/");
    let node = node.strip_suffix("-0").unwrap_or(node);
    let part = |state: &State, name: String, pointer: &str| state.get(&name)?.pointer(pointer).cloned();
    let template = |state: &State| part(state, format!("StatefulSet/{node}"), "/spec/template");
    // A node follows its log level while it runs.
    let configuration = |state: &State| -> Option<Vec<String>> {
        let text = part(state, format!("ConfigMap/{node}"), "/data/node.yaml")?.as_str()?.to_string();
        Some(text.lines().filter(|line| !line.starts_with("logLevel:")).map(str::to_string).collect())
    };
    template(former) != template(fresh) || configuration(former) != configuration(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> State {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn keys_and_volumes_may_stay_and_nothing_else() {
        let fresh = state(r#"{"Service/a":{}}"#);
        let former = state(r#"{"Service/a":{},"Secret/b":{},"NetworkPolicy/c":{}}"#);
        let found = |text: &str| differences(&fresh, &former, &state(text), &[]);
        assert_eq!(found(r#"{"Service/a":{},"Secret/b":{}}"#), Vec::<String>::new());
        let expected = ["unlike a fresh object: NetworkPolicy/c is too much"];
        assert_eq!(found(r#"{"Service/a":{},"Secret/b":{},"NetworkPolicy/c":{}}"#), expected);
        assert_eq!(found(r#"{"Service/a":{},"Secret/d":{}}"#), ["unlike a fresh object: Secret/d is too much"]);
    }

    #[test]
    fn a_pod_is_made_anew_when_its_form_or_configuration_is_another() {
        let old = state(
            r#"{"StatefulSet/a-0":{"spec":{"template":1}},"ConfigMap/a-0":{"data":{"node.yaml":"a\nlogLevel: info"}}}"#,
        );
        assert!(!takes_up_something("Pod/a-0-0", &old, &old));
        let form = state(
            r#"{"StatefulSet/a-0":{"spec":{"template":2}},"ConfigMap/a-0":{"data":{"node.yaml":"a\nlogLevel: info"}}}"#,
        );
        assert!(takes_up_something("Pod/a-0-0", &old, &form));
        let configuration =
            state(r#"{"StatefulSet/a-0":{"spec":{"template":1}},"ConfigMap/a-0":{"data":{"node.yaml":"b"}}}"#);
        assert!(takes_up_something("Pod/a-0-0", &old, &configuration));
        let level = state(
            r#"{"StatefulSet/a-0":{"spec":{"template":1}},"ConfigMap/a-0":{"data":{"node.yaml":"a\nlogLevel: warn"}}}"#,
        );
        assert!(!takes_up_something("Pod/a-0-0", &old, &level));
    }

    #[test]
    fn a_leaf_that_changes_nothing_is_found() {
        let one = state(r#"{"ConsensusGroup/a":{"spec":1},"Service/a":1}"#);
        let spec = state(r#"{"ConsensusGroup/a":{"spec":2},"Service/a":1}"#);
        let child = state(r#"{"ConsensusGroup/a":{"spec":2},"Service/a":2}"#);
        assert!(acts(&one, &spec, false).is_err());
        assert!(acts(&one, &child, false).is_ok());
        assert!(acts(&one, &child, true).is_err(), "an entry of the table that is not true");
    }
}
