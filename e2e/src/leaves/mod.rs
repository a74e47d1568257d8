//! Every leaf of our specs, two values for each, and what has to come of setting, changing and unsetting it.
//!
//! The leaves are read from the schemas of the generated resource definitions, so that a new field is a new case without
//! anybody thinking of it. What a schema cannot say is in tables: values by hand, leaves that the API server does not
//! let anybody change, and leaves that are not tried, each with its reason. An entry that no leaf needs fails.

mod cases;
mod documents;
mod schema;
mod tables;
mod values;

pub use cases::{LeafCase, Shall, cases};
pub use documents::SUBJECTS;
pub use schema::{Leaf, Step, leaves};
pub use tables::Moment;
pub use values::NAMES;
