//! The world: a virtual clock, a network, disks and the processes between them. One seed, one history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use node_core::{
    codec::{Decode, Encode},
    consensus::{Faults, Input, Origin, TimerId},
    crypto::{VerifiedTransaction, verify_batch, verify_transaction, verify_transactions},
    ledger::LedgerFaults,
    session::{ClearedKey, NewKey, Owner, StartGrant},
    types::{Batch, Epoch, Genesis, Hash, Hasher, Height, Identity, PeerMessage, Recovery, SessionKey, TimeMs, Uid},
};

use super::{
    checks::{Checks, Violation},
    clearing::Shown,
    counts::Counts,
    dice::Dice,
    differing::Differing,
    every_effect::EveryEffect,
    light::Skipping,
    members::Governor,
    people,
    plan::{Action, Plan},
    process::{Process, Start},
    volume::Volume,
};

/// What happens at a moment.
pub enum Event {
    Deliver {
        from: usize,
        to: usize,
        message: Arc<PeerMessage>,
    },
    Timer {
        process: usize,
        id: TimerId,
        setting: u64,
    },
    Execute {
        process: usize,
        height: Height,
    },
    Stored {
        process: usize,
        batch: Arc<Batch>,
    },
    Feed {
        process: usize,
        input: Box<Input>,
    },
    /// The shell looks whether a key of the volume can be cleared.
    Clear {
        process: usize,
    },
    /// The operator's word comes.
    Granted {
        process: usize,
        grant: StartGrant,
    },
    Submit,
    /// Governance looks at the chain.
    Govern,
    Restart {
        node: u64,
        volume: usize,
    },
    Act(Action),
    Recovered {
        process: usize,
        recovery: Box<Recovery>,
    },
    Heal,
}

pub struct World {
    pub seed: u64,
    pub now: u64,
    pub dice: Dice,
    pub plan: Plan,
    pub genesis: Arc<Genesis>,
    pub processes: Vec<Process>,
    pub volumes: Vec<Volume>,
    pub checks: Checks,
    pub counts: Counts,
    /// Processes that cannot hear each other, by direction.
    pub blocked: BTreeSet<(usize, usize)>,
    pub alive: BTreeSet<usize>,
    pub healed: bool,
    faults: Faults,
    pub ledger_faults: LedgerFaults,
    pub governor: Governor,
    pub light: Skipping,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    last_delivery: BTreeMap<(usize, usize), u64>,
    pub nonces: BTreeMap<u64, u64>,
    trace: Option<Hasher>,
    /// When each rotation that only an identity signed was first executed, by its key.
    pub rotations: BTreeMap<SessionKey, u64>,
    /// A node that is away, and its volume.
    pub absent: Option<(u64, usize)>,
    /// What a volume held some time ago.
    pub kept_volume: Option<Volume>,
    /// Where the chain stands until a recovery.
    pub standing: Option<Height>,
    /// How often governance has looked whether all nodes hold the last block.
    pub recover_looks: u64,
    /// The history ends here: nothing more can come of it.
    pub ends: bool,
    /// Nodes whose next height counts as a goal, and from where.
    pub goal: Option<Height>,
    pub names: u64,
    /// The time of the last final block.
    pub last_time: Option<TimeMs>,
    /// Nodes whose execution differs.
    pub differing: Differing,
    /// The durable effects of a node that crashes after one of them.
    pub every_effect: Option<EveryEffect>,
}

/// How a history ended.
pub struct Ending {
    pub violation: Option<Violation>,
    pub counts: Counts,
    pub trace: Option<Hash>,
    pub every_effect: Option<EveryEffect>,
}

