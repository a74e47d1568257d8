//! One process that stands in for everything below the API server: it plays the StatefulSet controller, the kubelets,
//! the disruption controller and the nodes themselves, for many networks at once.
//!
//! The nodes answer the real status protocol over mutual TLS, each on an address of its own in 127.64.0.0/10, with the
//! certificate that the operator has issued, and take up another one while they run; heights move, and who does not run
//! does not sign. Blocks are executed by the ledger of real nodes, so that voters come and go by its rules. What they do not
//! do is agree on anything: they serve to test and measure the operator, never the chain.

mod chain;
mod chains;
mod controllers;
mod files;
mod garbage;
mod kubelet;
mod node;
mod tiers;
mod witness;

pub use chains::Chains;
pub use controllers::{Options, StandIn};
pub use kubelet::ANNOTATION_SILENT;
pub use witness::{Papers, Witness};
