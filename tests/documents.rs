//! What the documents name exists: a word in code in `docs/` is one that the source declares.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/source_text.rs"]
mod source_text;

use std::collections::BTreeSet;

use source_text::{assert_none, is_word, sources};

/// Words in code that are not declared in the source, and what they are.
const EXEMPT: [(&str, &str); 4] =
    [("millpond", "the command"), ("json", "a feature"), ("parquet", "a feature"), ("sqlite", "a feature")];

/// The identifiers of a text, each with where it begins.
fn identifiers(text: &str) -> Vec<(usize, &str)> {
    let bytes = text.as_bytes();
    let is_start = |at: usize| is_word(bytes.get(at)) && (at == 0 || !is_word(bytes.get(at - 1)));
    let end = |at: usize| (at..).find(|&at| !is_word(bytes.get(at))).unwrap_or(bytes.len());
    (0..bytes.len()).filter(|&at| is_start(at)).map(|at| (at, &text[at..end(at)])).collect()
}

/// The public functions, types, traits, fields, variants, modules and features that the source declares.
fn declared() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources("src").into_iter().chain(sources("derive/src")) {
        for line in source.shipped.lines().map(str::trim_start) {
            let words = identifiers(line);
            let keyword = words
                .iter()
                .position(|(_, word)| ["fn", "struct", "enum", "trait", "type", "mod"].contains(word));
            let is_member =
                line.starts_with("pub ") || line.starts_with("fn ") || line.starts_with("async fn ");
            if let Some(at) = keyword.filter(|_| is_member)
                && let Some((_, name)) = words.get(at + 1)
            {
                found.insert((*name).to_owned());
            }
            // A field (of the macro that makes the builder's methods, too) or a variant.
            let bare = line.strip_prefix("pub ").unwrap_or(line);
            if let Some((0, name)) = identifiers(bare).first()
                && ends_declaration(name, &bare[name.len()..])
            {
                found.insert((*name).to_owned());
            }
        }
    }
    found
}

/// Whether what follows the first word of a line makes it the name of a field or of a variant.
fn ends_declaration(name: &str, rest: &str) -> bool {
    if name.starts_with(|c: char| c.is_ascii_uppercase()) {
        rest.starts_with([',', '(']) || rest.starts_with(" {")
    } else {
        rest.starts_with(": ")
    }
}

/// The spans in code of a document, each with its line; blocks of code are left out, they run as doctests.
fn spans(text: &str) -> Vec<(usize, &str)> {
    let mut in_block = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let code = line.split('`').enumerate().filter(|(at, _)| at % 2 == 1).map(|(_, span)| span);
            found.extend(code.map(|span| (number + 1, span)));
        }
    }
    found
}

fn unknown(path: &str, text: &str, declared: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, span) in spans(text) {
        // A path of a file is a link's text, not a name.
        for (_, word) in identifiers(span).into_iter().filter(|_| !span.contains('/')) {
            let is_number = word.starts_with(|c: char| c.is_ascii_digit());
            if !is_number && !declared.contains(word) && !EXEMPT.iter().any(|(exempt, _)| *exempt == word) {
                problems.push(format!("{path}:{line}: `{word}` in `{span}`"));
            }
        }
    }
    problems
}

#[test]
fn names_in_the_documents_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let declared = declared();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        // What these have in code are commands and programs; tests/inspector_verbs.rs runs those of the tool.
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        if !is_page || path.ends_with("tool.md") || path.ends_with("performance.md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        problems.extend(unknown(&path.display().to_string(), &text, &declared));
    }
    assert_none(&problems, "a document names what the source does not declare");
}

#[test]
fn the_check_finds_a_name_that_does_not_exist() {
    let declared = declared();
    for known in ["update_state_by_key", "batch_interval", "Graceful", "StorageLevel", "initial_rate", "idle"]
    {
        assert!(declared.contains(known), "{known}");
    }
    let text =
        "`reduce_by_key`\n```text\nno_name_in_a_block\n```\nand `Visit::Sometimes` and `reduce_by_keys`\n";
    let found = unknown("page.md", text, &declared);
    assert_eq!(
        found,
        ["page.md:5: `Sometimes` in `Visit::Sometimes`", "page.md:5: `reduce_by_keys` in `reduce_by_keys`"]
    );
}
