//! Faults between the operator and the API server: every case must end in the state of a run without a fault, with as
//! many creations and deletions, and then be quiet.
//!
//! `cargo test -p althing-e2e --test faults` runs a stop after every write of the create scenario and a sample of the
//! other faults; ALTHING_FAULTS_SEED repeats a sample, ALTHING_FAULTS_CASE runs the cases whose name contains it,
//! ALTHING_CAMPAIGN=1 runs all and goes on where it was interrupted (target/campaign.json).

#[path = "faults/cases.rs"]
mod cases;
#[path = "faults/progress.rs"]
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use althing_e2e::environment::{Environment, Profile};
use althing_e2e::stand_in::{Options, StandIn};
use althing_e2e::trial::{Outcome, Stage, Trial};
use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use cases::Case;
use futures::StreamExt;
use progress::Progress;
use tokio::sync::Mutex;

/// Voters of the scenario.
const VOTERS: u32 = 4;
/// Trials at the same time.
const PARALLEL: usize = 6;
/// Cases beside the stops, outside the campaign.
const SAMPLE: usize = 18;
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
    stage.prepare().await?;
    let options = Options { block_interval: Duration::from_millis(200) };
    let stand_in = StandIn::start(&stage.client, options);
    let (reference, writes) = reference(&stage).await?;
    the_checker_is_proved(&stage, &reference).await?;
    let selected = select(writes.len() as u64)?;
    let progress = Progress::read(&stage.environment.root)?;
    let selected: Vec<Case> = selected.into_iter().filter(|case| !progress.has_passed(&case.name)).collect();
    println!("running {} cases, {PARALLEL} at a time", selected.len());
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
                    Ok(trial) => format!("ok ({:.0} s{})", trial.took.as_secs_f64(), unfired(trial)),
                    Err(error) => format!("FAILED\n{error:#}\nrepeat: make faults CASE='{}'", case.name),
                };
                println!("case {} ... {outcome}", case.name);
                let kept = progress.lock().await.record(&case.name, &judged.as_ref().map(|trial| trial.has_fired));
                if let Err(error) = kept {
                    eprintln!("faults: {error:#}");
                }
                judged.err().map(|_| case.name)
            }
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    stand_in.stop().await;
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    println!("{} in {} s", progress.lock().await.summary(), begin.elapsed().as_secs());
    ensure!(failed.is_empty(), "{} cases failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

fn unfired(trial: &Trial) -> &'static str {
    if trial.has_fired { "" } else { ", the fault did not come to pass" }
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

/// An operator that makes anew what exists already is caught when it stops between a creation and its record.
async fn the_checker_is_proved(stage: &Stage, reference: &Outcome) -> Result<()> {
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

async fn judge(stage: &Stage, reference: &Outcome, case: &Case, number: usize) -> Result<Trial> {
    let namespace = format!("trial-{number}");
    let trial = stage.create(&namespace, VOTERS, &case.plan).await;
    let trial = trial.with_context(|| format!("plan {}", serde_json::to_string(&case.plan).unwrap_or_default()));
    let trial = trial.with_context(|| format!("see {}", stage.log(&namespace).display()))?;
    let differences = trial.outcome.differences(reference);
    if differences.is_empty() {
        return Ok(trial);
    }
    bail!("{}\nsee {}", differences.join("\n"), stage.log(&namespace).display())
}

/// The cases of this run.
fn select(writes: u64) -> Result<Vec<Case>> {
    let mut stops = cases::stops(writes);
    let others = cases::others(writes);
    if let Ok(wanted) = std::env::var("ALTHING_FAULTS_CASE") {
        let selected: Vec<Case> = stops.into_iter().chain(others).filter(|case| case.name.contains(&wanted)).collect();
        ensure!(!selected.is_empty(), "no case has {wanted} in its name");
        return Ok(selected);
    }
    if std::env::var_os("ALTHING_CAMPAIGN").is_some() {
        stops.extend(others);
        return Ok(stops);
    }
    let seed = match std::env::var("ALTHING_FAULTS_SEED") {
        Ok(text) => text.parse().context("ALTHING_FAULTS_SEED is a number")?,
        Err(_) => cases::seed_of_today(),
    };
    println!("sample of {SAMPLE} of {} other cases, seed {seed} (ALTHING_FAULTS_SEED={seed} repeats it)", others.len());
    stops.extend(cases::sample(others, SAMPLE, seed));
    Ok(stops)
}

/// How many cases of each sort passed.
pub type Tally = BTreeMap<String, usize>;
