//! Walking a lineage: running the map sides that a stage needs, and showing it.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

use crate::error::Result;
use crate::exec::Executor;
use crate::rdd::{Lineage, Parent, Rdd, Record, WideDependency};

/// Runs the shuffles that `node` reads, each after those that its own map side reads. An explicit stack:
/// lineages may be deeper than a thread's stack allows.
pub(crate) fn prepare(executor: &Executor, node: &dyn Lineage) -> Result<()> {
    prepare_all(executor, node.parents())
}

/// A step of a walk through a lineage.
enum Step {
    Enter(Parent),
    /// Everything above this shuffle was visited.
    Leave(Arc<dyn WideDependency>),
}

/// The same for what something is about to read.
pub(crate) fn prepare_all(executor: &Executor, parents: Vec<Parent>) -> Result<()> {
    let mut seen = HashSet::new();
    let mut pending: Vec<Step> = parents.into_iter().rev().map(Step::Enter).collect();
    while let Some(step) = pending.pop() {
        let node = match step {
            Step::Enter(Parent::Narrow(node)) => node,
            Step::Enter(Parent::Wide(shuffle)) => {
                let node = shuffle.parent();
                pending.push(Step::Leave(shuffle));
                node
            }
            Step::Leave(shuffle) => {
                shuffle.prepare(executor)?;
                continue;
            }
        };
        if seen.insert(node.info().id) {
            pending.extend(node.parents().into_iter().rev().map(Step::Enter));
        }
    }
    Ok(())
}

impl<T: Record> Rdd<T> {
    /// The lineage as text: this RDD first, what it is made from below it, indented where a stage ends at a
    /// shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// let counts = lines.map(|line| (line, 1u64)).reduce_by_key(|a, b| a + b);
    /// let shown = counts.to_debug_string();
    /// assert!(shown.contains("reduce_by_key"), "{shown}");
    /// assert!(shown.contains("+- shuffle"), "{shown}");
    /// # Ok(()) });
    /// ```
    pub fn to_debug_string(&self) -> String {
        let mut shown = String::new();
        let mut pending: Vec<(usize, Parent)> = vec![(0, Parent::Narrow(self.node.clone()))];
        while let Some((depth, parent)) = pending.pop() {
            let indent = " ".repeat(depth * 3);
            let (depth, node) = match parent {
                Parent::Narrow(node) => (depth, node),
                Parent::Wide(shuffle) => {
                    // Writing to a string cannot fail.
                    let _ = writeln!(shown, "{indent}+- {}", shuffle.describe());
                    (depth + 1, shuffle.parent())
                }
            };
            let info = node.info();
            let indent = " ".repeat(depth * 3);
            let _ = writeln!(
                shown,
                "{indent}({}) {} [{}]{}",
                info.partitions, info.operation, info.id, info.detail
            );
            pending.extend(node.parents().into_iter().rev().map(|parent| (depth, parent)));
        }
        shown
    }
}
