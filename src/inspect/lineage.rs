//! The description of the last run's lineage.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::format::object::name_without_paths;
use crate::inspect::catalog::read_catalog;
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::view::no_such;

const NO_JOB: &str = "the catalog has no description of the job: it was never started";

/// The lineage of the last run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineageReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// When the last run was started.
    pub started_ms: u64,
    /// The version of the crate that it was built with.
    pub version: String,
    /// Of the description: 16 hexadecimal digits that change when it does.
    pub fingerprint: String,
    /// The nodes, each after those it reads.
    pub nodes: Vec<LineageNodeReport>,
    /// Whether the catalog is sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// An input, an operation or an output of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineageNodeReport {
    /// Its number.
    pub id: u32,
    /// What it is, such as `map`.
    pub operation: String,
    /// The name the job gave it, `null` for none.
    pub name: Option<String>,
    /// The type of its records.
    pub record_type: String,
    /// The nodes it reads.
    pub parents: Vec<u32>,
    /// Whether records are shuffled by key on the way to it: a wide dependency.
    pub wide: bool,
}

/// Shows the lineage of the last run on the store in `dir`.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect), and [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig)
/// when the catalog has no description of the job: it was never started.
pub fn lineage(dir: &Path) -> Result<LineageReport> {
    let store = open(dir)?;
    settled(&store.paths, || describe(&store, dir), |report| &report.findings)
}

fn describe(store: &ReadStore, dir: &Path) -> Result<LineageReport> {
    let catalog = read_catalog(store)?;
    let mut findings = catalog.findings.clone();
    let job = catalog.history.job.as_ref().ok_or_else(|| no_such(NO_JOB.to_owned()))?;
    let nodes = job.lineage.iter().map(|node| LineageNodeReport {
        id: node.id,
        operation: node.operation.clone(),
        name: Some(node.name.clone()).filter(|name| !name.is_empty()),
        record_type: node.record_type.clone(),
        parents: node.parents.clone(),
        wide: node.wide,
    });
    Ok(LineageReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        started_ms: job.started_ms,
        version: job.version.clone(),
        fingerprint: format!("{:016x}", job.fingerprint),
        nodes: nodes.collect(),
        sound: judge(&mut findings),
        findings,
    })
}

impl LineageReport {
    /// The lineage in the language of Graphviz, from inputs to outputs. Wide dependencies are bold, nodes that
    /// the job named have a second line.
    pub fn to_dot(&self) -> String {
        let mut dot = format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n", quoted(&self.job));
        for node in &self.nodes {
            let name = node.name.as_ref().map_or(String::new(), |name| format!("\n{name}"));
            let label = format!("{}{name}\n{}", node.operation, name_without_paths(&node.record_type));
            let shape = if node.parents.is_empty() { ", shape=ellipse" } else { "" };
            let _ = writeln!(dot, "  n{} [label={}{shape}];", node.id, quoted(&label));
        }
        for node in &self.nodes {
            let style = if node.wide { " [style=bold, label=\"wide\"]" } else { "" };
            for parent in &node.parents {
                let _ = writeln!(dot, "  n{parent} -> n{}{style};", node.id);
            }
        }
        dot + "}\n"
    }
}

/// A quoted string of Graphviz on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push('?'),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_quotes() {
        assert_eq!(quoted("a\"b\\c\nd\re"), r#""a\"b\\c\nd?e""#);
    }
}