impl World {
    pub fn new(seed: u64, plan: Plan, faults: Faults) -> Self {
        let genesis = people::genesis(&plan.powers, plan.block_interval_ms);
        let light = Skipping::new(seed, &genesis, plan.forgers);
        let mut world = Self {
            seed,
            now: people::GENESIS_MS,
            last_time: None,
            differing: Differing::default(),
            every_effect: None,
            dice: Dice::new(seed),
            checks: Checks::new(&genesis),
            genesis,
            processes: Vec::new(),
            volumes: Vec::new(),
            counts: Counts::default(),
            blocked: BTreeSet::new(),
            alive: BTreeSet::new(),
            healed: false,
            faults,
            ledger_faults: LedgerFaults::default(),
            governor: Governor::default(),
            light,
            events: BTreeMap::new(),
            sequence: 0,
            last_delivery: BTreeMap::new(),
            nonces: BTreeMap::new(),
            trace: None,
            rotations: BTreeMap::new(),
            kept_volume: None,
            absent: None,
            standing: None,
            recover_looks: 0,
            ends: false,
            goal: None,
            names: 0,
            plan,
        };
        for node in 0..world.plan.powers.len() as u64 {
            world.first_start(node);
        }
        for (at, action) in std::mem::take(&mut world.plan.actions) {
            world.after(at, Event::Act(action));
        }
        if world.plan.load {
            world.after(20, Event::Submit);
        }
        if world.plan.governed {
            world.after(600, Event::Govern);
        }
        let chaos_ms = world.plan.chaos_ms;
        world.after(chaos_ms, Event::Heal);
        world
    }

    pub fn traced(mut self) -> Self {
        self.trace = Some(Hasher::new("simulation trace"));
        self
    }

    /// With a ledger that breaks rules on every node.
    pub fn with_ledger_faults(mut self, faults: LedgerFaults) -> Self {
        self.ledger_faults = faults;
        self
    }

    /// Runs until the goal after healing is reached, a rule is broken, or time is up.
    pub fn run(mut self) -> Ending {
        let violation = self.run_events().err();
        let heights = self.volumes.iter().map(|volume| volume.blocks.len()).max().unwrap_or_default();
        self.counts.add("heights", heights as u64);
        let early = |process: &Process| process.engine.status().rounds_ended_early;
        self.counts.add("rounds ended early", self.processes.iter().map(early).sum());
        let trace = self.trace.map(Hasher::finish);
        Ending { violation, counts: self.counts, trace, every_effect: self.every_effect }
    }

