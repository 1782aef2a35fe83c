//! How many cases a property test runs where the usual 256 are too many, or too few.

use proptest::test_runner::Config;

/// So many cases, or as many as `PROPTEST_CASES` asks for, which `Config::with_cases` alone would not look at.
pub fn cases(usual: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    Config::with_cases(asked.unwrap_or(usual))
}
