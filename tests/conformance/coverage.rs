//! Which operations there are, read from the source, against those that rows cover.

use std::collections::BTreeSet;

use crate::rows;
use crate::source_text::{assert_none, block_end, sources, words};

/// Methods of streams and RDDs that no row is for, and why.
const EXEMPT: [(&str, &str); 11] = [
    ("DStream::print", "writes to the standard output of the test"),
    ("Rdd::to_debug_string", "describes a lineage, computes nothing; its doctest shows it"),
    (
        "StreamingContext::binary_records_stream",
        "reads a directory that is written meanwhile: tests/sources.rs",
    ),
    ("StreamingContext::file_stream", "reads a directory that is written meanwhile: tests/sources.rs"),
    ("StreamingContext::queue_stream", "what is pushed is received, tests/recovery.rs and others crash it"),
    ("StreamingContext::receiver_stream", "fed by a thread of its own; tests/jobs.rs and others run it"),
    ("StreamingContext::replayable_stream", "the input of every row"),
    ("StreamingContext::raw_socket_stream", "reads from the network: tests/sources.rs"),
    ("StreamingContext::socket_stream", "reads from the network: tests/sources.rs"),
    ("StreamingContext::socket_text_stream", "reads from the network; tests/jobs.rs has a peer"),
    ("StreamingContext::text_file_stream", "reads a directory that is written meanwhile; tests/jobs.rs does"),
];

/// Types under `src/dstream` and `src/rdd` that are no streams: what operations are given or give out.
const NO_STREAMS: [(&str, &str); 8] = [
    ("BatchInfo", "given to outputs; the row of `for_each_rdd` checks its content"),
    ("Emitter", "given to `flat_map`"),
    ("EventWindows", "given to `window`; every kind has its row"),
    ("LocalRdds", "makes RDDs without a job, for tests: tests/rdd_ops.rs"),
    ("StateSpec", "given to operators that keep state"),
    ("OperatorName", "given to operators that keep state"),
    ("StateView", "every row that keeps state is compared through it"),
    ("Watermarks", "given to `with_event_time`; the rows of event time have bounds and idle streams"),
];

