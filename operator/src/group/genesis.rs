//! A genesis from the spec and the voters' reports.

use althing_crds::chain::{Chain, Parameters as SpecParameters};
use node_api::fields;
use node_api::node_core::crypto::{SigningBytes, verify, verify_genesis};
use node_api::node_core::types::{
    AccountId, Amount, CeremonyNonce, ChainId, Epoch, Genesis, GenesisDraft, GenesisVoter, Governance, GovernanceKey,
    Hash, Identity, Parameters, ParametersDraft, Power, SessionKey, Signature, TimeMs, Timeout, VoterEntry,
};
use node_api::proto;

/// Version of the rules that this operator starts chains with.
pub const PROTOCOL_VERSION: u32 = 1;
/// Version of the state's format that this operator starts chains with.
pub const STATE_VERSION: u32 = 1;
/// Every voter starts with the same power.
const POWER: u64 = 1;

/// What one voter contributes, as checked values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// Its identity.
    pub identity: Identity,
    /// Its session key.
    pub session_key: SessionKey,
    /// Epoch of that key.
    pub epoch: Epoch,
    /// Proof that it holds the key.
    pub possession: Signature,
}

/// Everything that makes a genesis.
pub struct Ingredients<'a> {
    /// The spec.
    pub chain: &'a Chain,
    /// Name of the chain.
    pub chain_id: &'a str,
    /// Time that was stored when the ceremony began.
    pub time_ms: u64,
    /// Nonce that was stored when the ceremony began.
    pub nonce: CeremonyNonce,
    /// The voters.
    pub voters: &'a [Contribution],
    /// The governance key that the operator made, when the spec names none.
    pub governance_key: Option<&'a str>,
}

/// A voter's contribution from its report; `expected` is the identity that the connection proved.
pub fn contribution(report: &proto::GenesisReport, expected: &str) -> Result<Contribution, String> {
    let identity = fields::identity("identity", &report.identity).map_err(|error| error.to_string())?;
    if identity.to_string() != expected {
        return Err(format!("it reports identity {identity}"));
    }
    Ok(Contribution {
        identity,
        session_key: fields::session_key("session_key", &report.session_key).map_err(|error| error.to_string())?,
        epoch: Epoch::new(report.epoch),
        possession: fields::signature("possession", &report.possession).map_err(|error| error.to_string())?,
    })
}

/// The genesis that these ingredients make: the same every time.
pub fn assemble(ingredients: &Ingredients<'_>) -> Result<Genesis, String> {
    let Ingredients { chain, chain_id, time_ms, nonce, voters, governance_key } = ingredients;
    let power = Power::new(POWER);
    let voters = voters.iter().map(|voter| {
        let Contribution { identity, session_key, epoch, possession } = *voter;
        GenesisVoter { entry: VoterEntry { identity, power, session_key, epoch }, possession }
    });
    let draft = GenesisDraft {
        chain_id: ChainId::new(*chain_id).map_err(|error| error.to_string())?,
        time: TimeMs::new(*time_ms),
        protocol_version: PROTOCOL_VERSION,
        state_version: STATE_VERSION,
        ceremony: *nonce,
        voters: voters.collect(),
        accounts: accounts(chain)?,
        governance: governance(chain, *governance_key)?,
        parameters: parameters(&chain.parameters)?,
    };
    let genesis = Genesis::new(draft).map_err(|error| error.to_string())?;
    verify_genesis(&genesis).map_err(|error| error.to_string())?;
    Ok(genesis)
}

fn accounts(chain: &Chain) -> Result<Vec<(AccountId, Amount)>, String> {
    let account = |account: &althing_crds::chain::GenesisAccount| {
        let key: AccountId = account.key.parse().map_err(|_| format!("account {} is no key", account.key))?;
        let amount = u64::try_from(account.amount).map_err(|_| format!("amount of {} is negative", account.key))?;
        Ok((key, Amount::new(amount)))
    };
    chain.accounts.iter().map(account).collect()
}

