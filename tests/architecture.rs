//! The module graph is a table: a new edge is an edit here, and is reviewed as one.
//!
//! Every file below `src/` is read as tokens; comments, texts and `#[cfg(test)]` items do not count.
//! Paths are followed from `crate`, `self`, `super`, `use` trees, aliases and imported modules to the module that they name.
//!
//! Limits: what a macro makes of its tokens, and types that come through another module's signature, are not seen.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources should panic"
)]

#[path = "architecture/source.rs"]
mod source;

use ictus::telemetry::LOGGABLE;
use source::{Source, Token};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A module, and the modules that it may use: only such as stand above it.
const GRAPH: &[(&str, &[&str])] = &[
    // Words.
    ("domain", &[]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    // Tools.
    ("dicom", &["domain"]),
    ("nifti", &["domain"]),
    ("nn", &["domain"]),
    ("association", &["domain"]),
    ("hl7", &["domain"]),
    ("scu", &["domain", "dicom", "association"]),
    // Stages: blind to each other and to all state.
    ("analysis::assemble", &["domain", "dicom", "nifti"]),
    ("analysis::preprocess", &["domain"]),
    ("analysis::infer", &["domain", "nn"]),
    ("analysis::uncertainty", &["domain"]),
    ("analysis::postprocess", &["domain"]),
    ("analysis::encode", &["domain", "dicom"]),
    // Their order.
    (
        "analysis",
        &[
            "domain",
            "dicom",
            "nn",
            "analysis::assemble",
            "analysis::preprocess",
            "analysis::infer",
            "analysis::uncertainty",
            "analysis::postprocess",
            "analysis::encode",
        ],
    ),
    // State.
    ("archive", &["domain", "dicom"]),
    ("db", &["domain", "dicom"]),
    // Services: they meet in the database, never in each other.
    ("receive", &["domain", "dicom", "archive", "db"]),
    ("worker", &["domain", "dicom", "analysis", "archive", "db"]),
    (
        "deliver",
        &["domain", "dicom", "association", "scu", "hl7", "archive", "db"],
    ),
    (
        "review",
        &["domain", "dicom", "nifti", "analysis", "archive", "db"],
    ),
    ("identity", &["domain", "dicom", "db"]),
    ("workitem", &["domain", "db"]),
    ("audit", &["domain", "archive", "db"]),
    (
        "train",
        &[
            "domain",
            "dicom",
            "nifti",
            "nn",
            "analysis",
            "analysis::assemble",
            "analysis::preprocess",
            "analysis::infer",
            "analysis::uncertainty",
            "analysis::postprocess",
        ],
    ),
    ("import", &["domain", "nn"]),
    // Edges.
    (
        "http",
        &[
            "domain",
            "config",
            "telemetry",
            "dicom",
            "archive",
            "db",
            "receive",
            "review",
            "audit",
            "deliver",
            "identity",
            "workitem",
        ],
    ),
    ("adt", &["domain", "hl7", "db", "identity"]),
    (
        "fetch",
        &[
            "domain",
            "dicom",
            "association",
            "scu",
            "db",
            "receive",
            "deliver",
        ],
    ),
    (
        "dimse",
        &[
            "domain",
            "config",
            "telemetry",
            "dicom",
            "association",
            "scu",
            "archive",
            "db",
            "receive",
        ],
    ),
];

/// The two crates that the modules lie in, and how the one shows the modules of the other as its own.
const ROOTS: [&str; 2] = ["lib.rs", "compute.rs"];
const THE_OTHER_HALF: &str = "pub use ictus_compute::{analysis, dicom, domain, import, nifti, nn, train};";

/// The binary's own modules, which wire everything and are used by nothing.
const BINARY: [&str; 2] = ["main", "cli"];

/// An outside crate, and the only modules that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("anyhow", &["main", "cli"]),
    ("clap", &["main", "cli", "config", "telemetry"]),
    ("indicatif", &["cli"]),
    ("argon2", &["review"]),
    ("rpassword", &["cli"]),
    ("axum", &["http"]),
    ("tower_http", &["http"]),
    ("utoipa_axum", &["http"]),
    ("utoipa_swagger_ui", &["http"]),
    ("rust_embed", &["http", "cli"]),
    ("sqlx", &["db"]),
    ("graphile_worker", &["db"]),
    ("object_store", &["archive"]),
    ("nifti", &["nifti"]),
    (
        "candle_core",
        &[
            "nn",
            "analysis::infer",
            "analysis::uncertainty",
            "train",
            "import",
        ],
    ),
    (
        "candle_nn",
        &["nn", "analysis::infer", "analysis::uncertainty", "train"],
    ),
    ("cudarc", &["nn"]),
    ("dicom_ul", &["association"]),
    ("reqwest", &["deliver", "fetch", "review", "cli"]),
    ("openidconnect", &["review"]),
    ("rustls", &["archive", "deliver", "association"]),
    ("tokio_rustls", &["association"]),
    ("hmac", &["deliver", "review"]),
    ("tracing_subscriber", &["telemetry"]),
];

