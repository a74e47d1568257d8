//! Faults between the operator and the API server, while a network is made, its voters are restarted one after the other or
//! become others, or its certificate authority is replaced: every case must end in the state of a run without a fault, with
//! as many creations and deletions, and then be quiet. Leaves of specs: set, changed and unset on a running object, each
//! must end in the state of an object that was made so, and then be quiet.
//!
//! `cargo test -p althing-e2e --test faults` runs a stop after every write of the create scenario and a sample of the
//! other scenarios, of the other faults and of the leaves; ALTHING_FAULTS_SEED repeats a sample, ALTHING_FAULTS_CASE runs the cases whose name
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
use althing_e2e::stand_in::{Options, StandIn, Witness};
use althing_e2e::trial::{Change, Outcome, Stage, Trial};
use althing_operator::faults::{EventFault, EventFaultKind, Plan};
use anyhow::{Context, Result, bail, ensure};
use cases::{Case, Extent, Scenario, Work};
use futures::StreamExt;
use progress::Progress;
use tokio::sync::Mutex;

/// Voters of the scenario.
const VOTERS: u32 = 4;
/// Cases of a campaign on one API server: what they leave makes each request dearer, as that for an address, which reads all
/// Services.
const CASES_MAX: usize = 700;
/// Trials at the same time, unless another number is asked for.
const PARALLEL: usize = 6;
/// Cases beside the stops, outside the campaign.
const SAMPLE: usize = 18;
/// Outside the campaign each stop during a change of a running network has its turn once in so many days.
const STOPS_DAYS: u64 = 14;
/// Other faults during each change, outside the campaign.
const SAMPLE_CHANGES: usize = 2;
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
    let mut failed = Vec::new();
    loop {
        let environment = Environment::api_server(Profile::Ci).await?;
        let outcome = tokio::select! {
            outcome = run_some(&environment, &mut failed) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        environment.cluster(&["down"]).await.context("failed to take the cluster down")?;
        if outcome? == Left::Nothing {
            break;
        }
    }
    ensure!(failed.is_empty(), "{} cases failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// What is still to be run.
#[derive(PartialEq, Eq)]
enum Left {
    Nothing,
    More,
}

/// Runs what is left, of a campaign as much as one API server shall bear, and adds what failed.
async fn run_some(environment: &Environment, failed: &mut Vec<String>) -> Result<Left> {
    let begin = Instant::now();
    let stage = Stage::new(environment.clone()).await?;
    let options = Options { block_interval: Duration::from_millis(200) };
    let stand_in = StandIn::start(&stage.client, options);
    let trials = Trials { stage, witness: stand_in.witness().clone() };
    trials.stage.make_namespace(REFUSALS).await?;
    let references = references(&trials).await?;
    the_checkers_are_proved(&trials, references.of(Scenario::Create)?).await?;
    let selected = select(&references)?;
    let progress = Progress::read(&trials.stage.environment.root)?;
    let is_left = |case: &Case| !progress.has_passed(&case.name) && !failed.contains(&case.name);
    let mut selected: Vec<Case> = selected.into_iter().filter(is_left).collect();
    let left = if progress.is_campaign() && selected.len() > CASES_MAX { Left::More } else { Left::Nothing };
    if left == Left::More {
        selected.truncate(CASES_MAX);
    }
    let parallel = parallel()?;
    println!("running {} cases, {parallel} at a time", selected.len());
    let progress = Arc::new(Mutex::new(progress));
    let outcomes: Vec<Option<String>> = futures::stream::iter(selected.into_iter().enumerate())
        .map(|(number, case)| {
            let (trials, references, progress) = (&trials, &references, Arc::clone(&progress));
            async move {
                if case.may_be_left_out && begin.elapsed() > SAMPLE_TIME_MAX {
                    println!("case {} ... left out, the time is over", case.name);
                    return None;
                }
                let judged = judge(trials, references, &case, number).await;
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
    failed.extend(outcomes.into_iter().flatten());
    println!("{} in {} s", progress.lock().await.summary(), begin.elapsed().as_secs());
    Ok(left)
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

/// Where trials are made, and who looks on.
struct Trials {
    stage: Stage,
    witness: Witness,
}

impl Trials {
    async fn run(&self, scenario: Scenario, namespace: &str, plan: &Plan) -> Result<Trial> {
        match scenario {
            Scenario::Create => self.stage.create(namespace, VOTERS, plan).await,
            Scenario::Change(change) => self.stage.change(change, namespace, plan, &self.witness).await,
        }
    }
}

/// What comes of a scenario without a fault, and how much of it there is.
struct Reference {
    extent: Extent,
    outcome: Outcome,
}

/// Of every scenario.
struct References(Vec<Reference>);

impl References {
    fn of(&self, scenario: Scenario) -> Result<&Reference> {
        let found = self.0.iter().find(|reference| reference.extent.scenario == scenario);
        found.with_context(|| format!("there is no run of {} without a fault", scenario.word()))
    }
}

async fn references(trials: &Trials) -> Result<References> {
    let changes = Change::ALL.map(|change| reference(trials, Scenario::Change(change)));
    let changes = futures::future::try_join_all(changes);
    let (create, mut all) = tokio::try_join!(reference(trials, Scenario::Create), changes)?;
    all.push(create);
    Ok(References(all))
}

/// Two runs without a fault are equal, or no difference would mean anything.
async fn reference(trials: &Trials, scenario: Scenario) -> Result<Reference> {
    // Events are counted where one could be changed; none is the last one.
    let events = Some(EventFault { at: u64::MAX, kind: EventFaultKind::Drop });
    let plan = Plan { events, ..Plan::default() };
    let [one, another] = [1, 2].map(|number| format!("reference-{}-{number}", scenario.word()));
    let (first, second) = tokio::try_join!(trials.run(scenario, &one, &plan), trials.run(scenario, &another, &plan))?;
    let differences = second.outcome.differences(&first.outcome);
    ensure!(differences.is_empty(), "two runs without a fault differ:\n{}", differences.join("\n"));
    let extent = Extent { scenario, writes: first.writes.len() as u64, events: first.events };
    println!(
        "without a fault: {} with {} writes, {} events, {} objects, {:.0} s",
        scenario.word(),
        extent.writes,
        extent.events,
        first.outcome.state.len(),
        first.took.as_secs_f64()
    );
    Ok(Reference { extent, outcome: first.outcome })
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
async fn the_checkers_are_proved(trials: &Trials, create: &Reference) -> Result<()> {
    let stage = &trials.stage;
    let another = Plan { evicts_another: true, ..Plan::default() };
    let early = Plan { signs_at_once: true, ..Plan::default() };
    let again = Plan { proposes_again: true, ..Plan::default() };
    let hasty = Plan { votes_in_early: true, ..Plan::default() };
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
    tokio::try_join!(
        remaking_is_caught(stage, &create.outcome),
        is_caught(stage, &never_deletes),
        is_caught(stage, &omits),
        taking_over_is_caught(stage),
        is_seen(trials, Change::Roll, &another, &["the pods of voters", "2 voters do not sign"]),
        is_seen(trials, Change::Rollover, &early, &["trust the operator", "trust the client", "trust alpha-main-"]),
        is_seen(trials, Change::Shrink, &again, &["two changes of voters are under way at once"]),
        is_seen(trials, Change::Replace, &hasty, &["voter 4 was voted in before it had the last blocks"]),
    )?;
    Ok(())
}

/// An operator that applies whatever has the name of a child is caught at objects of somebody else.
async fn taking_over_is_caught(stage: &Stage) -> Result<()> {
    let plan = Plan { omits: Some("/metadata/resourceVersion".to_string()), ..Plan::default() };
    match stage.taken("proof-takes", &plan).await {
        Err(error) if format!("{error:#}").contains("is somebody else's and was changed") => {
            println!("a faulty operator is caught: {error:#}");
            Ok(())
        }
        Err(error) => Err(error.context("not caught as one that takes over")),
        Ok(()) => bail!("an operator that takes over what is somebody else's was not caught"),
    }
}

/// The witness sees, in these words, what an operator with this plan does during a change.
async fn is_seen(trials: &Trials, change: Change, plan: &Plan, words: &[&str]) -> Result<()> {
    let namespace = format!("proof-{}", change.word());
    match trials.run(Scenario::Change(change), &namespace, plan).await {
        Err(error) if words.iter().all(|word| format!("{error:#}").contains(word)) => {
            println!("a faulty operator is caught: {} {error:#}", change.word());
            Ok(())
        }
        Err(error) => Err(error.context(format!("not caught in these words: {words:?}"))),
        Ok(_) => bail!("a faulty operator was not caught during {}", change.word()),
    }
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

async fn judge(trials: &Trials, references: &References, case: &Case, number: usize) -> Result<Passed> {
    let (begin, namespace, stage) = (Instant::now(), format!("trial-{number}"), &trials.stage);
    let judged = match &case.work {
        Work::Scenario(scenario, plan) => {
            let reference = references.of(*scenario)?;
            compared(trials, reference, plan, &namespace).await
        }
        Work::Pause => stage.pause(&namespace).await.map(|()| true),
        Work::Mixture => stage.mixture(&namespace, &trials.witness).await.map(|()| true),
        Work::Upgrade => stage.upgrade(&namespace).await.map(|()| true),
        Work::Rename => stage.rename(&namespace).await.map(|()| true),
        Work::Taken => stage.taken(&namespace, &Plan::default()).await.map(|()| true),
        Work::Installations => stage.installations(&namespace, &trials.witness).await.map(|()| true),
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
async fn compared(trials: &Trials, reference: &Reference, plan: &Plan, namespace: &str) -> Result<bool> {
    let trial = trials.run(reference.extent.scenario, namespace, plan).await;
    let trial = trial.with_context(|| format!("plan {}", serde_json::to_string(plan).unwrap_or_default()))?;
    let differences = trial.outcome.differences(&reference.outcome);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(trial.has_fired)
}

/// The cases of this run.
fn select(references: &References) -> Result<Vec<Case>> {
    let create = &references.of(Scenario::Create)?.extent;
    let (stops, others) = (cases::stops(create), cases::others(create));
    let changes: Vec<(Vec<Case>, Vec<Case>)> = Change::ALL
        .into_iter()
        .map(|change| {
            let extent = &references.of(Scenario::Change(change))?.extent;
            Ok((cases::stops(extent), cases::others(extent)))
        })
        .collect::<Result<_>>()?;
    let (followed, kept) = cases::leaves()?;
    let all = || {
        let changes = changes.iter().flat_map(|(stops, others)| stops.iter().chain(others));
        let all = stops.iter().chain(&others).chain(changes).chain(&followed).chain(&kept).cloned();
        all.chain(cases::scenes())
    };
    if let Ok(wanted) = std::env::var("ALTHING_FAULTS_CASE") {
        let selected: Vec<Case> = all().filter(|case| case.name.contains(&wanted)).collect();
        ensure!(!selected.is_empty(), "no case has {wanted} in its name");
        return Ok(selected);
    }
    if std::env::var_os("ALTHING_CAMPAIGN").is_some() {
        return Ok(all().collect());
    }
    let seed = match std::env::var("ALTHING_FAULTS_SEED") {
        Ok(text) => text.parse().context("ALTHING_FAULTS_SEED is a number")?,
        Err(_) => cases::seed_of_today(),
    };
    println!(
        "sample of {SAMPLE} of {} other faults, {SAMPLE_LEAVES} of {} leaves, one in {STOPS_DAYS} stops and \
         {SAMPLE_CHANGES} other faults of each change, seed {seed} (ALTHING_FAULTS_SEED={seed} repeats it)",
        others.len(),
        followed.len()
    );
    // The longest first.
    let mut selected = cases::sample(followed, SAMPLE_LEAVES, seed);
    selected.extend(cases::scenes());
    for (stops, others) in changes {
        selected.extend(cases::in_turn(stops, STOPS_DAYS, seed));
        selected.extend(cases::sample(others, SAMPLE_CHANGES, seed));
    }
    selected.extend(stops);
    selected.extend(cases::sample(others, SAMPLE, seed));
    selected.extend(kept);
    Ok(selected)
}

/// How many cases of each sort passed.
pub type Tally = BTreeMap<String, usize>;
