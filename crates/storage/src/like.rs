//! Patterns for `LIKE … ESCAPE '\'`, and what they match.

/// Matches texts that have `part` anywhere in them, taken literally.
pub(crate) fn anywhere(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for character in part.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// Whether `text` matches [`anywhere`] of `part` where only ASCII letters have a case: as SQLite
/// compares, and PostgreSQL under the collation "C".
pub(crate) fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    // A character never begins within another, so bytes are as good.
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_wildcard_in_the_text_is_a_plain_character() {
        assert_eq!(super::anywhere(r"50%_\x"), r"%50\%\_\\x%");
    }
}
