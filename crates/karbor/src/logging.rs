//! What the program logs, and how.

use std::fmt::Debug;

use karbor_manager::Config;
use karbor_model::one_line;
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    field::MakeExt as _,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::settings;

/// What is logged, to be changed while the program runs.
pub(crate) struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// `KARBOR_LOG` chooses, whatever the configuration says.
    by_environment: bool,
}

impl LogFilter {
    /// Logs what the configuration wants, unless `KARBOR_LOG` says otherwise.
    pub(crate) fn apply(&self, config: &Config) -> Result<(), Box<dyn std::error::Error>> {
        let filter = settings::log_filter(config)?;
        if !self.by_environment {
            self.handle.reload(filter)?;
        }
        Ok(())
    }
}

/// `KARBOR_LOG` chooses what is logged (`info`, `karbor_protection=debug`, …), `KARBOR_LOG_FORMAT=json`
/// how.
pub(crate) fn log_to_stderr(default: &str) -> LogFilter {
    let chosen = std::env::var("KARBOR_LOG").ok();
    let chosen = chosen.filter(|chosen| !chosen.trim().is_empty());
    let chosen = chosen.and_then(|chosen| EnvFilter::try_new(chosen).ok());
    let by_environment = chosen.is_some();
    let (filter, handle) = reload::Layer::new(chosen.unwrap_or_else(|| EnvFilter::new(default)));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if std::env::var("KARBOR_LOG_FORMAT").is_ok_and(|format| format == "json") {
        // JSON escapes what it holds.
        layer.json().boxed()
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let layer = layer.with_ansi(terminal);
        layer.fmt_fields(in_one_line()).boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .init();
    LogFilter {
        handle,
        by_environment,
    }
}

/// Fields, and the message, of a log line: whatever they hold, it stays one line and commands no terminal.
fn in_one_line() -> impl for<'writer> FormatFields<'writer> {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let value = format!("{value:?}");
        let value = one_line(&value);
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(
                writer,
                "{}={value}",
                name.strip_prefix("r#").unwrap_or(name)
            ),
        }
    };
    debug_fn(field).delimited(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_name_forges_no_log_line() {
        let lines = Lines::default();
        let to = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || to.clone())
            .fmt_fields(in_one_line())
            .finish();
        let name = "a\n2026-11-30T00:00:00Z  INFO karbor: all is well\u{1b}[2J";
        tracing::subscriber::with_default(log, || {
            let span = tracing::info_span!("restore", file = %name);
            let _inside = span.enter();
            tracing::warn!(file = %name, text = name, error = ?std::io::Error::other(name), "left out: {name}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("left out: a\\n2026"), "{text}");
        assert!(text.contains(" file=a\\n2026"), "{text}");
    }
}
