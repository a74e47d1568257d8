//! The cluster's own kubectl, as administrator, through the listener on 127.0.0.1.

use std::process::Command;

use crate::checkout::Checkout;
use crate::command::{command, run, run_with_input};
use crate::error::Result;

/// Runs a command and returns what it printed.
///
/// # Errors
/// When it fails; the error has kubectl's own words.
pub fn kubectl(checkout: &Checkout, arguments: &[&str]) -> Result<String> {
    run(prepare(checkout).args(arguments))
}

/// Applies documents; they are owned by the field manager `cluster`.
///
/// # Errors
/// When the API server refuses one.
pub fn apply(checkout: &Checkout, documents: &str) -> Result<()> {
    let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=cluster", "-f", "-"];
    run_with_input(prepare(checkout).args(arguments), documents).map(drop)
}

fn prepare(checkout: &Checkout) -> Command {
    let mut kubectl = command(checkout.bin().join("kubectl"));
    kubectl.arg("--kubeconfig").arg(checkout.kubeconfig());
    // A cache in the state folder: a user's own ~/.kube stays alone.
    kubectl.arg("--cache-dir").arg(checkout.state().join("kubectl-cache"));
    kubectl
}
