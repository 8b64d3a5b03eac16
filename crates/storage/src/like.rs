//! Patterns for `LIKE … ESCAPE '\'`.

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

#[cfg(test)]
mod tests {
    #[test]
    fn a_wildcard_in_the_text_is_a_plain_character() {
        assert_eq!(super::anywhere(r"50%_\x"), r"%50\%\_\\x%");
    }
}
