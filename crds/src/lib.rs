//! althing-crds
