//! Watches a network during a case: every finalised block of every node, every vote any node received, who is silent,
//! whose pods are away, and what was acknowledged; at the end it reads the blocks once more from every node, then blocks and
//! signing logs from the volumes, also of voters that left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use althing_crds::names;
use anyhow::{Context, Result, bail, ensure};
use node_api::client::Client;
use node_api::proto::vote_event::Event;
use node_api::proto::{self, VoteKind};
use node_core::codec::Decode;
use node_core::crypto::KeyPair;
use node_core::types::{Block, Height};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::attendance::Attendance;
use crate::dial::Access;
use crate::invariants::{Counts, Observations, SignedMessage, Step};
use crate::load::Finalised;
use crate::network::{Network, eventually};
use crate::roll::{Roll, roll_of};
use crate::volumes;

/// A voter without a precommit in so many newest heights is silent,
const SILENT_AFTER_HEIGHTS: u64 = 10;
/// if they took this long at least: under load a chain makes as many within a second.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// How long the API server may take to list the pods.
const LISTED_MAX: Duration = Duration::from_secs(60);

/// The watcher of one network.
pub struct Watch {
    network: Network,
    access: Access,
    seen: Arc<Mutex<Observations>>,
    attendance: Arc<Mutex<Attendance>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Watch {
    /// Starts watching; ends with [`Watch::report`].
    ///
    /// # Errors
    /// When the network's authority or its pods cannot be read.
    pub async fn start(network: &Network) -> Result<Self> {
        let access = Access::operator(network).await?;
        let mut watch = Self {
            network: network.clone(),
            access,
            seen: Arc::default(),
            attendance: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let (listed, is_listed) = oneshot::channel();
        let follower = watch.follower(network, &watch.access, String::new());
        let roll = Roll { follower, attendance: watch.attendance.clone(), listed: Some(listed) };
        watch.tasks.spawn(roll.call());
        timeout(LISTED_MAX, is_listed).await.context("the pods are not listed")??;
        watch.sample_silence();
        Ok(watch)
    }

    /// Also takes what the nodes of another network show, such as one that was restored from this one: for the rules the
    /// two are one chain.
    ///
    /// # Errors
    /// When its authority or its pods cannot be read.
    pub async fn also_follow(&mut self, network: &Network) -> Result<()> {
        let access = Access::operator(network).await?;
        for voter in network.voters().await? {
            let follower = self.follower(network, &access, format!("{}/", network.namespace));
            self.tasks.spawn(follower.follow(voter.node));
        }
        Ok(())
    }

    /// As whom it looks. Renewed, it goes on through a change of the network's authority.
    pub fn access(&self) -> &Access {
        &self.access
    }

    fn follower(&self, network: &Network, access: &Access, prefix: String) -> Follower {
        let (network, access) = (network.clone(), access.clone());
        Follower { network, access, prefix, seen: self.seen.clone(), stop: self.stop.clone() }
    }

    fn sample_silence(&mut self) {
        let (network, access) = (self.network.clone(), self.access.clone());
        let (seen, stop) = (self.seen.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let mut pace = interval(Duration::from_secs(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! { _ = pace.tick() => {}, () = stop.cancelled() => return }
                if let Ok(Some(silent)) = silent_voters(&network, &access).await {
                    lock(&seen).silent(silent);
                }
            }
        });
    }

    /// Tells the watcher what a client was told.
    pub fn acknowledged(&self, finalised: &[Finalised]) {
        let mut seen = lock(&self.seen);
        for transaction in finalised {
            seen.acknowledged(&transaction.id, transaction.height);
        }
    }

    /// The newest height that one of the voters shows; what this watch has seen may be far behind when it has just begun.
    ///
    /// # Errors
    /// When none answers for long.
    pub async fn chain_height(&self) -> Result<u64> {
        eventually("a voter says how high the chain is", 60, || async {
            let voters = self.network.voters().await?;
            let voter = voters.first().context("there is no voter")?;
            Ok(self.access.client(&self.network, voter)?.status().await?.height)
        })
        .await
    }

    /// Waits until a block of this height is seen, and a vote.
    ///
    /// # Errors
    /// When that takes longer than so many seconds.
    pub async fn wait_height(&self, height: u64, seconds: u64) -> Result<()> {
        eventually(&format!("block {height} and votes are seen"), seconds, || async {
            let seen = lock(&self.seen);
            ensure!(seen.height_max() >= height && seen.counts().messages > 0, "{:?}", seen.counts());
            Ok(())
        })
        .await
    }

    /// Waits until the pods of so many voters are ready.
    ///
    /// # Errors
    /// When that takes longer than so many seconds.
    pub async fn wait_all_present(&self, voters: usize, seconds: u64) -> Result<()> {
        eventually(&format!("{voters} pods are ready"), seconds, || async {
            let ready = roll_of(&self.attendance).ready();
            ensure!(ready == voters, "{ready} are");
            Ok(())
        })
        .await
    }

    /// How much was seen so far.
    pub fn counts(&self) -> Counts {
        lock(&self.seen).counts()
    }

    /// Ends the watch: reads every node's chain once more from its first block, then judges. So many voters may have been
    /// silent at once, and the pods of as many away.
    ///
    /// # Errors
    /// Every rule that was broken; or that nothing was seen.
    pub async fn report(mut self, away_allowed: u64) -> Result<Counts> {
        let target = lock(&self.seen).height_to_read();
        let mut nodes = vec![];
        for voter in self.network.voters().await? {
            self.read_whole_chain(&voter.node, target)
                .await
                .with_context(|| format!("final read of {}", voter.node))?;
            nodes.push(voter.node);
        }
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if self.network.environment.has_volumes() {
            self.read_volumes_of_who_left(&nodes).await?;
            nodes.extend(self.read_volumes().await?);
        }
        let seen = lock(&self.seen);
        let counts = seen.counts();
        self.network.environment.keep_counts(counts);
        ensure!(counts.heights > 0, "the watcher saw no block");
        ensure!(counts.messages > 0, "the watcher saw no vote");
        ensure!(!roll_of(&self.attendance).known().is_empty(), "the watcher saw no pod that was ready");
        let violations = seen.violations(&nodes, away_allowed);
        if !violations.is_empty() {
            let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
            bail!("{} safety rules broken:\n{}", violations.len(), lines.join("\n"));
        }
        println!(
            "    watched {} heights, {} signed messages ({} found in signing logs), {} acknowledged and none lost, at most \
             {} silent and {} away, longest gap {} ms",
            counts.heights,
            counts.messages,
            counts.logged,
            counts.acknowledged,
            counts.silent_max,
            counts.away_max,
            counts.gap_max_ms
        );
        Ok(counts)
    }

    /// Reads the volumes of all voters. A signing log holds the votes of one height only, so it is empty for a moment when a
    /// height begins; where all of them are, they are read again.
    async fn read_volumes(&self) -> Result<Vec<String>> {
        eventually("a signing log on the volumes holds a vote", 30, || async {
            let mut names = vec![];
            for voter in self.network.voters().await? {
                names.push(self.read_volume(&voter.node, &voter.identity).await?);
            }
            ensure!(lock(&self.seen).counts().logged > 0, "the signing logs on the volumes are empty");
            Ok(names)
        })
        .await
    }

    /// Reads the volumes of voters that were there and left: what they kept must fit, but they lack what came after them.
    async fn read_volumes_of_who_left(&self, present: &[String]) -> Result<()> {
        let known = roll_of(&self.attendance).known().clone();
        let nodes = known.into_iter().map(|number| names::node(&self.network.group, number));
        for node in nodes.filter(|node| !present.contains(node)) {
            let secret = format!("{node}-identity");
            let pem = self.network.secret_text(&secret, names::FILE_IDENTITY).await?;
            let key: KeyPair = node_api::keys::from_pem(&pem)?;
            self.read_volume(&node, &hex::encode(key.public())).await?;
        }
        Ok(())
    }

    /// Compares a voter's volume with what was seen: its blocks, and what it signed at the height of its signing log.
    /// Returns the name under which its blocks are kept. Only after all streams have ended: what was seen before the
    /// reading must be in the log.
    async fn read_volume(&self, node: &str, identity: &str) -> Result<String> {
        let claim = format!("{node}-data");
        let name = format!("volume {claim}");
        eventually(&format!("{name} is read"), 20, || async {
            let folder = self.network.claim_folder(&claim).await?;
            volumes::read_blocks(&folder, |block| observe(&self.seen, &name, block))?;
            let log = volumes::read_signing_log(&folder, identity)?;
            log.into_iter().for_each(|log| lock(&self.seen).signing_log(log));
            Ok(())
        })
        .await?;
        Ok(name)
    }

    async fn read_whole_chain(&self, node: &str, target: u64) -> Result<()> {
        eventually(&format!("{node} reaches height {target}"), 90, || async {
            let client = client_of(&self.network, &self.access, node).await?;
            let status = client.status().await?;
            ensure!(status.height >= target, "is at {}", status.height);
            let mut blocks = client.blocks(Some(Height::new(status.lowest_height.max(1)))).await?;
            while let Some(block) = timeout(Duration::from_secs(10), blocks.message()).await?? {
                let height = block.height;
                observe_block(&self.seen, node, &block)?;
                if height >= target {
                    break;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Follows the blocks and votes of nodes.
#[derive(Clone)]
pub(crate) struct Follower {
    /// Whose nodes.
    pub(crate) network: Network,
    access: Access,
    /// What stands before the names of its nodes.
    prefix: String,
    /// Where to what they show goes.
    pub(crate) seen: Arc<Mutex<Observations>>,
    /// Ends it.
    pub(crate) stop: CancellationToken,
}

impl Follower {
    /// Follows one node through restarts of its pod, until the watch ends.
    pub(crate) async fn follow(self, node: String) {
        let mut pace = interval(Duration::from_millis(300));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let name = format!("{}{node}", self.prefix);
        let mut next = 1;
        loop {
            tokio::select! { _ = pace.tick() => {}, () = self.stop.cancelled() => return }
            let Ok(client) = client_of(&self.network, &self.access, &node).await else { continue };
            let streams = follow_once(&client, &name, &mut next, &self.seen);
            tokio::select! { _ = streams => {}, () = self.stop.cancelled() => return }
        }
    }
}

/// What was seen so far.
pub(crate) fn lock(seen: &Mutex<Observations>) -> std::sync::MutexGuard<'_, Observations> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client of a node's present pod.
///
/// # Errors
/// When it has no pod with an address.
pub async fn client_of(network: &Network, access: &Access, node: &str) -> Result<Client> {
    let voters = network.voters().await?;
    let voter = voters.into_iter().find(|voter| voter.node == node).with_context(|| format!("{node} has no pod"))?;
    access.client(network, &voter)
}

/// Follows until one of the two streams ends.
async fn follow_once(client: &Client, node: &str, next: &mut u64, seen: &Mutex<Observations>) -> Result<()> {
    let mut blocks = client.blocks(Some(Height::new(*next))).await?;
    let mut votes = client.votes().await?;
    loop {
        tokio::select! {
            block = blocks.message() => {
                let Some(block) = block? else { return Ok(()) };
                observe_block(seen, node, &block)?;
                *next = block.height + 1;
            }
            event = votes.message() => {
                let Some(event) = event? else { return Ok(()) };
                if let Some(Event::Vote(vote)) = event.event {
                    observe_vote(seen, &vote)?;
                }
            }
        }
    }
}

fn observe_block(seen: &Mutex<Observations>, node: &str, block: &proto::Block) -> Result<()> {
    let decoded = Block::decode(&block.block).context("failed to decode a block")?;
    observe(seen, node, &decoded);
    Ok(())
}

fn observe(seen: &Mutex<Observations>, node: &str, block: &Block) {
    let transactions: Vec<String> = block.transactions().map(|transaction| transaction.id().to_string()).collect();
    let (height, time_ms) = (block.header().height.get(), block.header().time.get());
    let mut seen = lock(seen);
    seen.block(node, height, &hex::encode(block.hash().as_bytes()), &transactions);
    seen.block_time(height, time_ms);
}

fn observe_vote(seen: &Mutex<Observations>, vote: &proto::SeenVote) -> Result<()> {
    if !vote.verified {
        return Ok(());
    }
    let step = match vote.kind() {
        VoteKind::Proposal => Step::Proposal,
        VoteKind::Prevote => Step::Prevote,
        VoteKind::Precommit => Step::Precommit,
        VoteKind::Unspecified => bail!("a vote without a kind"),
    };
    lock(seen).message(SignedMessage {
        identity: hex::encode(&vote.voter),
        session_key: hex::encode(&vote.session_key),
        height: vote.height,
        round: vote.round,
        step,
        signed_bytes: vote.vote.to_vec(),
    });
    Ok(())
}

/// How many voters nobody has seen signing in the newest heights; nothing while the chain is too young to say. Who is a
/// voter says the node that has come furthest: one that is cut off still names whom the others have replaced.
async fn silent_voters(network: &Network, access: &Access) -> Result<Option<u64>> {
    // The last height that a voter is known to have signed, and how long ago that was at least.
    let mut signed: BTreeMap<Vec<u8>, (u64, Reverse<Duration>)> = BTreeMap::new();
    let (mut height, mut voters) = (0, BTreeSet::new());
    for voter in network.voters().await? {
        let Ok(client) = access.client(network, &voter) else { continue };
        let client = client.with_deadline(Duration::from_secs(2));
        let Ok(view) = client.validators().await else { continue };
        if view.height >= height {
            height = view.height;
            voters = view.voters.iter().map(|voter| voter.identity.clone()).collect();
        }
        for voter in view.voters {
            let age = Duration::from_millis(voter.last_precommit_age_ms);
            let last = signed.entry(voter.identity).or_default();
            *last = (*last).max((voter.last_precommit_height, Reverse(age)));
        }
    }
    if height <= SILENT_AFTER_HEIGHTS {
        return Ok(None);
    }
    let is_silent = |voter: &&Vec<u8>| {
        let (last, Reverse(age)) = signed.get(*voter).copied().unwrap_or_default();
        last == 0 || (last + SILENT_AFTER_HEIGHTS < height && age > SILENT_AFTER)
    };
    Ok(Some(u64::try_from(voters.iter().filter(is_silent).count())?))
}
