//! Tests of everything that a node keeps on its volume.
