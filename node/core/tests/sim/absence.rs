//! A node that was away until nobody has the blocks any more: it takes a proved state from peers of whom some lie.

use std::collections::{BTreeMap, VecDeque};

use node_core::{
    codec::{Decode, Encode},
    ledger::{MemoryStore, Recoveries, Snapshot, StateKey, apply_genesis, commit_outcome, execute_after, snapshot},
    light::LightClient,
    sync::{
        FetchEffect, StateChecks, StateFetch, StateManifest, StatePiece, StateTarget, VerifiedManifest, piece,
        shortest_path,
    },
    types::{CertifiedBlock, Genesis, Hash, Height, Identity, PeerMessage, PendingSets, Power, VoterEntry, VoterSet},
};

use super::{
    checks::Violation,
    people,
    world::{Event, World},
};

/// How many blocks below its last one a node keeps where another one is away.
const KEPT_BLOCKS: u64 = 6;
/// The headers that prove a state are those of its height and of the two after it.
const PROOF_HEIGHTS: u64 = 2;
/// Between two looks of the fetch at the clock, milliseconds.
const LOOK_MS: u64 = 200;

/// How a peer answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Peer {
    Honest,
    /// Shows a way to voters that the chain never named.
    ForgesProofs,
    /// Shows the right way and sends other pieces.
    ForgesPieces,
    /// Shows the right way, and what comes of its pieces names another voter set three heights on.
    ForgesState,
    /// Has the way and no pieces any more.
    Pruned,
}

/// Verifies manifests with the rules of the light client, and pieces with the certified root.
struct Proofs<'a> {
    genesis: &'a Genesis,
    verified: Option<VerifiedManifest>,
}

impl StateChecks for Proofs<'_> {
    fn manifest(&mut self, bytes: &[u8]) -> Result<StateTarget, String> {
        let manifest = StateManifest::decode(bytes).map_err(|error| error.to_string())?;
        let trusted = LightClient::new(self.genesis).map_err(|error| error.to_string())?;
        let verified = manifest.verify(&self.genesis.chain_id, self.genesis.hash(), trusted);
        let verified = verified.map_err(|error| error.to_string())?;
        let target = StateTarget { height: verified.height(), roots: *verified.roots() };
        self.verified = Some(verified);
        Ok(target)
    }

    fn piece(&self, target: &StateTarget, wanted: &StatePiece, bytes: &[u8]) -> Result<(), String> {
        let number = (0..).find(|number| piece(&target.roots.operations_range, *number) == Some(*wanted));
        let right = number.is_some_and(|number| piece_bytes(&target.roots.operations_root, number) == bytes);
        if right { Ok(()) } else { Err("it is another piece".to_owned()) }
    }
}

/// What stands for a piece: the store in memory has no log of operations.
fn piece_bytes(root: &Hash, number: u64) -> Vec<u8> {
    Hash::tagged("piece", &[root.as_bytes().as_slice(), &number.to_be_bytes()].concat()).as_bytes().to_vec()
}

impl World {
    /// A node goes away for a while.
    pub fn leave(&mut self, node: u64) {
        if let Some(process) = self.process_of(node) {
            self.end(process);
            self.absent = Some((node, self.processes[process].volume));
        }
    }

    /// It is back: the others keep few blocks, and it takes a state from one of them, if it needs one.
    pub fn come_back(&mut self) -> Result<(), Violation> {
        let Some((node, volume)) = self.absent.take() else { return Ok(()) };
        for kept in self.alive.iter().map(|process| self.processes[*process].volume).collect::<Vec<_>>() {
            let kept = &mut self.volumes[kept];
            kept.pruned_below = Height::new((kept.blocks.len() as u64).saturating_sub(KEPT_BLOCKS) + 1);
        }
        self.fetch_state(volume)?;
        self.after(1, Event::Restart { node, volume });
        Ok(())
    }

    /// Asks the peers, of whom one at least is honest, until a state is there that is the proved one.
    fn fetch_state(&mut self, volume: usize) -> Result<(), Violation> {
        let kinds = [Peer::ForgesProofs, Peer::ForgesPieces, Peer::ForgesState, Peer::Pruned, Peer::Honest];
        let mut peers: Vec<(usize, Peer)> =
            self.alive.iter().map(|process| (*process, kinds[self.dice.below(5) as usize])).collect();
        let honest = self.dice.below(peers.len() as u64) as usize;
        peers[honest].1 = Peer::Honest;
        while let Some((source, kind, proved)) = self.fetch_from(&peers) {
            let height = proved.height();
            let blocks = self.volumes[self.processes[source].volume].blocks[..index(height) + 1].to_vec();
            let (store, found) = self.state_of(kind, &blocks);
            if proved.check(&found).is_err() && !self.plan.manifest_ignored {
                self.counts.add("states refused", 1);
                peers.retain(|(process, _)| *process != source);
                continue;
            }
            self.counts.add("states taken from peers", 1);
            self.checks.on_state(&found)?;
            let volume = &mut self.volumes[volume];
            volume.batches.clear();
            volume.pruned_below = height;
            (volume.store, volume.blocks) = (store, blocks);
            return Ok(());
        }
        Err(Violation::Stuck("no peer gave a state".to_owned()))
    }