fn governance(chain: &Chain, made: Option<&str>) -> Result<Governance, String> {
    let key = |text: &str| text.parse::<GovernanceKey>().map_err(|_| format!("governance key {text} is no key"));
    match (&chain.governance, made) {
        (Some(governance), _) => Ok(Governance {
            threshold: u32::try_from(governance.threshold).unwrap_or(0),
            keys: governance.keys.iter().map(|text| key(text)).collect::<Result<_, _>>()?,
        }),
        (None, Some(made)) => Ok(Governance { threshold: 1, keys: vec![key(made)?] }),
        (None, None) => Err("the governance key is not made yet".to_string()),
    }
}

/// The chain's parameters; what the spec does not name grows by half of the first wait with each round.
pub fn parameters(spec: &SpecParameters) -> Result<Parameters, String> {
    let wait = |base: i32| {
        let base_ms = u64::try_from(base).unwrap_or(0);
        Timeout { base_ms, delta_ms: base_ms / 2 }
    };
    Parameters::new(ParametersDraft {
        block_interval_ms: u64::try_from(spec.block_interval_ms).unwrap_or(0),
        propose_timeout: wait(spec.propose_timeout_ms),
        prevote_timeout: wait(spec.prevote_timeout_ms),
        precommit_timeout: wait(spec.precommit_timeout_ms),
        transactions_per_block_max: u32::try_from(spec.transactions_per_block_max).unwrap_or(0),
        block_bytes_max: u32::try_from(spec.block_bytes_max).unwrap_or(0),
        ..ParametersDraft::default()
    })
    .map_err(|error| error.to_string())
}

/// Whether the answer to AcceptGenesis proves that this voter holds its key and has stored this genesis.
pub fn is_accepted(genesis: &Genesis, identity: &Identity, answer: &proto::AcceptGenesisResponse) -> bool {
    let Some(entry) = genesis.voter_set().get(identity) else { return false };
    let hash = genesis.hash();
    let Ok(signature) = fields::signature("signature", &answer.signature) else { return false };
    let bytes = SigningBytes::genesis_acceptance(&hash, identity, &entry.session_key);
    answer.genesis_hash == hash.as_bytes() && verify(entry.session_key.as_bytes(), &bytes, &signature).is_ok()
}

/// A hash from its text.
pub fn hash(text: &str) -> Result<Hash, String> {
    text.parse().map_err(|_| format!("{text} is no hash"))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{contribution, genesis, governance_key, group, nonce};
    use super::*;

    #[test]
    fn the_same_ingredients_make_the_same_genesis_whatever_their_order() {
        let governance_key = governance_key();
        let chain = group().spec.chain;
        let voters: Vec<Contribution> = (0..4).rev().map(contribution).collect();
        let ingredients = Ingredients {
            chain: &chain,
            chain_id: "demo-main",
            time_ms: 1_800_000_000_000,
            nonce: nonce(),
            voters: &voters,
            governance_key: Some(&governance_key),
        };
        assert_eq!(assemble(&ingredients).expect("a genesis").hash(), genesis().hash());
        let later = Ingredients { time_ms: 1_800_000_000_001, ..ingredients };
        assert_ne!(assemble(&later).expect("a genesis").hash(), genesis().hash());
    }

    #[test]
    fn a_voter_without_proof_makes_no_genesis() {
        let governance_key = governance_key();
        let chain = group().spec.chain;
        let mut voters: Vec<Contribution> = (0..4).map(contribution).collect();
        voters[2].possession = voters[1].possession;
        let ingredients = Ingredients {
            chain: &chain,
            chain_id: "demo-main",
            time_ms: 1,
            nonce: nonce(),
            voters: &voters,
            governance_key: Some(&governance_key),
        };
        let error = assemble(&ingredients).expect_err("no genesis");
        assert!(error.contains("does not prove"), "{error}");
    }

    #[test]
    fn the_default_parameters_are_within_the_bounds_of_the_chain() {
        assert!(parameters(&SpecParameters::default()).is_ok());
    }
}