/// What a stage, being a function of its arguments, may not say: files, surroundings, clocks, chance, waiting.
const IMPURE_PATHS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "futures",
    "rand::rng",
    "rand::random",
    "tokio",
];
const IMPURE_WORDS: &[&str] = &["async", "now_utc", "now_local", "new_v4", "from_os_rng"];

/// Files of a stage that only bring its arguments into memory: a model is read once, before the first analysis.
const LOADERS: &[&str] = &["analysis/infer/bundle.rs"];

/// Words that say nothing about what a module is for.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "common", "manager", "types", "misc"];

/// A longer file is split.
const MOST_LINES: usize = 800;

#[test]
fn the_graph_has_no_cycle() {
    for (at, (module, allowed)) in GRAPH.iter().enumerate() {
        for used in *allowed {
            let above = GRAPH[..at].iter().any(|(name, _)| name == used);
            assert!(above, "{module} may use {used}, which does not stand above it");
        }
    }
}

#[test]
fn owners_are_modules() {
    for (dependency, owners) in OWNERS {
        for owner in *owners {
            let known = GRAPH.iter().any(|(name, _)| name == owner) || BINARY.contains(owner);
            assert!(known, "{owner} owns {dependency} and is no module");
        }
    }
}

#[test]
fn modules_use_only_what_the_graph_allows() {
    let mut faults = Vec::new();
    for file in files() {
        let text = fs::read_to_string(src().join(&file)).unwrap();
        faults.extend(faults_of(&file, &text));
    }
    assert!(faults.is_empty(), "not allowed:\n  {}", faults.join("\n  "));
}

