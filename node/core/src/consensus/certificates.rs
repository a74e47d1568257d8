//! Certificates that let nodes follow a round: between the protocol's form and the form that travels, and their proof.

use std::collections::BTreeSet;

use arc_malachitebft_core_types as malachite;
use malachite::{CertificateError, NilOrVal, RoundCertificateType, ThresholdParam, VoteType};

use super::context::{self, Chain, round_into, round_of};
use crate::{
    crypto::{SignatureCheck, SigningBytes, verify_all},
    types::{Height, Incarnation, Power, RoundCertificate, RoundSignature, UnsignedVote, Vote, VoteKind, VoterSet},
};

/// A quorum of prevotes for one value, as it travels.
pub fn travelling_polka(certificate: &malachite::PolkaCertificate<Chain>, voters: &VoterSet) -> RoundCertificate {
    RoundCertificate {
        height: certificate.height,
        round: round_of(certificate.round),
        signatures: certificate
            .polka_signatures
            .iter()
            .map(|signature| RoundSignature {
                kind: VoteKind::Prevote,
                value: Some(certificate.value_id),
                voter: signature.address,
                epoch: context::epoch_of(voters, &signature.address),
                signature: signature.signature,
            })
            .collect(),
    }
}

/// Votes that justify entering a round, as they travel.
pub fn travelling_round(certificate: &malachite::RoundCertificate<Chain>, voters: &VoterSet) -> RoundCertificate {
    RoundCertificate {
        height: certificate.height,
        round: round_of(certificate.round),
        signatures: certificate
            .round_signatures
            .iter()
            .map(|signature| RoundSignature {
                kind: match signature.vote_type {
                    VoteType::Prevote => VoteKind::Prevote,
                    VoteType::Precommit => VoteKind::Precommit,
                },
                value: match signature.value_id {
                    NilOrVal::Nil => None,
                    NilOrVal::Val(value) => Some(value),
                },
                voter: signature.address,
                epoch: context::epoch_of(voters, &signature.address),
                signature: signature.signature,
            })
            .collect(),
    }
}

/// The votes of a certificate that travels.
pub fn votes_of(certificate: &RoundCertificate) -> Vec<Vote> {
    certificate
        .signatures
        .iter()
        .map(|RoundSignature { kind, value, voter, epoch, signature }| Vote {
            vote: UnsignedVote {
                kind: *kind,
                height: certificate.height,
                round: certificate.round,
                value: *value,
                voter: *voter,
            },
            epoch: *epoch,
            signature: *signature,
        })
        .collect()
}

/// The certificate as a quorum of prevotes for one value, if its votes are that; power and signatures are not checked.
pub fn polka_certificate(height: Height, certificate: &RoundCertificate) -> Option<malachite::PolkaCertificate<Chain>> {
    let value = certificate.signatures.first()?.value?;
    let one_value = |signature: &RoundSignature| signature.kind == VoteKind::Prevote && signature.value == Some(value);
    certificate.signatures.iter().all(one_value).then(|| malachite::PolkaCertificate {
        height,
        round: round_into(certificate.round),
        value_id: value,
        polka_signatures: certificate
            .signatures
            .iter()
            .map(|signature| malachite::PolkaSignature::new(signature.voter, signature.signature))
            .collect(),
    })
}

/// The certificate as a reason to enter a round. Only precommits of a quorum are a reason to leave their round behind.
pub fn round_certificate(certificate: &RoundCertificate, voters: &VoterSet) -> malachite::RoundCertificate<Chain> {
    let precommits = certificate.signatures.iter().all(|signature| signature.kind == VoteKind::Precommit);
    let quorum = power_of(voters, &certificate.signatures) >= voters.quorum();
    malachite::RoundCertificate {
        height: certificate.height,
        round: round_into(certificate.round),
        cert_type: if precommits && quorum { RoundCertificateType::Precommit } else { RoundCertificateType::Skip },
        round_signatures: certificate
            .signatures
            .iter()
            .map(|RoundSignature { kind, value, voter, epoch: _, signature }| {
                malachite::RoundSignature::new(
                    match kind {
                        VoteKind::Prevote => VoteType::Prevote,
                        VoteKind::Precommit => VoteType::Precommit,
                    },
                    value.map_or(NilOrVal::Nil, NilOrVal::Val),
                    *voter,
                    *signature,
                )
            })
            .collect(),
    }
}

/// The power behind the signatures of a certificate, each voter counted once.
pub fn power_of(voters: &VoterSet, signatures: &[RoundSignature]) -> Power {
    let signers: BTreeSet<_> = signatures.iter().map(|signature| signature.voter).collect();
    let powers = signers.iter().filter_map(|signer| voters.get(signer)).map(|entry| entry.power.get());
    Power::new(powers.fold(0, u64::saturating_add))
}

/// Checks that different voters of this set signed all of these votes and together reach the threshold.
#[expect(clippy::result_large_err, reason = "the protocol asks for exactly this error")]
pub fn check_votes(
    incarnation: &Incarnation,
    voters: &VoterSet,
    votes: &[Vote],
    threshold: ThresholdParam,
) -> Result<(), CertificateError<Chain>> {
    let mut signers = BTreeSet::new();
    let mut signed = 0u64;
    let mut checks = Vec::with_capacity(votes.len());
    for Vote { vote, epoch, signature } in votes {
        let entry = voters.get(&vote.voter).ok_or(CertificateError::UnknownValidator(vote.voter))?;
        if !signers.insert(vote.voter) {
            return Err(CertificateError::DuplicateVote(vote.voter));
        }
        if entry.epoch != *epoch {
            return Err(CertificateError::UnknownValidator(vote.voter));
        }
        signed = signed.saturating_add(entry.power.get());
        let bytes = SigningBytes::vote(incarnation, *epoch, vote);
        checks.push(SignatureCheck { key: *entry.session_key.as_bytes(), bytes, signature: *signature });
    }
    let total = voters.total_power().get();
    if !threshold.is_met(signed, total) {
        return Err(CertificateError::NotEnoughVotingPower { signed, total, expected: threshold.min_expected(total) });
    }
    if verify_all(&checks) { Ok(()) } else { Err(CertificateError::VerificationError(None)) }
}
