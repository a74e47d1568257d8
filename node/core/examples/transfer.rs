//! One chain in memory: a genesis with one voter, a transfer, the block with it, and its receipt.

use node_core::{
    crypto::{KeyPair, SigningBytes, VerifiedTransaction, verify_transaction},
    ledger::{Applied, MemoryStore, account, apply_block, apply_genesis, snapshot},
    mempool::{Limits, Mempool, Space},
    types::{
        AccountId, Amount, Batch, Block, CeremonyNonce, ChainId, Epoch, Genesis, GenesisDraft, GenesisVoter,
        Governance, GovernanceKey, Header, Height, Identity, Nonce, Parameters, ParametersDraft, Payload, Power,
        Results, Round, SessionKey, TimeMs, Transaction, TransactionBody, TransactionSignature, Transfer, VoterEntry,
        voters_hash,
    },
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // A program draws its seeds from the operating system; these are fixed so that every run prints the same.
    let [identity, session, alice, bob, governance] = [1, 2, 3, 4, 5].map(|seed| KeyPair::from_seed([seed; 32]));
    let genesis = genesis(&identity, &session, &alice, &governance)?;
    println!("genesis      {}", genesis.hash());

    let mut store = MemoryStore::new();
    apply_genesis(&mut store, &genesis)?;

    let transaction = transfer(&genesis, &alice, &bob, 250)?;
    let mut mempool = Mempool::new(Limits::default(), genesis.incarnation(), Height::ZERO);
    mempool.add(verify_transaction(transaction)?)?;

    let block = first_block(&genesis, &mut mempool)?;
    println!("block 1      {}", block.hash());
    if let Applied::Now { outcome, results } = apply_block(&mut store, &block)? {
        for receipt in &outcome.receipts {
            println!("transaction  {} {:?}", receipt.transaction, receipt.status);
        }
        println!("state root   {}", results.roots.state_root);
    }
    println!("bob has      {}", account(&store, &AccountId::new(bob.public()))?.balance);
    if let Some(snapshot) = snapshot(&store)? {
        println!("next voters  {}", snapshot.sets.first.hash());
    }
    Ok(())
}

fn genesis(identity: &KeyPair, session: &KeyPair, alice: &KeyPair, governance: &KeyPair) -> Result<Genesis, Failure> {
    let chain_id = ChainId::new("example")?;
    let ceremony = CeremonyNonce::new([0; 32]);
    let entry = VoterEntry {
        identity: Identity::new(identity.public()),
        power: Power::new(1),
        session_key: SessionKey::new(session.public()),
        epoch: Epoch::FIRST,
    };
    let bytes = SigningBytes::genesis_possession(&chain_id, &ceremony, &entry.identity, &entry.session_key);
    Ok(Genesis::new(GenesisDraft {
        chain_id,
        time: TimeMs::new(1_790_000_000_000),
        protocol_version: 1,
        state_version: 1,
        ceremony,
        voters: vec![GenesisVoter { entry, possession: session.sign(&bytes) }],
        accounts: vec![(AccountId::new(alice.public()), Amount::new(1_000))],
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(governance.public())] },
        parameters: Parameters::new(ParametersDraft::default())?,
    })?)
}

fn transfer(genesis: &Genesis, from: &KeyPair, to: &KeyPair, amount: u64) -> Result<Transaction, Failure> {
    let body = TransactionBody {
        incarnation: genesis.incarnation(),
        sender: AccountId::new(from.public()),
        nonce: Nonce::ZERO,
        valid_until: Height::new(100),
        payload: Payload::Transfer(Transfer { to: AccountId::new(to.public()), amount: Amount::new(amount) }),
    };
    let signature = from.sign(&SigningBytes::transaction(&body));
    Ok(Transaction::new(body, vec![TransactionSignature { key: from.public(), signature }])?)
}

fn first_block(genesis: &Genesis, mempool: &mut Mempool) -> Result<Block, Failure> {
    let sealed = mempool.seal(Space { transactions_max: 100, bytes_max: 100_000 });
    let batch = Batch::new(sealed.into_iter().map(VerifiedTransaction::into_transaction).collect())?;
    let voters = genesis.voter_set();
    let proposer = voters.entries().first().ok_or("a voter set is never empty")?.identity;
    let header = Header {
        height: Height::new(1),
        round: Round::ZERO,
        parent: genesis.hash(),
        proposer,
        time: TimeMs::new(1_790_000_001_000),
        batches: vec![batch.digest()],
        voters_hash: voters_hash(voters, voters),
        results: Results::NONE,
        parameters_hash: genesis.parameters.hash(),
    };
    Ok(Block::new(header, vec![batch])?)
}