#[test]
fn files_are_short_and_named_after_what_they_do() {
    let mut faults = Vec::new();
    for file in files() {
        let lines = fs::read_to_string(src().join(&file)).unwrap().lines().count();
        if lines > MOST_LINES {
            faults.push(format!(
                "{} has {lines} lines, at most {MOST_LINES} are allowed",
                file.display()
            ));
        }
        for part in file.with_extension("").iter() {
            if EMPTY_NAMES.contains(&part.to_str().unwrap()) {
                faults.push(format!("{} is called {}", file.display(), part.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file, relative to `src/`.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![src()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(src()).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// The row of the graph that a path from the crate's root belongs to.
fn row_of(path: &[String]) -> Option<String> {
    let two = path.iter().take(2).cloned().collect::<Vec<_>>().join("::");
    let one = path.first()?;
    let known = |name: &str| GRAPH.iter().any(|(row, _)| *row == name) || BINARY.contains(&name);
    [two.as_str(), one.as_str()]
        .into_iter()
        .find(|name| known(name))
        .map(str::to_owned)
}

/// All that a file does and may not, in words.
fn faults_of(file: &Path, text: &str) -> Vec<String> {
    let source = Source::read(file, &text.replacen(THE_OTHER_HALF, "", 1));
    let mut faults = BTreeSet::new();
    if ROOTS.iter().any(|root| file == Path::new(root)) {
        let strange = source
            .words()
            .any(|word| matches!(word, "use" | "fn" | "struct" | "macro_rules"));
        if strange {
            faults.insert("does more than declare modules, which would hide edges".to_owned());
        }
    } else {
        match row_of(&source.module) {
            None => drop(faults.insert("belongs to no module of the graph".to_owned())),
            Some(module) => {
                check_edges(&module, &source, &mut faults);
                check_owners(&module, &source, &mut faults);
                let loads = LOADERS.iter().any(|loader| file == Path::new(loader));
                if module.starts_with("analysis::") && !loads {
                    check_purity(&source, &mut faults);
                }
            }
        }
    }
    check_events(&source.tokens, &mut faults);
    faults
        .into_iter()
        .map(|fault| format!("{}: {fault}", file.display()))
        .collect()
}

fn check_edges(module: &str, source: &Source, faults: &mut BTreeSet<String>) {
    let in_binary = BINARY.contains(&module);
    let allowed = GRAPH
        .iter()
        .find(|(name, _)| *name == module)
        .map_or(&[][..], |(_, allowed)| allowed);
    for path in source.inside_paths() {
        let said = format!("crate::{}", path.join("::"));
        let Some(used) = row_of(path) else {
            faults.insert(format!("names {said}, which is in no module of the graph"));
            continue;
        };
        if *path == ["analysis", "*"] {
            faults.insert(format!("imports {said}, which would hide edges"));
        }
        if used != module && !in_binary && !allowed.contains(&used.as_str()) {
            faults.insert(format!("{module} uses {used} ({said})"));
        }
    }
}

fn check_owners(module: &str, source: &Source, faults: &mut BTreeSet<String>) {
    for path in source.outside_paths() {
        for (dependency, owners) in OWNERS {
            if path.first().is_some_and(|first| first == dependency) && !owners.contains(&module) {
                faults.insert(format!(
                    "{module} names {dependency}, which is for {}",
                    owners.join(", ")
                ));
            }
        }
    }
}

fn check_purity(source: &Source, faults: &mut BTreeSet<String>) {
    for path in source.outside_paths() {
        let said = format!("{}::", path.join("::"));
        if let Some(impure) = IMPURE_PATHS
            .iter()
            .find(|impure| said.starts_with(&format!("{impure}::")))
        {
            faults.insert(format!("is a stage and names {impure}"));
        }
    }
    for word in source.words().filter(|word| IMPURE_WORDS.contains(word)) {
        faults.insert(format!("is a stage and says {word}"));
    }
}

/// Log events carry values in fields of the list only, and their message is fixed: else patient data could ride in it.
fn check_events(tokens: &[Token], faults: &mut BTreeSet<String>) {
    for event in source::events(tokens) {
        for field in event.fields {
            if !LOGGABLE.contains(&field.as_str()) {
                faults.insert(format!(
                    "logs the field {field}, which is not in telemetry::LOGGABLE"
                ));
            }
        }
        if event
            .message
            .is_some_and(|message| message.replace("{{", "").contains('{'))
        {
            faults.insert("logs a message with a value in it; values go into fields".to_owned());
        }
    }
}

mod planted_faults {
    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        faults_of(Path::new(file), text)
    }

    #[track_caller]
    fn caught(file: &str, text: &str, word: &str) {
        let found = faults(file, text);
        assert!(
            found.iter().any(|fault| fault.contains(word)),
            "{word} not in {found:?}"
        );
    }

    #[track_caller]
    fn passes(file: &str, text: &str) {
        assert_eq!(faults(file, text), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_is_caught_however_it_is_spelt() {
        let file = "analysis/encode/seg.rs";
        for text in [
            "use crate::db::Db;",
            "use crate::{domain::uid::Uid, db::{self, Db}};",
            "use {crate::domain::uid::Uid, crate::db};",
            "fn f(x: &crate::db::Db) {}",
            "use super::super::super::db::Db;",
            "mod inner { use super::super::super::super::db::Db; }",
            "use crate as root; fn f(x: &root::db::Db) {}",
            "pub use crate::db as state;",
        ] {
            caught(file, text, "analysis::encode uses db");
        }
        passes(
            file,
            "use crate::{domain::{uid::Uid, volume::Volume}, dicom::instance::Instance};",
        );
    }

    #[test]
    fn a_stage_may_not_use_another_nor_their_order() {
        for text in [
            "use super::uncertainty::combine;",
            "use crate::analysis::uncertainty::combine;",
        ] {
            caught(
                "analysis/encode/mod.rs",
                text,
                "analysis::encode uses analysis::uncertainty",
            );
        }
        caught(
            "analysis/encode/seg.rs",
            "use crate::analysis::run;",
            "analysis::encode uses analysis",
        );
        passes(
            "analysis/mod.rs",
            "use encode::encode; use crate::analysis::assemble::assemble;",
        );
        passes(
            "analysis/encode/seg.rs",
            "use super::{Stamp, codes::X}; use crate::analysis::encode::pm;",
        );
    }

    #[test]
    fn a_module_reached_through_an_imported_parent_is_caught() {
        let text = "use crate::analysis; fn f() { analysis::encode::encode(); }";
        caught("worker/mod.rs", text, "worker uses analysis::encode");
        let text = "use crate::analysis as a; fn f() { a::encode::encode(); }";
        caught("worker/mod.rs", text, "worker uses analysis::encode");
        caught("worker/mod.rs", "use crate::analysis::*;", "hide edges");
        caught("worker/mod.rs", "use crate::*;", "no module of the graph");
    }

    #[test]
    fn services_may_not_meet() {
        caught(
            "worker/claim.rs",
            "use crate::receive::Receiver;",
            "worker uses receive",
        );
        caught(
            "receive/mod.rs",
            "use crate::audit::verify;",
            "receive uses audit",
        );
        caught("http/mod.rs", "use crate::worker::Worker;", "http uses worker");
    }

    #[test]
    fn an_outside_crate_stays_with_its_owner() {
        for (file, text, word) in [
            ("worker/mod.rs", "use sqlx::PgPool;", "names sqlx"),
            (
                "worker/mod.rs",
                "#[derive(sqlx::FromRow)] struct Row;",
                "names sqlx",
            ),
            ("domain/uid.rs", "use {anyhow::Result, std::fmt};", "names anyhow"),
            ("receive/mod.rs", "fn f(b: ::axum::body::Body) {}", "names axum"),
            ("receive/mod.rs", "use axum as web;", "names axum"),
            (
                "analysis/encode/mod.rs",
                "extern crate candle_core;",
                "names candle_core",
            ),
            (
                "telemetry.rs",
                "use graphile_worker::Worker;",
                "names graphile_worker",
            ),
        ] {
            caught(file, text, word);
        }
        passes(
            "analysis/assemble/mod.rs",
            "mod nifti; pub use nifti::from_nifti;",
        );
        passes("db/private.rs", "use sqlx::postgres::PgConnectOptions;");
        passes(
            "cli/serve.rs",
            "use anyhow::Result; use ictus::{db::Db, http::router}; use super::Common;",
        );
    }

    #[test]
    fn a_stage_has_no_clock_files_or_chance() {
        for (text, word) in [
            ("use std::{fs, path::Path};", "std::fs"),
            (
                "fn f() { let t = std::time::Instant::now(); }",
                "std::time::Instant",
            ),
            ("use std::time::{Duration, SystemTime};", "std::time::SystemTime"),
            ("fn f() { time::OffsetDateTime::now_utc(); }", "now_utc"),
            ("async fn f() {}", "async"),
            ("fn f() { rand::rng(); }", "rand::rng"),
        ] {
            caught("analysis/preprocess/crop.rs", text, word);
        }
        passes("analysis/infer/bundle.rs", "use std::fs;");
        passes(
            "analysis/preprocess/crop.rs",
            "use std::time::Duration; use rand::Rng;",
        );
    }

    #[test]
    fn logged_values_are_fields_of_the_list() {
        caught(
            "db/mod.rs",
            r#"fn f() { tracing::info!(patient_name = %n, "stored"); }"#,
            "patient_name",
        );
        caught(
            "db/mod.rs",
            r#"fn f() { info!(count, %name, "stored"); }"#,
            "field name",
        );
        caught(
            "db/mod.rs",
            r#"fn f() { warn!("cannot store {name}"); }"#,
            "value in it",
        );
        caught(
            "db/mod.rs",
            r#"fn f() { tracing::error_span!("job", name = ?x).entered(); }"#,
            "field name",
        );
        passes(
            "db/mod.rs",
            r#"fn f() { tracing::info!(count = a + 1, error = %redact(&e), "stored {{}}"); }"#,
        );
    }

    #[test]
    fn comments_texts_and_tests_do_not_count() {
        passes(
            "domain/uid.rs",
            r##"
            //! See crate::db.
            /* crate::db /* nested */ crate::http */
            const A: &str = "crate::db"; const B: &str = r#"use "crate::db";"#; const C: char = '"';
            fn f<'a>(x: &'a str) -> &'a str { x }
            #[cfg(test)]
            mod tests { use super::*; use crate::db::Db; fn f() { if true { sqlx::query("") } } }
            #[cfg(test)]
            use crate::db::Db;
            "##,
        );
        caught(
            "domain/uid.rs",
            "#[cfg(test)] mod tests {} use crate::db::Db;",
            "domain uses db",
        );
    }

    #[test]
    fn the_root_only_declares_modules_and_strangers_are_named() {
        caught("lib.rs", "pub mod db; pub use db::Db;", "more than declare");
        passes("lib.rs", "//! Architecture.\npub mod db;");
        caught("mystery.rs", "", "no module of the graph");
        caught("db/mod.rs", "use crate::Secret;", "no module of the graph");
    }
}
