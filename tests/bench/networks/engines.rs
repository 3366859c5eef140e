//! Talks to `engines.py`.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A Python process that holds the outside engines.
pub(crate) struct Engines {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Engines {
    /// Starts the interpreter that `ICTUS_BENCH_PYTHON` names.
    pub(crate) fn start(folder: &Path, threads: usize) -> Option<Self> {
        let Ok(python) = std::env::var("ICTUS_BENCH_PYTHON") else {
            println!("ICTUS_BENCH_PYTHON is not set: PyTorch, ONNX Runtime and OpenVINO are left out");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bench/networks/engines.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(folder)
            .env("ICTUS_BENCH_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            ask: child.stdin.take().unwrap(),
            answer: BufReader::new(child.stdout.take().unwrap()),
            child,
        })
    }

    /// Sends a line and waits for the answer that `parse` understands; what engines print themselves is skipped.
    fn ask<T>(&mut self, line: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        writeln!(self.ask, "{line}").unwrap();
        self.ask.flush().unwrap();
        loop {
            let mut answer = String::new();
            let read = self.answer.read_line(&mut answer).unwrap();
            assert!(read > 0, "the engines stopped; their reason is above");
            if let Some(answer) = parse(&answer) {
                return answer;
            }
        }
    }

    /// Builds all engines for a network; the names of those that are there.
    pub(crate) fn load(&mut self, name: &str) -> Vec<String> {
        self.ask(&format!("load {name}"), |answer| {
            let names = answer.strip_prefix("engines ")?;
            Some(names.split_whitespace().map(str::to_owned).collect())
        })
    }

    /// Runs one engine once: milliseconds, and the largest difference to our output.
    pub(crate) fn run(&mut self, name: &str) -> (f64, f64) {
        self.ask(&format!("run {name}"), |answer| {
            let (ms, difference) = answer.trim().split_once(' ')?;
            Some((ms.parse().ok()?, difference.parse().ok()?))
        })
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        // Its input closes with us; what is left to do is to collect it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
