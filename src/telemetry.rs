//! What happens → log lines on standard error, as text or as JSON, one a line.
//!
//! What must hold: patient data never reaches a line.
//! So [`LOGGABLE`] is the only list of fields that may be written; any other field of any event or span, ours or a dependency's, is dropped.
//! Free text (messages, errors) passes [`crate::domain::phi::redact_text`]; that the messages of our own events hold no values is checked by `tests/architecture.rs`.
//!
//! It writes no files, rotates nothing and sends nothing anywhere: that is for what runs the server.

use crate::domain::{failure::FailureClass, phi::redact_text};
use serde_json::{Map, Value};
use std::{fmt, io};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::MakeWriter,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// The only fields that are written. None of them may ever hold patient data; UIDs are allowed, they are what an operator searches for.
pub const LOGGABLE: &[&str] = &[
    "accepted",
    "address",
    "analysis_id",
    "attempt",
    "attempts",
    "bytes",
    "class",
    "code",
    "command",
    "count",
    "device",
    "done",
    "duration_ms",
    "error",
    "failed",
    "instances",
    "job_id",
    "listen",
    "loss",
    "member",
    "members",
    "message",
    "method",
    "model",
    "numeric_mode",
    "peer",
    "pid",
    "principal",
    "reason",
    "request_id",
    "revision",
    "route",
    "seconds",
    "series_instance_uid",
    "signal",
    "slices",
    "sop_class_uid",
    "sop_instance_uid",
    "stage",
    "state",
    "status",
    "step",
    "stored",
    "study_instance_uid",
    "threads",
    "tiles",
    "total",
    "version",
    "waited_ms",
    "worker",
];

/// What is logged when nobody says otherwise: our own events, and of the dependencies what is wrong.
pub const DEFAULT_FILTER: &str = "warn,ictus=info";

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error(
        "a log filter is a level (error, warn, info, debug, trace) or `target=level` pairs joined by commas, such as `warn,ictus=debug`"
    )]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Logging was set up before.
    #[error("logging was set up twice: this is a defect, please report it")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

impl TelemetryError {
    /// How it is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Filter(_) => FailureClass::Input,
            Self::Twice(_) => FailureClass::Internal,
        }
    }
}

/// Logs to standard error from now on; `filter` is what `--log` says.
///
/// # Errors
/// A filter that is not understood, or a second call.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(TelemetryError::Filter)?;
    let lines = Lines {
        format,
        writer: io::stderr,
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(TelemetryError::Twice)
}

/// Writes one line an event, with its own fields and those of the spans around it.
struct Lines<W> {
    format: Format,
    writer: W,
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.0.extend(outer.0.clone());
            }
        }
        event.record(&mut fields);
        let line = fields.line(self.format, event);
        // A log that cannot be written cannot be logged.
        let _ = io::Write::write_all(
            &mut self.writer.make_writer_for(event.metadata()),
            line.as_bytes(),
        );
    }
}

/// The fields of an event or span that may be written.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        if LOGGABLE.contains(&field.name()) {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }

    fn line(mut self, format: Format, event: &Event<'_>) -> String {
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        let message = self.0.shift_remove("message").unwrap_or_default();
        if format == Format::Json {
            let mut object = Map::new();
            object.insert("time".to_owned(), now.into());
            object.insert("level".to_owned(), level.into());
            object.insert("target".to_owned(), target.into());
            object.insert("message".to_owned(), message);
            object.extend(self.0);
            return format!("{}\n", Value::Object(object));
        }
        let mut line = format!(
            "{now} {level:>5} {target}: {}",
            message.as_str().unwrap_or_default()
        );
        for (name, value) in self.0 {
            line.push_str(&format!(" {name}={value}"));
        }
        // A value with line breaks must not look like another event.
        line.replace(['\n', '\r'], " ") + "\n"
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, redact_text(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.keep(field, crate::domain::phi::redact(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, redact_text(&format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `act` runs, at every level.
    fn logged(format: Format, act: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::registry().with(Lines {
            format,
            writer: move || writer.clone(),
        });
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    fn plant() {
        let error = io::Error::other("no column for \"Planted^Name\" (Planted^Name)");
        let span = tracing::info_span!(
            "stow",
            patient_name = "Planted^Name",
            request_id = "r-1",
            stored = tracing::field::Empty
        );
        let _inside = span.enter();
        span.record("stored", 3);
        span.record("patient_name", "Planted^Name");
        tracing::info!(
            patient_id = "Planted^Name",
            patient.name = ?"Planted^Name",
            uri = %"/studies?PatientName=Planted^Name",
            error = &error as &dyn std::error::Error,
            study_instance_uid = "1.2.3",
            count = 7,
            "stored \"Planted^Name\""
        );
    }

    #[test]
    fn a_name_in_an_unlisted_field_a_span_an_error_or_a_quotation_never_gets_out() {
        for format in [Format::Text, Format::Json] {
            let lines = logged(format, plant);
            assert!(!lines.contains("Planted"), "{lines}");
            for kept in ["r-1", "1.2.3", "count", "7", "no column for", "stored"] {
                assert!(lines.contains(kept), "{kept} is not in {lines}");
            }
        }
    }

    #[test]
    fn a_json_line_is_an_object_with_typed_fields_of_event_and_span() {
        let line: Value = serde_json::from_str(&logged(Format::Json, plant)).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["count"], 7);
        assert_eq!(line["stored"], 3);
        assert_eq!(line["study_instance_uid"], "1.2.3");
        assert!(line.get("patient_id").is_none());
    }

    #[test]
    fn a_line_break_in_a_value_does_not_begin_a_line() {
        let text = logged(
            Format::Text,
            || tracing::warn!(reason = %"a\n2026-01-01 INFO forged", "refused"),
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn no_listed_field_is_named_after_a_person() {
        for field in LOGGABLE {
            let personal = ["name", "patient", "birth", "uri", "path", "query"];
            assert!(!personal.iter().any(|word| field.contains(word)), "{field}");
        }
        assert!(LOGGABLE.is_sorted());
    }

    #[test]
    fn refuses_a_filter_that_it_does_not_understand() {
        let error = init("ictus=loud", Format::Text).unwrap_err();
        assert_eq!(error.class(), FailureClass::Input);
    }
}
