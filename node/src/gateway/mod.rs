//! The gateway: the public entrance before the nodes. So far its rules.

pub mod rules;
