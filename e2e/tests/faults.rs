//! Faults between the operator and the API server: every case must end in the state of a run without a fault, with as
//! many creations and deletions, and then be quiet. Leaves of specs: set, changed and unset on a running object, each
//! must end in the state of an object that was made so, and then be quiet.
//!
//! `cargo test -p althing-e2e --test faults` runs a stop after every write of the create scenario and a sample of the
//! other faults and of the leaves; ALTHING_FAULTS_SEED repeats a sample, ALTHING_FAULTS_CASE runs the cases whose name
//! contains it, ALTHING_CAMPAIGN=1 runs all and goes on where it was interrupted (target/campaign.json). Trials mostly
//! wait: ALTHING_FAULTS_PARALLEL says how many run at the same time.

#[path = "faults/cases.rs"]
mod cases;
#[path = "faults/progress.rs"]
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use althing_e2e::environment::{Environment, Profile};
use althing_e2e::leaves::Shall;
use althing_e2e::stand_in::{Options, StandIn};
use althing_e2e::trial::{Outcome, Stage};
use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use cases::{Case, Work};
use futures::StreamExt;
use progress::Progress;
use tokio::sync::Mutex;

/// Voters of the scenario.
const VOTERS: u32 = 4;
/// Trials at the same time, unless another number is asked for.
const PARALLEL: usize = 6;
/// Cases beside the stops, outside the campaign.
const SAMPLE: usize = 18;
/// Leaves that children follow, outside the campaign.
const SAMPLE_LEAVES: usize = 6;
/// Where leaves are tried that nobody may change.
const REFUSALS: &str = "refusals";
/// After this time no further case of the sample is begun; every stop is run all the same.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(270);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        println!("faults: test");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let code = match runtime.block_on(run()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("faults: {error:#}");
            1
        }
    };
    runtime.shutdown_timeout(Duration::from_secs(5));
    std::process::exit(code);
}

