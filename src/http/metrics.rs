//! What the server did → counters in the Prometheus text format at `/metrics`.
//!
//! Labels are route templates, methods, status codes and states, never a value from a request: no UID, no name.
//! It keeps counters of this process only; gauges come from the database when they are asked for.
//!
//! Source: Prometheus text exposition format 0.0.4.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Upper bounds of the request-duration buckets in seconds: a lookup, a page of a list, a study.
const BUCKETS_S: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

#[derive(Debug, Default, Clone)]
struct Series {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum: Duration,
}

/// The counters of this process.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), Series>>,
    stored_instances: AtomicU64,
    failed_instances: AtomicU64,
    received_bytes: AtomicU64,
}

impl Metrics {
    /// Counts the outcome of one STOW request.
    pub fn count_stow(&self, stored: usize, failed: usize, bytes: u64) {
        self.stored_instances.fetch_add(stored as u64, Ordering::Relaxed);
        self.failed_instances.fetch_add(failed as u64, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_request(&self, method: String, route: String, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = requests.entry((route, method, status)).or_default();
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS_S) {
            *bucket += u64::from(took.as_secs_f64() <= bound);
        }
        series.count += 1;
        series.sum += took;
    }

    /// The text of `/metrics`; `studies` are numbers of studies by their state, `deliveries` those of deliveries by target
    /// and state.
    #[must_use]
    pub fn text(&self, studies: &[(String, i64)], deliveries: &[(String, String, i64)]) -> String {
        let mut out = String::new();
        self.write(&mut out, studies, deliveries).unwrap_or_default();
        out
    }

    fn write(
        &self,
        out: &mut String,
        studies: &[(String, i64)],
        deliveries: &[(String, String, i64)],
    ) -> std::fmt::Result {
        writeln!(
            out,
            "# HELP ictus_http_request_duration_seconds Time to the head of the answer."
        )?;
        writeln!(out, "# TYPE ictus_http_request_duration_seconds histogram")?;
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for ((route, method, status), series) in &requests {
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            let name = "ictus_http_request_duration_seconds";
            for (count, bound) in series.buckets.iter().zip(BUCKETS_S) {
                writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count)?;
            writeln!(out, "{name}_sum{{{labels}}} {}", series.sum.as_secs_f64())?;
            writeln!(out, "{name}_count{{{labels}}} {}", series.count)?;
        }
        for (name, help, value) in [
            (
                "ictus_stow_stored_instances_total",
                "Instances stored through STOW-RS.",
                &self.stored_instances,
            ),
            (
                "ictus_stow_failed_instances_total",
                "Instances refused by STOW-RS.",
                &self.failed_instances,
            ),
            (
                "ictus_stow_received_bytes_total",
                "Bytes of instances taken by STOW-RS.",
                &self.received_bytes,
            ),
        ] {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter")?;
            writeln!(out, "{name} {}", value.load(Ordering::Relaxed))?;
        }
        writeln!(
            out,
            "# HELP ictus_studies Studies by what the worklist says of them."
        )?;
        writeln!(out, "# TYPE ictus_studies gauge")?;
        for (state, count) in studies {
            writeln!(out, "ictus_studies{{state=\"{state}\"}} {count}")?;
        }
        writeln!(
            out,
            "# HELP ictus_deliveries Deliveries of results by target and state; a dead one waits for a person."
        )?;
        writeln!(out, "# TYPE ictus_deliveries gauge")?;
        for (target, state, count) in deliveries {
            writeln!(
                out,
                "ictus_deliveries{{target=\"{target}\",state=\"{state}\"}} {count}"
            )?;
        }
        Ok(())
    }
}

/// Middleware: counts each request under the template of its route.
pub async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("page", MatchedPath::as_str)
        .to_owned();
    let response = next.run(request).await;
    metrics.count_request(method, route, response.status().as_u16(), start.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_cumulative_buckets_under_route_templates() {
        let metrics = Metrics::default();
        let route = "/dicom-web/studies/{study}".to_owned();
        metrics.count_request("GET".to_owned(), route.clone(), 200, Duration::from_millis(20));
        metrics.count_request("GET".to_owned(), route, 200, Duration::from_secs(60));
        metrics.count_stow(2, 1, 99);
        let text = metrics.text(
            &[("flagged".to_owned(), 3)],
            &[("pacs".to_owned(), "dead".to_owned(), 2)],
        );
        let labels = "route=\"/dicom-web/studies/{study}\",method=\"GET\",status=\"200\"";
        for line in [
            format!("ictus_http_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 0"),
            format!("ictus_http_request_duration_seconds_bucket{{{labels},le=\"0.025\"}} 1"),
            format!("ictus_http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
            "ictus_stow_stored_instances_total 2".to_owned(),
            "ictus_studies{state=\"flagged\"} 3".to_owned(),
            "ictus_deliveries{target=\"pacs\",state=\"dead\"} 2".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