    fn run_events(&mut self) -> Result<(), Violation> {
        let deadline = people::GENESIS_MS + self.plan.chaos_ms + self.plan.patience_ms;
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > deadline {
                let lost = self.checks.lost().filter(|_| self.heights_reached());
                return Err(lost.map_or_else(|| Violation::Stuck(self.progress()), Violation::Lost));
            }
            self.now = at;
            self.happen(event)?;
            if self.ends || (self.healed && self.goal_reached()) {
                return Ok(());
            }
        }
        Err(Violation::Stuck("nothing happens any more".into()))
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, &message),
            Event::Timer { process, id, setting } => {
                let current = self.processes[process].timers.get(&id) == Some(&setting);
                if current { self.feed(process, Input::Timer(id)) } else { Ok(()) }
            }
            Event::Execute { process, height } => self.execute(process, height),
            Event::Stored { process, batch } => self.stored(process, batch),
            Event::Feed { process, input } => self.feed(process, *input),
            Event::Clear { process } => self.try_clear(process),
            Event::Granted { process, grant } => {
                self.granted(process, grant);
                Ok(())
            }
            Event::Submit => self.submit(),
            Event::Govern => self.govern(),
            Event::Restart { node, volume } => self.restart(node, volume),
            Event::Act(action) => self.act(action),
            Event::Recovered { process, recovery } => self.recovered(process, &recovery),
            Event::Heal => self.heal(),
        }
    }

    pub fn after(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + ms, self.sequence), event);
    }

    /// Takes one step of a process and performs its effects.
    pub fn feed(&mut self, process: usize, input: Input) -> Result<(), Violation> {
        if !self.processes[process].alive {
            return Ok(());
        }
        if let Input::Cleared(key) | Input::Made { key, .. } = &input {
            self.processes[process].able_since.get_or_insert(self.now);
            self.processes[process].cleared.insert(key.session_key(), key.clone());
        }
        let clock = self.clock_of(process);
        let effects = self.processes[process].engine.step(clock, input);
        self.perform(process, effects)
    }

    pub fn note(&mut self, process: usize, bytes: &[u8]) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.update(&now.to_be_bytes());
            trace.update(&(process as u64).to_be_bytes());
            trace.update(bytes);
        }
    }

    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Puts a message on the wire.
    pub fn send(&mut self, from: usize, to: usize, message: &Arc<PeerMessage>) {
        let apart = self.processes[from].exiled != self.processes[to].exiled;
        if apart || self.blocked.contains(&(from, to)) || !self.processes[to].alive {
            return;
        }
        let (loss, duplicate) = if self.healed { (0, 0) } else { (self.plan.loss, self.plan.duplicate) };
        if self.dice.in_a_million(loss) {
            self.counts.add("messages lost", 1);
            return;
        }
        let copies = if self.dice.in_a_million(duplicate) { 2 } else { 1 };
        self.counts.add("messages duplicated", copies - 1);
        for _ in 0..copies {
            let delay = self.dice.between(self.plan.delay_ms.0, self.plan.delay_ms.1);
            let last = self.last_delivery.entry((from, to)).or_default();
            if self.now + delay < *last {
                self.counts.add("messages reordered", 1);
            }
            *last = (self.now + delay).max(*last);
            self.after(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: &Arc<PeerMessage>) -> Result<(), Violation> {
        if !self.processes[to].alive || self.blocked.contains(&(from, to)) {
            return Ok(());
        }
        let identity = people::identity(self.processes[from].node);
        // One message in sixteen goes through its encoding, so that a wrong one is found here too.
        let message = if self.sequence.is_multiple_of(16) {
            PeerMessage::decode(&message.encode()).expect("what a node sends can be read")
        } else {
            PeerMessage::clone(message)
        };
        match message {
            PeerMessage::Transactions(transactions) => {
                let verified = verify_transactions(transactions).into_iter().filter_map(Result::ok).collect();
                self.feed(to, Input::Submitted { origin: Origin::Peer(identity), transactions: verified })
            }
            PeerMessage::Batch(batch) => match verify_batch(batch) {
                Ok(batch) => self.feed(to, Input::Batch { from: identity, batch }),
                Err(_) => Ok(()),
            },
            PeerMessage::NewestVoteResponse { nonce, vote, certificate } => {
                self.on_shown(to, identity, Shown { nonce, vote, certificate });
                Ok(())
            }
            message => self.feed(to, Input::Message { from: identity, message }),
        }
    }

    /// A client submits a transfer, to one or two nodes.
    fn submit(&mut self) -> Result<(), Violation> {
        let pause = self.dice.between(50, 400);
        self.after(pause, Event::Submit);
        let incarnation = self.checks.incarnation_at(Height::new(u64::MAX));
        let account = self.dice.below(people::ACCOUNTS);
        let nonce = self.nonces.entry(account).or_default();
        let transaction = people::transfer(incarnation, account, (account + 1) % people::ACCOUNTS, *nonce);
        *nonce += 1;
        let verified: VerifiedTransaction = verify_transaction(transaction).expect("signed by its sender");
        let alive: Vec<usize> = self.alive.iter().copied().collect();
        for _ in 0..2 {
            if let Some(process) = alive.get(self.dice.below(alive.len() as u64) as usize) {
                let input = Input::Submitted { origin: Origin::Client, transactions: vec![verified.clone()] };
                self.feed(*process, input)?;
            }
        }
        Ok(())
    }

    /// A voter of genesis starts for the first time: its process made the key.
    fn first_start(&mut self, node: u64) {
        let claim = people::uid(&format!("claim {node}"));
        let mut volume = Volume { claim: Some(claim), ..Volume::default() };
        let owner = self.new_owner(node);
        let new = NewKey { seed: people::first_session_seed(node), epoch: Epoch::FIRST, claim: Some(claim), owner };
        let key = volume.keys.make(new).expect("the volume is empty");
        self.volumes.push(volume);
        let volume = self.volumes.len() - 1;
        let faults = self.faults;
        let start = Start { node, volume, owner, claim, grant: None, proved: false, copy: false, faults };
        self.start(start, vec![key]);
    }

    /// A pod on a machine of its own, never seen before.
    pub fn new_owner(&mut self, node: u64) -> Owner {
        self.names += 1;
        let name = |what: &str| people::uid(&format!("{what} {node} {}", self.names));
        Owner {
            pod: name("pod"),
            container_start: TimeMs::new(self.now),
            boot: Some(name("boot")),
            machine: Some(name("machine")),
        }
    }

    /// Starts a process with keys that it may use at once.
    pub fn start(&mut self, start: Start, keys: Vec<ClearedKey>) -> usize {
        let volume = &mut self.volumes[start.volume];
        if volume.log.as_ref().is_some_and(|log| log.len() > 1) {
            self.counts.add("restarts with a log to replay", 1);
        }
        let process = Process::boot(start, &self.genesis, volume);
        self.processes.push(process);
        let index = self.processes.len() - 1;
        let others: Vec<usize> = self.alive.iter().copied().collect();
        self.alive.insert(index);
        for key in keys {
            self.after(0, Event::Feed { process: index, input: Box::new(Input::Cleared(key)) });
        }
        self.after(0, Event::Feed { process: index, input: Box::new(Input::Start) });
        let identity = |world: &Self, process: usize| people::identity(world.processes[process].node);
        for other in others {
            let (mine, theirs): (Identity, Identity) = (identity(self, index), identity(self, other));
            self.after(5, Event::Feed { process: index, input: Box::new(Input::Connected(theirs)) });
            self.after(5, Event::Feed { process: other, input: Box::new(Input::Connected(mine)) });
        }
        self.after(10, Event::Clear { process: index });
        index
    }

    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// The volume's name for a claim of its own.
    pub fn new_claim(&mut self) -> Uid {
        self.names += 1;
        people::uid(&format!("claim {}", self.names))
    }

    /// The end of the chain as a process knows it.
    pub fn tip(&self, process: usize) -> Height {
        self.processes[process].engine.status().tip
    }

    fn goal_reached(&self) -> bool {
        let all = self.heights_reached() && self.sessions_recovered() && self.all_differing_halted();
        all && self.checks.lost().is_none()
    }

    fn heights_reached(&self) -> bool {
        let Some(goal) = self.goal else { return false };
        let excused = |process: &Process| process.byzantine || process.former || self.differs(process.node);
        let honest = |process: &&usize| !excused(&self.processes[**process]);
        self.alive.iter().filter(honest).all(|process| self.tip(*process) >= goal)
    }

    /// Every voter whose process is the only one of its identity signs again.
    fn sessions_recovered(&self) -> bool {
        let voters = self.checks.newest_voters();
        let is_voter = |node: &u64| voters.get(&people::identity(*node)).is_some();
        (0..self.plan.nodes_max()).filter(is_voter).all(|node| {
            let of_node =
                |process: &&usize| self.processes[**process].node == node && !self.processes[**process].former;
            let processes: Vec<usize> = self.alive.iter().filter(of_node).copied().collect();
            let excused = self.differs(node)
                || processes.len() != 1
                || self.processes[processes[0]].byzantine
                || self.plan.sessions_excused;
            excused || self.processes[processes[0]].engine.status().signing
        })
    }

    pub fn progress(&self) -> String {
        let describe = |process: &usize| {
            let status = self.processes[*process].engine.status();
            format!(
                "process {process} of node {} at {} round {} executed {} {:?} signing {}",
                self.processes[*process].node,
                status.tip,
                status.round,
                status.executed,
                status.session,
                status.signing
            )
        };
        let lines: Vec<String> = self.alive.iter().map(describe).collect();
        format!("goal {:?}; {}", self.goal, lines.join("; "))
    }
}
