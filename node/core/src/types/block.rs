//! Blocks: a header that consensus decides, and the batches of transactions that the header names by digest.

use std::sync::Arc;

use super::{Hash, Height, Identity, Round, TimeMs, Transaction, TransactionError};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const HEADER_VERSION: u8 = 1;
const BATCH_VERSION: u8 = 1;
/// What a transfer takes, with some room.
const TRANSACTION_BYTES_USUAL: usize = 256;
/// What the codec writes before a list.
const LIST_LENGTH_BYTES: usize = 4;

/// The most batches that one block names.
pub const BLOCK_BATCHES_MAX: usize = 256;
/// The most transactions in one batch.
pub const BATCH_TRANSACTIONS_MAX: usize = 10_000;
/// No block is larger than this many bytes, whatever the parameters say.
pub const BLOCK_BYTES_CEILING: usize = 16 * 1024 * 1024;

/// The operations of the state store's log that exist: from `start` (included) to `end` (excluded).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OperationsRange {
    /// The first operation that a node in sync still keeps.
    pub start: u64,
    /// One past the last operation.
    pub end: u64,
}

/// What the state store commits to at one height.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StateRoots {
    /// The root that proofs of single entries lead to.
    pub state_root: Hash,
    /// The root of the log of operations, which state sync checks.
    pub operations_root: Hash,
    /// The operations under [`StateRoots::operations_root`].
    pub operations_range: OperationsRange,
}

/// What the execution of a block produced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Results {
    /// The state after the block.
    pub roots: StateRoots,
    /// The Merkle root of the block's receipts.
    pub receipts_root: Hash,
}

impl Results {
    /// The results named by header 1, before which nothing was executed.
    pub const NONE: Self = Self {
        roots: StateRoots {
            state_root: Hash::ZERO,
            operations_root: Hash::ZERO,
            operations_range: OperationsRange { start: 0, end: 0 },
        },
        receipts_root: Hash::ZERO,
    };
}

/// The header of a block. Its hash is the value that consensus decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// The height of the block, from 1.
    pub height: Height,
    /// The round in which the block was first proposed.
    pub round: Round,
    /// The hash of the header before; the genesis hash in block 1.
    pub parent: Hash,
    /// Who made the block.
    pub proposer: Identity,
    /// When, by the proposer's clock, within bounds.
    pub time: TimeMs,
    /// The digests of the batches, in order of execution.
    pub batches: Vec<Hash>,
    /// [`super::voters_hash`] of the voters of this height and the next.
    pub voters_hash: Hash,
    /// The results of block `height - 2`: of genesis in block 2, [`Results::NONE`] in block 1.
    pub results: Results,
    /// The hash of the parameters in force.
    pub parameters_hash: Hash,
}

impl Header {
    /// The value id of consensus.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/header/1", &self.encode())
    }
}

/// Transactions that travel and are named together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    transactions: Vec<Transaction>,
    digest: Hash,
    /// As it travels and is stored, which is more often than it is made.
    encoded: Vec<u8>,
}

impl Batch {
    /// A batch of at most [`BATCH_TRANSACTIONS_MAX`] transactions.
    pub fn new(transactions: Vec<Transaction>) -> Result<Self, TransactionError> {
        if transactions.len() > BATCH_TRANSACTIONS_MAX {
            return Err(TransactionError::BatchTooLong { found: transactions.len() });
        }
        let mut writer = Writer::with_room(TRANSACTION_BYTES_USUAL * transactions.len());
        writer.u8(BATCH_VERSION);
        writer.list(&transactions);
        Ok(Self::of_encoded(transactions, writer.into_bytes()))
    }

    fn of_encoded(transactions: Vec<Transaction>, encoded: Vec<u8>) -> Self {
        let digest = Hash::tagged("althing/batch/1", &encoded);
        Self { transactions, digest, encoded }
    }

    /// The transactions in order of execution.
    #[must_use]
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The digest that a header names: of all bytes, signatures included. Computed once.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// How many bytes its encoding has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new(Vec::new()).expect("a batch may be empty")
    }
}

/// A header with the batches it names, in the same order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    header: Header,
    batches: Vec<Arc<Batch>>,
}

