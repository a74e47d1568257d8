//! How a node that is behind catches up.
