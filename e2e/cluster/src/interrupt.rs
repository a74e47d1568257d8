//! Ctrl-C, SIGTERM and a closed terminal as a flag that every wait looks at, so that an interrupted command can clean up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Doing, Error, Result};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static SHIELDED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM set the flag instead of ending the process.
///
/// # Errors
/// When the system refuses the handlers.
pub fn listen() -> Result<()> {
    let flag = Arc::clone(ASKED.get_or_init(Arc::default));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).doing("listen for", format!("signal {signal}"))?;
    }
    Ok(())
}

/// While cleaning up nothing may be interrupted; a second Ctrl-C is ignored.
pub fn shield() {
    SHIELDED.store(true, Ordering::SeqCst);
}

/// Fails once Ctrl-C or SIGTERM came.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check() -> Result<()> {
    let asked = ASKED.get().is_some_and(|flag| flag.load(Ordering::SeqCst));
    if asked && !SHIELDED.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Sleeps until Ctrl-C or SIGTERM comes.
pub fn wait() {
    while check().is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A wait: what for, how long, how often to look, and where a person looks when it fails.
#[derive(Debug, Clone, Copy)]
pub struct Wait<'a> {
    /// What is waited for, as a noun phrase.
    pub what: &'a str,
    /// Longest wait.
    pub seconds_max: u64,
    /// Time between two looks.
    pub every_ms: u64,
    /// Where to look when it did not happen.
    pub hint: &'a str,
}

/// Looks until the answer is there, the time is over or the user interrupts.
///
/// # Errors
/// [`Error::Timeout`], [`Error::Interrupted`], or what `look` fails with.
pub fn wait_for<T>(wait: Wait<'_>, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(wait.seconds_max);
    loop {
        check()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(Error::Timeout {
                what: wait.what.to_string(),
                seconds: wait.seconds_max,
                hint: wait.hint.to_string(),
            });
        }
        std::thread::sleep(Duration::from_millis(wait.every_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_first_answer() {
        let mut looks = 0;
        let wait = Wait { what: "the third look", seconds_max: 5, every_ms: 1, hint: "nowhere" };
        let found = wait_for(wait, || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_wait_that_is_over_says_what_did_not_happen_and_where_to_look() {
        let wait = Wait { what: "the moon", seconds_max: 0, every_ms: 1, hint: "see the sky" };
        let error = wait_for(wait, || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "the moon did not happen within 0 s; see the sky");
    }
}
