//! Typed access to the nodes of a chain, and what their answers add up to.
//!
//! | file | is |
//! |---|---|
//! | `agreement.rs` | pure: which facts f+1 voters report |
//! | `ceremony.rs` | pure: the next step of a genesis ceremony |
//! | `grants.rs` | pure: what a node may be told about its volume and the former owner of its key |
//! | `book.rs` | the newest reports and facts of every chain, shared by the reconcilers |
//! | `nodes.rs` | the calls to one node |

pub mod agreement;
pub mod book;
pub mod ceremony;
pub mod grants;
pub mod nodes;