/// Every `pub fn` of an inherent implementation that makes or takes part in a stream, as `Type::method`, with its
/// place: those of `DStream` and `Rdd` wherever they are, those of any other type beside them, and those of
/// `StreamingContext` that return a stream.
fn operations() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for source in sources("src").iter().filter(|source| is_built(&source.path)) {
        let beside = source.path.starts_with("src/dstream/") || source.path.starts_with("src/rdd/");
        for (at, name) in inherent_impls(&source.shipped) {
            let context = name == "StreamingContext";
            let stream = context || ["DStream", "Rdd"].contains(&&*name);
            let exempt = NO_STREAMS.iter().any(|(exempt, _)| *exempt == name);
            if !stream && (!beside || exempt) {
                continue;
            }
            let body = &source.shipped[at..block_end(&source.shipped, at)];
            let declarations = words(body, "pub ").into_iter().map(|at| &body[at + "pub ".len()..]);
            let taken = |declaration: &&str| !context || returns_stream(declaration);
            for method in declarations.filter(taken).filter_map(method_name) {
                found.push((format!("{name}::{method}"), source.path.clone()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether the feature that the file belongs to is on.
fn is_built(path: &str) -> bool {
    let needed = [("json_lines", cfg!(feature = "json")), ("parquet", cfg!(feature = "parquet"))];
    needed.iter().all(|(name, on)| *on || !path.contains(name))
}

/// Whether the method that is declared here makes a stream.
fn returns_stream(declaration: &str) -> bool {
    let head = &declaration[..declaration.find('{').unwrap_or(declaration.len())];
    head.rfind("->").is_some_and(|at| !words(&head[at..], "DStream").is_empty())
}

/// The name of the method that is declared here, after its `pub`.
fn method_name(declaration: &str) -> Option<String> {
    let declaration =
        ["const ", "async "].into_iter().fold(declaration, |rest, word| rest.trim_start_matches(word));
    declaration.strip_prefix("fn ").map(name_at)
}

/// Where the body of each `impl Type` begins, with the name of the type; implementations of traits are left out.
fn inherent_impls(code: &str) -> Vec<(usize, String)> {
    let starts_line = |at: usize| at == 0 || code.as_bytes()[at - 1] == b'\n';
    let impls = words(code, "impl").into_iter().filter(|&at| starts_line(at));
    let inherent = impls.filter_map(|at| {
        let open = at + code[at..].find('{')?;
        let head = code[at + "impl".len()..open].trim_start();
        let of = head[generics_end(head)..].trim_start();
        let of = of.split("where").next()?;
        words(of, "for").is_empty().then(|| (open, name_at(of.trim_start_matches("crate::"))))
    });
    inherent.collect()
}

/// The end of the `<...>` that the text begins with; an arrow in it closes nothing.
fn generics_end(text: &str) -> usize {
    if !text.starts_with('<') {
        return 0;
    }
    let mut depth = 0;
    let mut before = b' ';
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if before != b'-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
        before = byte;
    }
    text.len()
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn every_operation_is_covered_by_a_row() {
    let covered: BTreeSet<&str> = rows::all().iter().flat_map(|row| row.covers).copied().collect();
    let exempt = |name: &str| EXEMPT.iter().any(|(exempt, _)| *exempt == name);
    let operations = operations();
    let missing = operations.iter().filter(|(name, _)| !covered.contains(&**name) && !exempt(name));
    let missing: Vec<String> = missing
        .map(|(name, path)| {
            format!(
                "{path}: `{name}` is in no row: add one to tests/conformance/rows (main.rs there says how) that \
                 covers \"{name}\""
            )
        })
        .collect();
    assert_none(&missing, "operations that have not been through the suite");
}

#[test]
fn rows_cover_what_there_is_and_what_they_use() {
    let operations: BTreeSet<String> = operations().into_iter().map(|(name, _)| name).collect();
    let written: Vec<_> = sources("tests/conformance/rows").into_iter().map(|source| source.code).collect();
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for row in rows::all() {
        if !names.insert(row.name) {
            problems.push(format!("two rows are called `{}`", row.name));
        }
        for covered in row.covers {
            let method = covered.rsplit("::").next().unwrap_or(covered);
            let of_type = &covered[..covered.len() - method.len()];
            let called = |before: &str| before.ends_with('.') || before.ends_with(of_type);
            let used = |code: &String| words(code, method).iter().any(|&at| called(&code[..at]));
            if !operations.contains(*covered) {
                problems.push(format!("row `{}` covers `{covered}`, which there is not", row.name));
            } else if !written.iter().any(used) {
                problems.push(format!("row `{}` covers `{covered}`, and no row calls it", row.name));
            }
        }
    }
    for (name, _) in EXEMPT {
        if !operations.contains(name) {
            problems.push(format!("`{name}` is exempt, and there is none"));
        }
    }
    assert_none(&problems, "rows that do not fit the source");
}

#[test]
fn methods_are_found_in_every_form_of_implementation() {
    let code = "impl<T: Record> DStream<T> {\n    pub fn a(&self) {}\n    fn b() {}\n    pub(crate) fn c() {}\n}\n\
                impl<F: Fn(u8) -> u8, V> Grid<V, F>\nwhere\n    F: for<'a> Fn(&'a V),\n{\n    pub fn d() {}\n}\n\
                impl<T> Clone for DStream<T> {\n    fn clone() {}\n}\nfn f(x: impl Fn()) {}\n";
    let found: Vec<String> = inherent_impls(code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["DStream", "Grid"]);
    let found: Vec<String> = operations().into_iter().map(|(name, _)| name).collect();
    for known in [
        "DStream::map",
        "DStream::join",
        "DStream::save_as_text_files",
        "Rdd::collect",
        "Rdd::join",
        "StreamingContext::queue_stream",
    ] {
        assert!(found.iter().any(|name| name == known), "{known} is not among {found:?}");
    }
    assert!(!found.iter().any(|name| name == "StreamingContext::start"), "it makes no stream");
}
