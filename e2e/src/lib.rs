//! althing-e2e
