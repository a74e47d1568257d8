//! althing-operator
