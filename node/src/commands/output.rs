//! What the client commands print: lines for people, or one JSON document for programs.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use clap::ValueEnum;
use serde_json::Value;

use super::CommandError;

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for people; they may change.
    #[default]
    Text,
    /// One JSON document for programs; keys are only ever added.
    Json,
}

/// Prints a document: as it is in JSON, or as `key: value` lines.
pub fn print(output: Output, document: &Value) -> Result<(), CommandError> {
    let text = match output {
        Output::Json => format!("{document:#}\n"),
        Output::Text => lines(document),
    };
    print_text(&text)
}

/// Prints a text. A reader that has gone (`| head`) is no error.
pub fn print_text(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::internal("failed to write to standard output", error))
        }
        _ => Ok(()),
    }
}

fn lines(document: &Value) -> String {
    let mut text = String::new();
    write_lines(&mut text, document, "");
    text
}

fn write_lines(text: &mut String, value: &Value, key: &str) {
    let line = |text: &mut String, value: &str| {
        // Writing to a String cannot fail.
        let _ = if key.is_empty() { writeln!(text, "{value}") } else { writeln!(text, "{key}: {value}") };
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                write_lines(text, value, &inner);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                write_lines(text, value, &format!("{key}[{index}]"));
            }
        }
        Value::String(value) => line(text, value),
        Value::Null => line(text, "-"),
        Value::Bool(_) | Value::Number(_) => line(text, &value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::lines;

    #[test]
    fn a_document_becomes_one_line_for_each_value() {
        let document = json!({"a": 1, "b": {"c": "text", "d": [true, null]}, "e": []});
        assert_eq!(lines(&document), "a: 1\nb.c: text\nb.d[0]: true\nb.d[1]: -\n");
    }
}