async fn run() -> Result<()> {
    let environment = Environment::api_server(Profile::Ci).await?;
    let outcome = tokio::select! {
        outcome = run_all(&environment) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    environment.cluster(&["down"]).await.context("failed to take the cluster down")?;
    outcome
}

async fn run_all(environment: &Environment) -> Result<()> {
    let begin = Instant::now();
    let stage = Stage::new(environment.clone()).await?;
    let options = Options { block_interval: Duration::from_millis(200) };
    let stand_in = StandIn::start(&stage.client, options);
    let (reference, writes) = reference(&stage).await?;
    stage.make_namespace(REFUSALS).await?;
    the_checkers_are_proved(&stage, &reference).await?;
    let selected = select(writes.len() as u64)?;
    let progress = Progress::read(&stage.environment.root)?;
    let selected: Vec<Case> = selected.into_iter().filter(|case| !progress.has_passed(&case.name)).collect();
    let parallel = parallel()?;
    println!("running {} cases, {parallel} at a time", selected.len());
    let progress = Arc::new(Mutex::new(progress));
    let failed: Vec<Option<String>> = futures::stream::iter(selected.into_iter().enumerate())
        .map(|(number, case)| {
            let (stage, reference, progress) = (&stage, &reference, Arc::clone(&progress));
            async move {
                if case.may_be_left_out && begin.elapsed() > SAMPLE_TIME_MAX {
                    println!("case {} ... left out, the time is over", case.name);
                    return None;
                }
                let judged = judge(stage, reference, &case, number).await;
                let outcome = match &judged {
                    Ok(passed) => format!("ok ({:.0} s{})", passed.took.as_secs_f64(), unfired(passed)),
                    Err(error) => format!("FAILED\n{error:#}\nrepeat: make faults CASE='{}'", case.name),
                };
                println!("case {} ... {outcome}", case.name);
                let kept = progress.lock().await.record(&case.name, &judged.as_ref().map(|passed| passed.has_fired));
                if let Err(error) = kept {
                    eprintln!("faults: {error:#}");
                }
                judged.err().map(|_| case.name)
            }
        })
        .buffer_unordered(parallel)
        .collect()
        .await;
    stand_in.stop().await;
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    println!("{} in {} s", progress.lock().await.summary(), begin.elapsed().as_secs());
    ensure!(failed.is_empty(), "{} cases failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

fn parallel() -> Result<usize> {
    let Ok(text) = std::env::var("ALTHING_FAULTS_PARALLEL") else { return Ok(PARALLEL) };
    let number: usize = text.parse().context("ALTHING_FAULTS_PARALLEL is a number")?;
    ensure!(number > 0, "ALTHING_FAULTS_PARALLEL is at least 1");
    Ok(number)
}

/// A case that passed.
struct Passed {
    took: Duration,
    /// What was to go wrong went wrong.
    has_fired: bool,
}

fn unfired(passed: &Passed) -> &'static str {
    if passed.has_fired { "" } else { ", the fault did not come to pass" }
}

/// Two runs without a fault are equal, or no difference would mean anything.
async fn reference(stage: &Stage) -> Result<(Outcome, Vec<String>)> {
    let plan = Plan::default();
    let (first, second) =
        tokio::try_join!(stage.create("reference-1", VOTERS, &plan), stage.create("reference-2", VOTERS, &plan))?;
    let differences = second.outcome.differences(&first.outcome);
    ensure!(differences.is_empty(), "two runs without a fault differ:\n{}", differences.join("\n"));
    println!(
        "without a fault: {} writes, {} objects, {:.0} s",
        first.writes.len(),
        first.outcome.state.len(),
        first.took.as_secs_f64()
    );
    Ok((first.outcome, first.writes))
}

/// A faulty operator that must be caught at a leaf of networks.
struct Proof {
    namespace: &'static str,
    leaf: &'static str,
    plan: Plan,
    /// What is said when it is caught.
    words: &'static str,
}

/// Faulty operators are caught, or nothing that passes would mean anything.
async fn the_checkers_are_proved(stage: &Stage, reference: &Outcome) -> Result<()> {
    let never_deletes = Proof {
        namespace: "proof-keeps",
        leaf: "BlockchainNetwork/networkPolicy.mode",
        plan: Plan { never_deletes: true, ..Plan::default() },
        words: "unlike a fresh object: NetworkPolicy/",
    };
    let omits = Proof {
        namespace: "proof-omits",
        leaf: "BlockchainNetwork/node.priorityClassName",
        plan: Plan { omits: Some("/spec/template/spec/priorityClassName".to_string()), ..Plan::default() },
        words: "the leaf changes nothing anywhere",
    };
    tokio::try_join!(remaking_is_caught(stage, reference), is_caught(stage, &never_deletes), is_caught(stage, &omits))?;
    Ok(())
}

/// An operator that makes anew what exists already is caught when it stops between a creation and its record.
async fn remaking_is_caught(stage: &Stage, reference: &Outcome) -> Result<()> {
    let plan = Plan { stop_after: Some("/persistentvolumeclaims".to_string()), remakes: true, ..Plan::default() };
    let caught = match stage.create("proof", VOTERS, &plan).await {
        Ok(trial) => trial.outcome.differences(reference),
        Err(error) => vec![format!("{error:#}")],
    };
    let remade = caught.iter().find(|difference| difference.contains("PersistentVolumeClaim"));
    let Some(remade) = remade else { bail!("an operator that remakes claims was not caught: {caught:?}") };
    println!("a faulty operator is caught: {remade}");
    Ok(())
}

async fn is_caught(stage: &Stage, proof: &Proof) -> Result<()> {
    let Proof { namespace, leaf, plan, words } = proof;
    let case = althing_e2e::leaves::cases()?.into_iter().find(|case| case.leaf == *leaf);
    let case = case.with_context(|| format!("there is no leaf {leaf}"))?;
    match stage.follow(namespace, &case, plan).await {
        Err(error) if format!("{error:#}").contains(words) => {
            println!("a faulty operator is caught: {leaf} {error:#}");
            Ok(())
        }
        Err(error) => Err(error.context(format!("not caught in these words: {words}"))),
        Ok(()) => bail!("a faulty operator was not caught at {leaf}"),
    }
}

async fn judge(stage: &Stage, reference: &Outcome, case: &Case, number: usize) -> Result<Passed> {
    let (begin, namespace) = (Instant::now(), format!("trial-{number}"));
    let judged = match &case.work {
        Work::Create(plan) => create(stage, reference, plan, &namespace).await,
        Work::Pause => stage.pause(&namespace).await.map(|()| true),
        Work::Upgrade => stage.upgrade(&namespace).await.map(|()| true),
        Work::Rename => stage.rename(&namespace).await.map(|()| true),
        Work::Leaf(leaf) => match leaf.shall {
            Shall::BeFollowed { .. } => stage.follow(&namespace, leaf, &Plan::default()).await.map(|()| true),
            Shall::BeKept(_) | Shall::BeRefused(_) => stage.keep(REFUSALS, &namespace, leaf).await.map(|()| true),
        },
    };
    let log = stage.log(&namespace);
    let judged = if log.exists() { judged.with_context(|| format!("see {}", log.display())) } else { judged };
    Ok(Passed { has_fired: judged?, took: begin.elapsed() })
}

/// Whether the fault came to pass.
async fn create(stage: &Stage, reference: &Outcome, plan: &Plan, namespace: &str) -> Result<bool> {
    let trial = stage.create(namespace, VOTERS, plan).await;
    let trial = trial.with_context(|| format!("plan {}", serde_json::to_string(plan).unwrap_or_default()))?;
    let differences = trial.outcome.differences(reference);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(trial.has_fired)
}

/// The cases of this run.
fn select(writes: u64) -> Result<Vec<Case>> {
    let stops = cases::stops(writes);
    let others = cases::others(writes);
    let (followed, kept) = cases::leaves()?;
    if let Ok(wanted) = std::env::var("ALTHING_FAULTS_CASE") {
        let all = stops.into_iter().chain(others).chain(followed).chain(kept).chain(cases::scenes());
        let selected: Vec<Case> = all.filter(|case| case.name.contains(&wanted)).collect();
        ensure!(!selected.is_empty(), "no case has {wanted} in its name");
        return Ok(selected);
    }
    if std::env::var_os("ALTHING_CAMPAIGN").is_some() {
        return Ok(stops.into_iter().chain(others).chain(followed).chain(kept).chain(cases::scenes()).collect());
    }
    let seed = match std::env::var("ALTHING_FAULTS_SEED") {
        Ok(text) => text.parse().context("ALTHING_FAULTS_SEED is a number")?,
        Err(_) => cases::seed_of_today(),
    };
    println!(
        "sample of {SAMPLE} of {} other faults and {SAMPLE_LEAVES} of {} leaves, seed {seed} (ALTHING_FAULTS_SEED={seed} \
         repeats it)",
        others.len(),
        followed.len()
    );
    // The longest first.
    let mut selected = cases::sample(followed, SAMPLE_LEAVES, seed);
    selected.extend(cases::scenes());
    selected.extend(stops);
    selected.extend(cases::sample(others, SAMPLE, seed));
    selected.extend(kept);
    Ok(selected)
}

/// How many cases of each sort passed.
pub type Tally = BTreeMap<String, usize>;
