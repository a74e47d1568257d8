//! althing-cluster
