//! `bench-operator`: what the operator costs at 1,000 ValidatorNodes, measured on an API server without kubelets with
//! the stand-in answering for every node. Writes `target/bench/operator.json`; `BENCH_GROUPS` sets another size,
//! `BENCH_PROFILE=ci` takes the programs that the tests use, `BENCH_REST_S` rests for another time than 180 s.

mod floor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use althing_crds::names;
use althing_e2e::environment::{Environment, Profile};
use althing_e2e::network::{condition, eventually, kind_api};
use althing_e2e::stand_in::{Options, StandIn};
use althing_e2e::trial::{LEASE, Operator, Stage, Start, manifest};
use anyhow::{Context, Result, ensure};
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, interval};

const NAMESPACE: &str = "bench";
const VOTERS: u32 = 4;
const CHANGES: usize = 100;
/// As whom the operator comes, so that the audit log tells it apart.
const USER: &str = "bench-operator";
const FIRST_ADDRESS: &str = "127.0.0.1:18081";
const SECOND_ADDRESS: &str = "127.0.0.1:18082";

#[tokio::main]
async fn main() -> Result<()> {
    let groups: u32 = std::env::var("BENCH_GROUPS").ok().map_or(Ok(250), |text| text.parse())?;
    let is_ci = std::env::var("BENCH_PROFILE").is_ok_and(|name| name == "ci");
    let profile = if is_ci { Profile::Ci } else { Profile::Release };
    let environment = Environment::api_server(profile).await?;
    let outcome = tokio::select! {
        outcome = measure(&environment, groups) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    environment.cluster(&["down"]).await.context("failed to take the cluster down")?;
    let mut report = outcome?;
    report.insert("profile".to_string(), json!(if is_ci { "ci" } else { "release" }));
    let folder = environment.root.join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(folder.join("operator.json"), &text)?;
    println!("{text}");
    Ok(())
}

struct Bench {
    stage: Stage,
    groups: u32,
    rest: Duration,
    kubeconfig: PathBuf,
    audit: PathBuf,
    logs: PathBuf,
}

async fn measure(environment: &Environment, groups: u32) -> Result<Map<String, Value>> {
    let stage = Stage::without_ledger(environment.clone()).await?;
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::<Namespace>::all(stage.client.clone()).create(&PostParams::default(), &namespace).await?;
    let stand_in = StandIn::start(&stage.client, Options { block_interval: Duration::from_secs(1) });
    let logs = environment.root.join("target/bench");
    std::fs::create_dir_all(&logs)?;
    let bench = Bench {
        kubeconfig: impersonating(environment)?,
        audit: environment.root.join(".cluster/log/audit.log"),
        logs,
        stage,
        groups,
        rest: Duration::from_secs(std::env::var("BENCH_REST_S").ok().map_or(Ok(180), |text| text.parse())?),
    };
    let mut operator = bench.start("first.log", FIRST_ADDRESS).await?;
    bench.wait_leader(FIRST_ADDRESS).await?;
    let rss_empty = rss_max_mib(&operator)?;
    let created = bench.create().await?;
    let rest = bench.rest(&operator).await?;
    let changes = bench.change().await?;
    let rss_max = rss_max_mib(&operator)?;
    operator.stop().await?;
    bench.free_lease().await?;
    let (restarted, restart_s) = bench.restart().await?;
    operator = restarted;
    let failover = bench.fail_over(operator).await?;
    stand_in.stop().await;
    let floor = floor::measure(&bench.stage.client, NAMESPACE).await?;
    let own = json!({
        "validator_nodes": groups * VOTERS,
        "rss_empty_mib": rss_empty,
        "rss_max_mib": rss_max,
        "restart_s": restart_s,
    });
    let parts = [own, created, rest, changes, failover, floor];
    let fields = parts.iter().filter_map(Value::as_object).flatten();
    Ok(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A kubeconfig that comes as another user with all rights.
fn impersonating(environment: &Environment) -> Result<PathBuf> {
    let text = std::fs::read_to_string(&environment.kubeconfig)?;
    let mut config: Value = serde_yaml::from_str(&text)?;
    for user in config.pointer_mut("/users").and_then(Value::as_array_mut).context("a kubeconfig has users")? {
        let user = user.get_mut("user").and_then(Value::as_object_mut).context("a user has an entry")?;
        user.insert("as".to_string(), json!(USER));
        user.insert("as-groups".to_string(), json!(["system:masters"]));
    }
    let path = environment.root.join("target/bench-kubeconfig");
    std::fs::write(&path, serde_yaml::to_string(&config)?)?;
    Ok(path)
}

impl Bench {
    async fn start(&self, log: &str, http_address: &str) -> Result<Operator> {
        let log = self.logs.join(log);
        let _ = std::fs::remove_file(&log);
        let start = Start {
            namespace: NAMESPACE,
            plan: None,
            log: &log,
            pauses_percent: 100,
            lease_name: LEASE,
            lease_seconds: None,
            http_address,
            node_image: None,
            log_level: "info",
            kubeconfig: Some(&self.kubeconfig),
        };
        Operator::start(&self.stage.environment, &start).await
    }

    async fn wait_leader(&self, address: &str) -> Result<()> {
        eventually("the operator leads", 60, || async {
            ensure!(metric(&metrics(address).await?, "althing_operator_leader") == 1.0, "it does not");
            Ok(())
        })
        .await
    }

    /// Applies all networks at once; until every child exists, and until every chain is available.
    async fn create(&self) -> Result<Value> {
        let before = self.requests()?;
        let begin = Instant::now();
        let api = kind_api(self.stage.client.clone(), NAMESPACE, "BlockchainNetwork");
        let applied = futures::stream::iter(0..self.groups).map(|number| {
            let api = api.clone();
            async move {
                let object = serde_yaml::from_str(&manifest(&format!("n{number}"), VOTERS))?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        });
        applied.buffer_unordered(16).collect::<Vec<Result<()>>>().await.into_iter().collect::<Result<()>>()?;
        let applied_s = begin.elapsed().as_secs_f64();
        let wanted = usize::try_from(self.groups * VOTERS)?;
        let sets: Api<PartialObjectMeta<StatefulSet>> = Api::namespaced(self.stage.client.clone(), NAMESPACE);
        // Watched, not listed: a measurement that asks for a thousand objects again and again is part of the load.
        let seen = watcher(sets, watcher::Config::default()).default_backoff().touched_objects();
        all_of(wanted, seen, |_| true).await.context("every StatefulSet exists")?;
        let bulk_create_s = begin.elapsed().as_secs_f64();
        println!("{wanted} StatefulSets after {bulk_create_s:.1} s (all networks applied after {applied_s:.1} s)");
        self.wait_available().await?;
        let available_s = begin.elapsed().as_secs_f64();
        println!("every chain is available after {available_s:.1} s");
        let requests = since(&before, &self.requests()?);
        Ok(json!({
            "bulk_create_s": round(bulk_create_s),
            "bulk_available_s": round(available_s),
            "api_calls_per_node_created": round(total(&requests, |_| true) as f64 / wanted as f64),
            "api_calls_per_node_created_by_request": each(&requests, wanted),
        }))
    }

    async fn wait_available(&self) -> Result<()> {
        let groups = kind_api(self.stage.client.clone(), NAMESPACE, "ConsensusGroup");
        let seen = watcher(groups, watcher::Config::default()).default_backoff().touched_objects();
        let is_ready = |group: &DynamicObject| condition(group, "Ready").status == "True";
        all_of(usize::try_from(self.groups)?, seen, is_ready).await.context("every group is Ready")
    }

    /// Writes while nothing is asked of it.
    async fn rest(&self, operator: &Operator) -> Result<Value> {
        // What the creation set in motion comes to its end.
        pause(Duration::from_secs(30)).await;
        let before = self.requests()?;
        let cpu = cpu_seconds(operator)?;
        pause(self.rest).await;
        let requests = since(&before, &self.requests()?);
        let minutes = self.rest.as_secs_f64() / 60.0;
        let refresh = total(&requests, |sort| matches!(sort, Sort::Status));
        let writes = total(&requests, |sort| matches!(sort, Sort::Write));
        let reads = total(&requests, |sort| matches!(sort, Sort::Read));
        Ok(json!({
            "writes_per_minute_at_rest": round(writes as f64 / minutes),
            "refresh_writes_per_minute": round(refresh as f64 / minutes),
            "reads_per_minute_at_rest": round(reads as f64 / minutes),
            "requests_per_minute_at_rest_by_request": each(&requests, self.rest.as_secs() as usize / 60),
            "cpu_cores_at_rest": round((cpu_seconds(operator)? - cpu) / self.rest.as_secs_f64()),
        }))
    }

    /// From a change of a network's spec until all four policies of its nodes are changed.
    async fn change(&self) -> Result<Value> {
        let client = self.stage.client.clone();
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), NAMESPACE);
        let mut seen = watcher(policies, watcher::Config::default()).default_backoff().touched_objects().boxed();
        let networks = kind_api(client, NAMESPACE, "BlockchainNetwork");
        let mut times: Vec<f64> = Vec::new();
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for change in 0..CHANGES {
            let name = format!("n{}", (change * 37) % usize::try_from(self.groups)?);
            let range = format!("10.{}.{}.0/24", change % 250, change / 250 + 1);
            let patch = json!({ "spec": { "networkPolicy": { "clientCidrs": [range] } } });
            let before = self.requests()?;
            let begin = Instant::now();
            networks.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            let mut missing: Vec<String> =
                (0..VOTERS).map(|number| names::node(&names::group(&name, "main"), number)).collect();
            let changed = async {
                while !missing.is_empty() {
                    let policy = seen.next().await.context("the watch ended")??;
                    if serde_json::to_string(&policy.spec)?.contains(&range) {
                        missing.retain(|name| *name != policy.name_any());
                    }
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(Duration::from_secs(120), changed).await.context("the change did not arrive")??;
            times.push(begin.elapsed().as_secs_f64() * 1_000.0);
            pause(Duration::from_millis(400)).await;
            let requests = since(&before, &self.requests()?);
            for (request, count) in requests {
                *all.entry(request).or_default() += count;
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get((times.len() - 1) * part / 100).copied().unwrap_or_default();
        Ok(json!({
            "change_to_children_p50_ms": round(at(50)),
            "change_to_children_p99_ms": round(at(99)),
            "api_calls_per_change": round(total(&all, |sort| matches!(sort, Sort::Write)) as f64 / CHANGES as f64),
            "api_calls_per_change_by_request": each(&all, CHANGES),
        }))
    }

    /// From the start of a process until it has reconciled as many objects of each kind as there are.
    async fn restart(&self) -> Result<(Operator, Value)> {
        let begin = Instant::now();
        let operator = self.start("restarted.log", FIRST_ADDRESS).await?;
        let wanted = [("BlockchainNetwork", self.groups), ("ConsensusGroup", self.groups)];
        let wanted = wanted.into_iter().chain([("ValidatorNode", self.groups * VOTERS)]);
        let wanted: Vec<(&str, u32)> = wanted.collect();
        eventually("everything is reconciled", 300, || async {
            let text = metrics(FIRST_ADDRESS).await?;
            for (kind, count) in &wanted {
                let done =
                    metric(&text, &format!("althing_operator_reconciles_total{{kind=\"{kind}\",result=\"ok\"}}"));
                ensure!(done >= f64::from(*count), "{kind}: {done} of {count}");
            }
            Ok(())
        })
        .await?;
        Ok((operator, round(begin.elapsed().as_secs_f64())))
    }

    /// A standby takes over after the leader was killed: from the kill until a deleted child is back.
    async fn fail_over(&self, leader: Operator) -> Result<Value> {
        let standby = self.start("standby.log", SECOND_ADDRESS).await?;
        pause(Duration::from_secs(8)).await;
        let services: Api<Service> = Api::namespaced(self.stage.client.clone(), NAMESPACE);
        let name = "n0-main-0-rpc";
        let before = services.get(name).await?.uid();
        let begin = Instant::now();
        leader.stop().await?;
        services.delete(name, &DeleteParams::default()).await?;
        self.wait_leader(SECOND_ADDRESS).await?;
        let failover_s = begin.elapsed().as_secs_f64();
        eventually("the child is back", 120, || async {
            let found = services.get_opt(name).await?;
            ensure!(found.is_some_and(|service| service.uid() != before), "it is not");
            Ok(())
        })
        .await?;
        let child_s = begin.elapsed().as_secs_f64();
        standby.stop().await?;
        Ok(json!({ "failover_s": round(failover_s), "failover_child_s": round(child_s) }))
    }

    async fn free_lease(&self) -> Result<()> {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(self.stage.client.clone(), NAMESPACE);
        leases.delete(LEASE, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Requests of the operator so far by verb, from the audit log; watches and the lease are left out.
    fn requests(&self) -> Result<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        let folder = self.audit.parent().context("the log lies in a folder")?;
        let mut logs: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit")));
        for log in logs {
            count(&log, &mut found)?;
        }
        Ok(found)
    }
}

fn count(log: &Path, found: &mut BTreeMap<String, u64>) -> Result<()> {
    use std::io::BufRead;
    let file = std::fs::File::open(log).with_context(|| format!("failed to read {}", log.display()))?;
    for line in std::io::BufReader::new(file).lines() {
        let line = line?;
        if !line.contains(USER) || line.contains("\"verb\":\"watch\"") || line.contains("\"resource\":\"leases\"") {
            continue;
        }
        let Some(verb) = field(&line, "verb") else { continue };
        let resource = field(&line, "resource").unwrap_or("?");
        let request = match field(&line, "subresource") {
            Some(part) => format!("{verb} {resource}/{part}"),
            None => format!("{verb} {resource}"),
        };
        *found.entry(request).or_default() += 1;
    }
    Ok(())
}

/// Waits until so many objects, each by its name, are as they shall be.
async fn all_of<K: ResourceExt>(
    wanted: usize,
    seen: impl Stream<Item = Result<K, watcher::Error>>,
    is_so: impl Fn(&K) -> bool,
) -> Result<()> {
    let (mut seen, mut names) = (std::pin::pin!(seen), BTreeSet::new());
    let all = async {
        while names.len() < wanted {
            // What a watch says when it ends is mended by the next one.
            let Ok(object) = seen.next().await.context("the watch ended")? else { continue };
            if is_so(&object) {
                names.insert(object.name_any());
            } else {
                names.remove(&object.name_any());
            }
        }
        anyhow::Ok(())
    };
    let all = tokio::time::timeout(Duration::from_secs(900), all).await;
    all.with_context(|| format!("{} of {wanted} after 900 s", names.len()))?
}

/// The text of a field of one line of the audit log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(&format!("\"{name}\":\"")).nth(1)?.split('"').next()
}

fn since(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = after.iter().map(|(verb, count)| (verb.clone(), count - before.get(verb).copied().unwrap_or(0)));
    grown.filter(|(_, count)| *count > 0).collect()
}

/// A kind of request, by verb and resource.
#[derive(Clone, Copy)]
enum Sort {
    Read,
    Status,
    Event,
    Write,
}

fn sort_of(request: &str) -> Sort {
    match request.split_once(' ').unwrap_or((request, "")) {
        ("get" | "list", _) => Sort::Read,
        (_, "events") => Sort::Event,
        (_, resource) if resource.ends_with("/status") => Sort::Status,
        _ => Sort::Write,
    }
}

/// The sum over all requests of these sorts.
fn total(requests: &BTreeMap<String, u64>, keep: impl Fn(Sort) -> bool) -> u64 {
    requests.iter().filter(|(request, _)| keep(sort_of(request))).map(|(_, count)| count).sum()
}

/// Requests for each of `count` things, the most frequent first.
fn each(requests: &BTreeMap<String, u64>, count: usize) -> Value {
    let mut sorted: Vec<(&String, &u64)> = requests.iter().collect();
    sorted.sort_by(|left, right| right.1.cmp(left.1));
    let lines = sorted.into_iter().map(|(request, times)| {
        let times = (*times as f64 * 100.0 / count as f64).round() / 100.0;
        json!(format!("{times} {request}"))
    });
    lines.collect()
}

fn round(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

async fn pause(time: Duration) {
    let mut pace = interval(time);
    pace.tick().await;
    pace.tick().await;
}

async fn metrics(address: &str) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// The value of a line of Prometheus' text format; 0 when it is not there.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

fn rss_max_mib(operator: &Operator) -> Result<Value> {
    let id = operator.id().context("the operator runs")?;
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the system says it")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(round(kib / 1_024.0))
}

/// Processor time that it took so far.
fn cpu_seconds(operator: &Operator) -> Result<f64> {
    let id = operator.id().context("the operator runs")?;
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
