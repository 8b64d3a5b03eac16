//! The code blocks of our documents, so that tests run what readers copy.
//!
//! **Invariant:** a block is what the document has, unchanged; a block that is not there is a panic.

use std::fs;
use std::path::Path;

/// The first block of code in `language` below the heading `heading` of a document.
///
/// # Panics
/// When there is no such document, heading or block.
pub fn code_block(document: &str, heading: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    find(&text, heading, language)
        .unwrap_or_else(|| panic!("{document} has no `{language}` below \"{heading}\""))
}

fn find(text: &str, heading: &str, language: &str) -> Option<String> {
    let level = heading.chars().take_while(|letter| *letter == '#').count();
    let mut lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let mut block: Option<String> = None;
    let mut inside_another = false;
    for line in &mut lines {
        match (&mut block, line.strip_prefix("```")) {
            (Some(_), Some(_)) => return block,
            (Some(code), None) => {
                code.push_str(line);
                code.push('\n');
            }
            (None, Some(_)) if inside_another => inside_another = false,
            (None, Some(name)) if name == language => block = Some(String::new()),
            (None, Some(_)) => inside_another = true,
            (None, None) => {
                let depth = line.chars().take_while(|letter| *letter == '#').count();
                if !inside_another && (1..=level).contains(&depth) {
                    return None;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A\n```js\nno\n```\n## B\n```sh\n# no heading\n```\n### C\n```js\nb();\n\
        c();\n```\n## D\n```py\nd()\n```\n";

    #[test]
    fn a_block_is_found_by_its_heading_and_language() {
        assert_eq!(find(TEXT, "## B", "js").as_deref(), Some("b();\nc();\n"));
        assert_eq!(find(TEXT, "## D", "py").as_deref(), Some("d()\n"));
    }

    #[test]
    fn a_block_of_another_section_is_not_taken() {
        assert_eq!(find(TEXT, "## B", "py"), None);
        assert_eq!(find(TEXT, "## D", "js"), None);
        assert_eq!(find(TEXT, "## E", "js"), None);
    }
}
