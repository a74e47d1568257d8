//! althing-node