    /// Runs the fetch to its end. Returns from whom the last piece came, and what proves the state.
    fn fetch_from(&mut self, peers: &[(usize, Peer)]) -> Option<(usize, Peer, VerifiedManifest)> {
        let genesis = self.genesis.clone();
        let mut proofs = Proofs { genesis: &genesis, verified: None };
        let (mut now_ms, mut source) = (self.now, None);
        let mut fetch = StateFetch::new(now_ms, None);
        let named: BTreeMap<Identity, (usize, Peer)> =
            peers.iter().map(|peer| (people::identity(self.processes[peer.0].node), *peer)).collect();
        named.keys().for_each(|identity| fetch.on_connected(*identity));
        loop {
            let mut effects = VecDeque::from(fetch.on_tick(now_ms));
            while let Some(effect) = effects.pop_front() {
                match effect {
                    FetchEffect::Send { to, message } => {
                        let (process, kind) = named[&to];
                        source = Some((process, kind));
                        let answer = self.answer_state(process, kind, &message);
                        effects.extend(fetch.on_message(now_ms, to, &answer, &mut proofs));
                    }
                    FetchEffect::Begin | FetchEffect::Keep(_) => {}
                    FetchEffect::Complete => {
                        let (process, kind) = source?;
                        return Some((process, kind, proofs.verified?));
                    }
                    FetchEffect::Lied { .. } => self.counts.add("lies about a state", 1),
                    FetchEffect::GiveUp => return None,
                }
            }
            now_ms += LOOK_MS;
        }
    }

    fn answer_state(&self, process: usize, kind: Peer, message: &PeerMessage) -> PeerMessage {
        match message {
            PeerMessage::StateRequest => PeerMessage::StateManifest(self.manifest(process, kind)),
            PeerMessage::StatePieceRequest { height, number } => {
                let naming = &self.light.shown()[index(height.saturating_add(PROOF_HEIGHTS))];
                let right = piece_bytes(&naming.header.results.roots.operations_root, *number);
                let bytes = match kind {
                    Peer::Honest | Peer::ForgesProofs | Peer::ForgesState => right,
                    Peer::ForgesPieces => right.into_iter().rev().collect(),
                    Peer::Pruned => Vec::new(),
                };
                PeerMessage::StatePiece { height: *height, number: *number, bytes }
            }
            other => panic!("not a question about a state: {other:?}"),
        }
    }

    /// What proves the newest state that a peer has; nothing if it has none that is proved already.
    fn manifest(&self, process: usize, kind: Peer) -> Vec<u8> {
        let volume = &self.volumes[self.processes[process].volume];
        let executed = self.processes[process].engine.status().executed.get();
        let height = Height::new(executed.min((self.light.shown().len() as u64).saturating_sub(PROOF_HEIGHTS)));
        if height == Height::ZERO {
            return Vec::new();
        }
        let shown = &self.light.shown()[..=index(height.saturating_add(PROOF_HEIGHTS))];
        let trusted = LightClient::new(&self.genesis).expect("the genesis is whole");
        let mut path = shortest_path(&trusted, shown).expect("the real chain is proved");
        if let Some(last) = path.last_mut().filter(|_| kind == Peer::ForgesProofs) {
            last.next_voters = other_voters(&last.next_voters);
        }
        let certificate = shown[index(height)].certificate.clone();
        let block = CertifiedBlock { block: volume.blocks[index(height)].block.clone(), certificate };
        let (chain_id, genesis) = (self.genesis.chain_id.clone(), self.genesis.hash());
        StateManifest { chain_id, genesis, path, block }.encode()
    }

    /// The state after these blocks, as this kind of peer has it.
    fn state_of(&self, kind: Peer, blocks: &[CertifiedBlock]) -> (MemoryStore, Snapshot) {
        let mut store = MemoryStore::new();
        apply_genesis(&mut store, &self.genesis).expect("a store in memory does not fail");
        for (index, certified) in blocks.iter().enumerate() {
            let outcome = execute_after(&store, &certified.block, &Recoveries::default());
            let mut outcome = outcome.expect("final blocks can be executed").expect("each is executed once");
            if kind == Peer::ForgesState && index + 1 == blocks.len() {
                let third = other_voters(&outcome.sets.third);
                let sets = PendingSets { third, ..outcome.sets.clone() };
                outcome.writes.insert(StateKey::sets(), Some(sets.encode()));
            }
            commit_outcome(&mut store, outcome).expect("heights follow each other");
        }
        let found = snapshot(&store).expect("the state is whole").expect("genesis was applied");
        (store, found)
    }
}

/// The index of a height in a list of all blocks.
fn index(height: Height) -> usize {
    usize::try_from(height.get() - 1).unwrap()
}

/// The same voters, one of them with more power.
fn other_voters(voters: &VoterSet) -> VoterSet {
    let first = voters.entries()[0];
    let changed = voters.with_entry(VoterEntry { power: Power::new(first.power.get() + 1), ..first });
    changed.expect("one more is not too much").expect("it is another set")
}
