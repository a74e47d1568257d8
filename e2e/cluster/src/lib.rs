//! A real Kubernetes cluster on one Debian machine, without a container engine, for demonstrations and end-to-end tests.
//!
//! Every program is the real one, built from pinned Go modules or unpacked from Debian packages. A *node* is a network
//! namespace with a process tree of its own (mount, pid, uts, ipc namespaces) and its own `/run` and `/var`. Node 1
//! also carries the control plane and the switch that the other nodes hang on. Nothing leaves these network
//! namespaces; a relay (a unix socket) and one listener on 127.0.0.1 lead in.
//!
//! Everything that is made outside the checkout has a name made from the checkout's path, so two checkouts never meet,
//! and `down` finds what is left even after a crash of this tool. `docs/local-cluster.md` tells the whole story.
//!
//! | module | question it answers |
//! |---|---|
//! | [`checkout`] | what is everything called, and where is it? |
//! | [`network`] | which addresses are there, and how are nodes wired? |
//! | [`preflight`], [`build`], [`packages`], [`images`] | can it run here, and where do the programs come from? |
//! | [`pki`] | who may talk to whom? |
//! | [`cgroups`], [`sandbox`], [`daemon`] | how does a node live and end? |
//! | [`control_plane`], [`worker`], [`calico`], [`addons`] | what runs in it? |
//! | [`relay`], [`forward`] | how does the host get in? |
//! | [`up`], [`down`], [`status`], [`membership`], [`selftest`] | the commands |

pub mod addons;
pub mod build;
pub mod calico;
pub mod cgroups;
pub mod checkout;
pub mod command;
pub mod control_plane;
pub mod daemon;
pub mod down;
pub mod error;
pub mod forward;
pub mod images;
pub mod interrupt;
pub mod kubectl;
pub mod membership;
pub mod network;
pub mod packages;
pub mod pki;
pub mod preflight;
pub mod progress;
pub mod relay;
pub mod sandbox;
pub mod selftest;
pub mod state;
pub mod status;
pub mod up;
pub mod worker;

pub use checkout::Checkout;
pub use error::{Error, Result};
