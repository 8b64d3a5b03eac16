//! Each house rule finds what it is there for, and nothing else.

use super::*;

const HEADER: &str = "//! What it is for.\n";

fn with(line: &str) -> Vec<String> {
    faults("a.rs", &format!("{HEADER}{line}\n"))
}

#[test]
fn a_tidy_file_has_no_faults() {
    assert_eq!(with("fn main() {}"), Vec::<String>::new());
}

#[test]
fn a_rust_file_begins_with_what_it_is_for() {
    for text in ["fn main() {}\n", "\n//! Late.\n", "//!\n", ""] {
        assert_eq!(faults("a.rs", text).len(), 1, "{text:?}");
    }
    assert_eq!(faults("a.toml", "[package]\n"), Vec::<String>::new());
}

#[test]
fn a_rust_file_has_five_hundred_lines_at_most() {
    let text = |lines: usize| format!("{HEADER}{}", "// line\n".repeat(lines - 1));

    assert_eq!(faults("a.rs", &text(MAX_LINES)), Vec::<String>::new());
    assert_eq!(
        faults("a.rs", &text(MAX_LINES + 1)),
        ["a.rs: has 501 lines, 500 are allowed: split it"]
    );
}

#[test]
fn an_ignored_test_is_found() {
    assert_eq!(with(&format!("{IGNORED_TEST}]")), ["a.rs:2: an ignored test is no test"]);
    assert_eq!(with(&format!("{IGNORED_TEST} = \"slow\"]")).len(), 1);
}

#[test]
fn a_mark_of_unfinished_work_is_found_as_a_word() {
    for mark in MARKS {
        assert_eq!(with(&format!("// {mark}: later")).len(), 1, "{mark}");
        assert_eq!(faults("a.md", &format!("{mark}(x)\n")).len(), 1, "{mark}");
        assert_eq!(with(&format!("// A{mark}B is a word of its own")).len(), 0, "{mark}");
    }
}

#[test]
fn a_path_of_one_machine_is_found_in_any_file() {
    for personal in PERSONAL {
        assert_eq!(faults("a.toml", &format!("path = \"{personal}x\"\n")).len(), 1, "{personal}");
    }
}

#[test]
fn a_variable_that_is_not_documented_is_found() {
    let config = r#"env.flag("AUTO_MIGRATE", true); env.text("HOST"); env.text("HOST") == "x""#;

    assert_eq!(undocumented(config, "`HOST`"), ["docs/CONFIG.md: does not name `AUTO_MIGRATE`"]);
    assert_eq!(undocumented(config, "`HOST` `AUTO_MIGRATE`"), Vec::<String>::new());
}
