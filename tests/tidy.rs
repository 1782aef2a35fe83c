//! The rules of the source, checked by reading it: which layer may use which, sizes, and words that do not
//! belong. CONTRIBUTING.md gives the reasons.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/source_text.rs"]
mod source_text;

use source_text::{assert_none, blank_test_modules, blank_text, block_end, is_word, line_of, sources, words};

/// The modules of `src/lib.rs` in its order: each uses only itself and those before it.
const LAYERS: [&str; 20] = [
    "error",
    "id",
    "time",
    "config",
    "record",
    "format",
    "store",
    "exec",
    "rdd",
    "state",
    "receive_log",
    "source",
    "batch",
    "sink",
    "dstream",
    "checkpoint",
    "driver",
    "context",
    "inspect",
    "maintenance",
];

/// Modules that only pass on what others define, or stand beside the crate; they may use any layer.
const BESIDE: [&str; 5] = ["lib", "fuzzing", "testkit", "doc", "cases"];

/// The longest function and the longest file, in lines.
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// The first segments of the paths that begin with `crate::`, `{a, b::c}` groups included.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(_) => group_items(&rest[..block_end(rest, 0)]),
        };
        for name in names {
            let name = name.trim_start();
            let end = name.bytes().position(|byte| !is_word(Some(&byte))).unwrap_or(name.len());
            found.push((at, name[..end].to_owned()));
        }
    }
    found
}

/// The items of `{a, b::{c, d}}` at its outermost level.
fn group_items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 1, Vec::new());
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 1 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&group[start..group.len().saturating_sub(1)]);
    items.retain(|item| !item.trim().is_empty());
    items
}

/// Where an item that `src/lib.rs` passes on at the root comes from, such as `crate::Key`.
fn module_of_root_name<'a>(lib: &'a str, name: &str) -> Option<&'a str> {
    let exports = lib.match_indices("pub use ").map(|(at, found)| &lib[at + found.len()..]);
    exports.map(|export| &export[..export.find(';').unwrap_or(0)]).find_map(|export| {
        let module = export.split("::").next()?;
        (!words(export, name).is_empty()).then_some(module)
    })
}

/// Reports every place where shipped code has one of `words`, except in `allowed` files.
fn assert_words_only_in(banned: &[&str], allowed: &[&str], rule: &str) {
    let mut problems = Vec::new();
    for source in sources("src").iter().filter(|source| !allowed.contains(&&*source.path)) {
        for word in banned {
            for at in words(&source.shipped, word) {
                problems.push(format!("{}:{}: {word}", source.path, line_of(&source.shipped, at)));
            }
        }
    }
    assert_none(&problems, rule);
}

#[test]
fn the_table_of_layers_is_the_order_of_lib_rs() {
    let lib = sources("src").into_iter().find(|source| source.path == "src/lib.rs").unwrap();
    let declared: Vec<&str> = lib
        .code
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .filter(|name| !BESIDE.contains(name))
        .collect();
    let expected: Vec<&str> = LAYERS.into_iter().filter(|layer| declared.contains(layer)).collect();
    assert_eq!(declared, expected, "the modules of src/lib.rs against the table of this test");
}

#[test]
fn a_module_uses_only_those_before_it() {
    let sources = sources("src");
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").unwrap();
    let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let mut problems = Vec::new();
    for source in &sources {
        let Some(own) = layer(source.module()) else {
            let known = BESIDE.contains(&source.module()) || source.path.starts_with("src/bin/");
            assert!(known, "{} is in no layer of this test's table", source.path);
            continue;
        };
        for (at, name) in crate_paths(&source.shipped) {
            let used = layer(&name).or_else(|| layer(module_of_root_name(&lib.code, &name)?));
            let place = format!("{}:{}", source.path, line_of(&source.shipped, at));
            match used {
                Some(used) if used <= own => {}
                Some(used) => {
                    problems.push(format!("{place}: `{}` uses `{}`", source.module(), LAYERS[used]))
                }
                // The attribute comes before all layers.
                None if module_of_root_name(&lib.code, &name) == Some("millpond_derive") => {}
                None => problems.push(format!("{place}: crate::{name} is in no layer")),
            }
        }
    }
    assert_none(&problems, "a module uses one that comes after it in src/lib.rs");
}

#[test]
fn one_module_names_sled() {
    assert_words_only_in(&["sled::", "use sled"], &["src/store/catalog.rs"], "sled outside of the catalog");
}

#[test]
fn temporary_files_are_made_private() {
    let banned = ["tempfile()", "tempdir()", "tempfile::Builder", "NamedTempFile"];
    assert_words_only_in(&banned, &["src/store/private.rs"], "a temporary file that others may read");
}

#[test]
fn nothing_is_unsafe() {
    for manifest in ["Cargo.toml", "derive/Cargo.toml"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.contains("\n[lints.rust]\n") && text.contains("\nunsafe_code = \"forbid\"\n"),
            "{manifest}"
        );
    }
    assert_words_only_in(&["unsafe"], &[], "unsafe code");
}

