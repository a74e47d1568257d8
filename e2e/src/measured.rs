//! What cases have measured, for `target/e2e.json`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static MEASURED: Mutex<BTreeMap<&str, f64>> = Mutex::new(BTreeMap::new());

/// Says and keeps a number; its name ends with its unit.
pub fn note(name: &'static str, value: f64) {
    println!("    {name}: {value:.1}");
    MEASURED.lock().unwrap_or_else(PoisonError::into_inner).insert(name, value);
}

/// Everything so far.
#[must_use]
pub fn all() -> BTreeMap<&'static str, f64> {
    MEASURED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