impl Block {
    /// Puts a header and its batches together, if the header names exactly these.
    pub fn new(header: Header, batches: Vec<Batch>) -> Result<Self, TransactionError> {
        Self::of_shared(header, batches.into_iter().map(Arc::new).collect())
    }

    /// The same with batches that are kept elsewhere too.
    pub fn of_shared(header: Header, batches: Vec<Arc<Batch>>) -> Result<Self, TransactionError> {
        let named = header.batches.len() <= BLOCK_BATCHES_MAX
            && header.batches.len() == batches.len()
            && header.batches.iter().zip(&batches).all(|(digest, batch)| *digest == batch.digest());
        if named {
            Ok(Self { header, batches })
        } else {
            Err(TransactionError::BatchesNotNamed { height: header.height })
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The batches in order of execution.
    #[must_use]
    pub fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// How many bytes its encoding has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let batches: usize = self.batches.iter().map(|batch| batch.bytes()).sum();
        self.header.encode().len() + LIST_LENGTH_BYTES + batches
    }

    /// All transactions in order of execution.
    pub fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.batches.iter().flat_map(|batch| batch.transactions())
    }

    /// The hash of the header, which names everything else.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.header.hash()
    }
}

impl Encode for OperationsRange {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u64(self.start);
        writer.u64(self.end);
    }
}

impl Decode for OperationsRange {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = Self { start: reader.u64("operations range start")?, end: reader.u64("operations range end")? };
        if range.start > range.end {
            return Err(DecodeError::invalid("operations range", "start is past the end"));
        }
        Ok(range)
    }
}

impl Encode for StateRoots {
    fn encode_to(&self, writer: &mut Writer) {
        self.state_root.encode_to(writer);
        self.operations_root.encode_to(writer);
        self.operations_range.encode_to(writer);
    }
}

impl Decode for StateRoots {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            state_root: Hash::decode_from(reader)?,
            operations_root: Hash::decode_from(reader)?,
            operations_range: OperationsRange::decode_from(reader)?,
        })
    }
}

impl Encode for Results {
    fn encode_to(&self, writer: &mut Writer) {
        self.roots.encode_to(writer);
        self.receipts_root.encode_to(writer);
    }
}

impl Decode for Results {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { roots: StateRoots::decode_from(reader)?, receipts_root: Hash::decode_from(reader)? })
    }
}

impl Encode for Header {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(HEADER_VERSION);
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        self.parent.encode_to(writer);
        self.proposer.encode_to(writer);
        self.time.encode_to(writer);
        writer.list(&self.batches);
        self.voters_hash.encode_to(writer);
        self.results.encode_to(writer);
        self.parameters_hash.encode_to(writer);
    }
}

impl Decode for Header {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("Header", HEADER_VERSION)?;
        Ok(Self {
            height: Height::decode_from(reader)?,
            round: Round::decode_from(reader)?,
            parent: Hash::decode_from(reader)?,
            proposer: Identity::decode_from(reader)?,
            time: TimeMs::decode_from(reader)?,
            batches: reader.list("batch digests", BLOCK_BATCHES_MAX)?,
            voters_hash: Hash::decode_from(reader)?,
            results: Results::decode_from(reader)?,
            parameters_hash: Hash::decode_from(reader)?,
        })
    }
}

impl Encode for Batch {
    fn room(&self) -> usize {
        self.encoded.len()
    }

    fn encode_to(&self, writer: &mut Writer) {
        writer.raw(&self.encoded);
    }
}

impl Decode for Batch {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.rest();
        reader.version("Batch", BATCH_VERSION)?;
        let transactions = reader.list("batch transactions", BATCH_TRANSACTIONS_MAX)?;
        let encoded = start.get(..start.len() - reader.remaining()).unwrap_or_default();
        Ok(Self::of_encoded(transactions, encoded.to_vec()))
    }
}

impl Encode for Block {
    fn room(&self) -> usize {
        self.bytes()
    }

    fn encode_to(&self, writer: &mut Writer) {
        self.header.encode_to(writer);
        writer.list(&self.batches);
    }
}

impl Decode for Block {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::decode_from(reader)?;
        let batches = reader.list("block batches", BLOCK_BATCHES_MAX)?;
        Self::new(header, batches).map_err(|error| DecodeError::invalid("Block", error))
    }
}