#[test]
fn stored_records_alone_name_rkyv() {
    let is_allowed = |path: &str| {
        path.starts_with("src/record/") || ["src/format/records.rs", "src/format/question.rs"].contains(&path)
    };
    let mut problems = Vec::new();
    for source in sources("src").iter().filter(|source| !is_allowed(&source.path)) {
        for (number, line) in source.shipped.lines().enumerate() {
            let passed_on = source.path == "src/lib.rs" && line == "pub use rkyv;";
            if !passed_on && !words(line, "rkyv").is_empty() {
                problems.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert_none(&problems, "rkyv outside of the modules that store records");
}

#[test]
fn shipped_code_returns_errors() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let lines = source.shipped.lines().zip(source.text.lines()).enumerate();
        for (number, (code, text)) in lines {
            // `FrameHeader::expect` is a check that returns an error, not a panic.
            let header_check = text.contains(".expect(FrameKind::") || text.contains(".expect(Self::KIND)");
            if code.contains(".unwrap()") || (code.contains(".expect(") && !header_check) {
                problems.push(format!("{}:{}: {}", source.path, number + 1, text.trim()));
            }
        }
    }
    assert_none(&problems, "unwrap or expect outside of tests");
}

#[test]
fn nothing_is_left_unfinished() {
    let banned = ["todo!", "unimplemented!", "dbg!"];
    assert_words_only_in(&banned, &[], "left over from writing");
}

#[test]
fn property_tests_run_as_many_cases_as_asked_for() {
    let helper = "tests/support/cases.rs";
    let problems: Vec<String> = [sources("src"), sources("tests")]
        .iter()
        .flatten()
        .filter(|source| source.path != helper)
        .flat_map(|source| {
            let place = |at| format!("{}:{}: with_cases", source.path, line_of(&source.code, at));
            words(&source.code, "with_cases").into_iter().map(place).collect::<Vec<_>>()
        })
        .collect();
    assert_none(
        &problems,
        "cases that PROPTEST_CASES does not change; tests/support/cases.rs has what to call",
    );
}

#[test]
fn functions_fit_a_screen() {
    let mut problems = Vec::new();
    for dir in ["src", "examples", "benches", "tests", "fuzz"] {
        for source in sources(dir) {
            for at in words(&source.code, "fn") {
                let rest = &source.code[at..];
                let Some(open) = rest.find('{') else { continue };
                // A declaration without a body, or a type such as `fn(T)`.
                if rest.find(';').is_some_and(|end| end < open) || rest[2..].trim_start().starts_with('(') {
                    continue;
                }
                let lines = rest[..block_end(rest, open)].matches('\n').count() + 1;
                if lines > FUNCTION_LINES_MAX {
                    let name: String = rest[2..].trim_start().chars().take_while(|c| *c != '(').collect();
                    let line = line_of(&source.code, at);
                    problems.push(format!("{}:{line}: {name} has {lines} lines", source.path));
                }
            }
        }
    }
    assert_none(&problems, &format!("functions of more than {FUNCTION_LINES_MAX} lines"));
}

#[test]
fn files_stay_readable() {
    let mut problems = Vec::new();
    for dir in ["src", "examples", "benches", "tests", "fuzz"] {
        for source in sources(dir) {
            let lines = source.text.lines().count();
            if lines > FILE_LINES_MAX {
                problems.push(format!("{} has {lines} lines", source.path));
            }
        }
    }
    assert_none(&problems, &format!("files of more than {FILE_LINES_MAX} lines"));
}

#[test]
fn source_is_ascii_but_for_drawings() {
    let drawing = |c: char| matches!(c, '\u{2190}'..='\u{21ff}' | '\u{2500}'..='\u{25ff}');
    let mut problems = Vec::new();
    for dir in ["src", "examples", "benches", "tests", "fuzz"] {
        for source in sources(dir) {
            for (number, line) in source.text.lines().enumerate() {
                let comment = line.trim_start().starts_with("//");
                let odd: String =
                    line.chars().filter(|c| !(c.is_ascii() || (comment && drawing(*c)))).collect();
                if !odd.is_empty() {
                    problems.push(format!("{}:{}: {odd}", source.path, number + 1));
                }
            }
        }
    }
    assert_none(&problems, "characters that are neither ASCII nor part of a drawing in a comment");
}

#[test]
fn the_checks_see_code_and_nothing_else() {
    let text = "// crate::a\nuse crate::{b::{c, d}, e}; let s = \"crate::f\"; let r = r#\"crate::g\"#;\n\
                let x = crate::h::i('\"', '\\'', \"\\\"crate::j\"); /* crate::k /* crate::l */ */ fn m<'a>() {}\n\
                #[cfg(test)]\nmod tests { use crate::n; fn o() { { } } }\nuse crate::p;\n";
    let shipped = blank_test_modules(&blank_text(text));
    let found: Vec<_> =
        crate_paths(&shipped).into_iter().map(|(at, name)| (line_of(&shipped, at), name)).collect();
    let expected = [(2, "b"), (2, "e"), (3, "h"), (6, "p")];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
    assert!(words("scrate::x mycrate::y", "crate::").is_empty());
    let lib = "pub use record::{Data, Key};\npub use rkyv;\n";
    assert_eq!(module_of_root_name(lib, "Key"), Some("record"));
    assert_eq!(module_of_root_name(lib, "Keys"), None);
}
