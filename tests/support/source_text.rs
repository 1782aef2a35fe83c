//! Reads the source, for tests that check it.
//!
//! Every check works on a copy of a file in which comments, strings and test modules are blanked out and lines
//! keep their numbers, so that what it reports can be looked up.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub struct Source {
    /// Relative to the repository.
    pub path: String,
    pub text: String,
    /// The text with comments, strings and characters blanked out.
    pub code: String,
    /// The same without test modules.
    pub shipped: String,
}

impl Source {
    pub fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below the directory, in the order of their names.
pub fn sources(dir: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(dir), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = blank_text(&text);
            let shipped = if is_test_module(&path) { String::new() } else { blank_test_modules(&code) };
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            Source { path, text, code, shipped }
        })
        .collect()
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether the file is a module that its parent declares under `#[cfg(test)]`.
fn is_test_module(path: &Path) -> bool {
    let own = path.parent().unwrap_or(path).with_extension("rs");
    let parents = [path.with_file_name("mod.rs"), path.with_file_name("lib.rs"), own];
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parents.iter().filter_map(|parent| std::fs::read_to_string(parent).ok()).any(|parent| {
        let code = blank_text(&parent);
        let declared = |code: &str| words(code, &format!("mod {name};")).len();
        declared(&code) > declared(&blank_test_modules(&code))
    })
}

/// Replaces what is not code by spaces, keeping line ends.
pub fn blank_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => at + line_length(&bytes[at..]),
            [b'/', b'*', ..] => block_comment_end(bytes, at),
            [b'r', b'"' | b'#', ..] if !is_word_before(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            [b'"', ..] => quoted_end(bytes, at, b'"'),
            [b'\'', b'\\', ..] => quoted_end(bytes, at, b'\''),
            // A character, not a lifetime.
            [b'\'', rest @ ..] if is_char_literal(rest) => at + 1 + char_length(rest[0]) + 1,
            _ => {
                at += 1;
                continue;
            }
        };
        let end = end.min(bytes.len());
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(out).unwrap()
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b'
}

fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while depth > 0 && at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let end = bytes[open + 1..].windows(close.len()).position(|part| part == close)?;
    Some(open + 1 + end + close.len())
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn char_length(first: u8) -> usize {
    match first {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    }
}

fn is_char_literal(rest: &[u8]) -> bool {
    rest.first().is_some_and(|first| rest.get(char_length(*first)) == Some(&b'\''))
}

/// Replaces the modules under `#[cfg(test)]` by spaces.
pub fn blank_test_modules(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = match (code[start..].find('{'), code[start..].find(';')) {
            (Some(open), semicolon) if semicolon.is_none_or(|semicolon| open < semicolon) => {
                block_end(code, start + open)
            }
            (_, Some(semicolon)) => start + semicolon + 1,
            _ => code.len(),
        };
        out[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        from = end;
    }
    String::from_utf8(out).unwrap()
}

/// The place after the brace that closes the one at `open`.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

pub fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Where `word` stands in the code, not as a part of a longer one.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !is_word(at.checked_sub(1).and_then(|before| bytes.get(before))))
        .filter(|&at| !is_word(word.as_bytes().last()) || !is_word(bytes.get(at + word.len())))
        .collect()
}

pub fn assert_none(problems: &[String], rule: &str) {
    let mut report = String::new();
    for problem in problems {
        let _ = writeln!(report, "  {problem}");
    }
    assert!(problems.is_empty(), "{rule}: {} places\n{report}", problems.len());
}
