//! Runs programs: output captured, errors with the command line, ended when the user interrupts.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Doing, Error, Result};
use crate::interrupt;

/// So much of a failed program's output goes into the error.
const OUTPUT_LINES_MAX: usize = 15;

/// Environment that is kept; a user's Go flags, locale or kubeconfig must not change what the cluster does.
const KEPT: [&str; 13] = [
    "HOME",
    "USER",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOMODCACHE",
    "GOCACHE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A command with a clean environment and a process group of its own: Ctrl-C reaches this tool alone, which then ends
/// the command itself.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).process_group(0);
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"));
    command
}

/// Runs to the end and returns standard output.
///
/// # Errors
/// When the program cannot be started, fails, or the user interrupts.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// Like [`run`], with a text on standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let name = describe(command);
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().doing("start", &name)?;
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_string();
        // The writer is on its own thread: a program that prints before it has read everything must not block us.
        std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    }
    let output = collect(child.stdout.take());
    let errors = collect(child.stderr.take());
    let status = wait(&mut child, &name)?;
    let (output, errors) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
    if status.success() {
        return Ok(output);
    }
    let said = if errors.trim().is_empty() { output } else { errors };
    Err(Error::Command { command: name, status: status.to_string(), output: last_lines(&said) })
}

/// The command line, for people.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{} ...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// The end of a text, as it goes into an error.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(OUTPUT_LINES_MAX);
    lines.get(start..).unwrap_or_default().join("\n")
}

fn wait(child: &mut Child, name: &str) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().doing("wait for", name)? {
            return Ok(status);
        }
        if let Err(interrupted) = interrupt::check() {
            end_group(child);
            return Err(interrupted);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end_group(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe ends the output; what came before it is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_its_line_its_status_and_its_last_words() {
        let error = run(command("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("`sh -c echo no such thing >&2; exit 3` failed (exit status: 3):\nno such thing"),
            "{text}"
        );
    }

    #[test]
    fn input_larger_than_a_pipe_comes_through() {
        let input = "x".repeat(300_000);
        assert_eq!(run_with_input(&mut command("cat"), &input).unwrap(), input);
    }

    #[test]
    fn a_users_kubeconfig_does_not_reach_a_command() {
        let mut command = command("env");
        assert!(!run(&mut command).unwrap().contains("KUBECONFIG"));
    }
}
