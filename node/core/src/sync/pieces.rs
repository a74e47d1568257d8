//! How the operations behind a state are cut into pieces, each of which is proved by itself.
//!
//! The first piece of a log whose beginning is pruned is its boundary: one operation with the nodes that stand for all
//! operations before it. The others follow in runs of [`OPERATIONS_PER_PIECE`].

use crate::types::OperationsRange;

/// How many operations one piece has at most. With the largest entries, of which a block writes one, it stays some MiB.
pub const OPERATIONS_PER_PIECE: u64 = 256;

/// One piece of the operations of a state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StatePiece {
    /// How many operations the whole log has, which says against which root it is proved.
    pub size: u64,
    /// The first operation.
    pub start: u64,
    /// How many operations.
    pub count: u64,
    /// What it brings.
    pub kind: PieceKind,
}

/// What a piece brings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PieceKind {
    /// One operation, and what stands for those before it.
    Boundary,
    /// Operations.
    Operations,
}

/// How many pieces a range has.
#[must_use]
pub fn piece_count(range: &OperationsRange) -> u64 {
    let boundary = u64::from(range.start > 0 && range.start < range.end);
    let rest = range.end.saturating_sub(range.start.saturating_add(boundary));
    boundary.saturating_add(rest.div_ceil(OPERATIONS_PER_PIECE))
}

/// The piece of this number, from 0; nothing past the last one.
#[must_use]
pub fn piece(range: &OperationsRange, number: u64) -> Option<StatePiece> {
    if number >= piece_count(range) {
        return None;
    }
    let OperationsRange { start, end } = *range;
    let pruned = u64::from(start > 0);
    let Some(run) = number.checked_sub(pruned) else {
        return Some(StatePiece { size: end, start, count: 1, kind: PieceKind::Boundary });
    };
    let first = start.checked_add(pruned)?.checked_add(run.checked_mul(OPERATIONS_PER_PIECE)?)?;
    let count = end.checked_sub(first)?.min(OPERATIONS_PER_PIECE);
    Some(StatePiece { size: end, start: first, count, kind: PieceKind::Operations })
}

#[cfg(test)]
mod tests {
    use super::{OPERATIONS_PER_PIECE, PieceKind, StatePiece, piece, piece_count};
    use crate::types::OperationsRange;

    #[test]
    fn the_pieces_of_a_range_follow_each_other_without_gaps() {
        for (start, end) in [(0, 0), (0, 1), (0, 256), (0, 257), (5, 6), (256, 512), (256, 513), (256, 2_000)] {
            let range = OperationsRange { start, end };
            let pieces: Vec<StatePiece> = (0..).map_while(|number| piece(&range, number)).collect();
            assert_eq!(pieces.len() as u64, piece_count(&range), "{range:?}");
            let mut next = start;
            for (number, piece) in pieces.iter().enumerate() {
                assert_eq!((piece.size, piece.start), (end, next), "{range:?}");
                assert_eq!(piece.kind == PieceKind::Boundary, start > 0 && number == 0, "{range:?}");
                assert!((1..=OPERATIONS_PER_PIECE).contains(&piece.count), "{range:?}");
                next += piece.count;
            }
            assert_eq!(next, end, "{range:?}");
        }
    }
}
