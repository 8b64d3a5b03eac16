//! Which items of a list were changed, told by the marks that the manifest has of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::format::{MARK, PartHash, Sum};

/// Most changed items that are named.
const MAX_NAMED: usize = 5;

/// How a list differs from the one that the manifest was made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// These items were changed, by index.
    Changed { first: Vec<usize>, in_all: usize },
    /// Items are missing from here on.
    Missing { at: usize, count: usize },
    /// Items were put in from here on.
    Inserted { at: usize, count: usize },
    /// From here on everything is different.
    From(usize),
    /// The manifest has no marks, or the change is too small for them.
    Unknown,
}

/// Holds the items that were read against the marks in the manifest.
pub(super) fn difference(found: &PartHash, stated: &Sum) -> Difference {
    let marks = stated.marks.as_ref().and_then(|marks| STANDARD.decode(marks).ok());
    match marks {
        Some(marks) => of_marks(found.marks(), &marks),
        None => Difference::Unknown,
    }
}

fn of_marks(found: &[u8], stated: &[u8]) -> Difference {
    let (found, stated): (Vec<&[u8]>, Vec<&[u8]>) =
        (found.chunks(MARK).collect(), stated.chunks(MARK).collect());
    let same = found.iter().zip(&stated).take_while(|(one, other)| one == other).count();
    let rest = |marks: &[&[u8]], from: usize| -> Vec<u8> {
        marks.get(from..).unwrap_or_default().concat()
    };
    if found.len() == stated.len() {
        let changed: Vec<usize> = found
            .iter()
            .zip(&stated)
            .enumerate()
            .filter(|(_, (one, other))| one != other)
            .map(|(index, _)| index)
            .collect();
        return match changed.len() {
            0 => Difference::Unknown,
            in_all => {
                Difference::Changed { first: changed.into_iter().take(MAX_NAMED).collect(), in_all }
            }
        };
    }
    if found.len() < stated.len() {
        let count = stated.len() - found.len();
        if rest(&found, same) == rest(&stated, same + count) {
            return Difference::Missing { at: same, count };
        }
    } else {
        let count = found.len() - stated.len();
        if rest(&found, same + count) == rest(&stated, same) {
            return Difference::Inserted { at: same, count };
        }
    }
    Difference::From(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(items: &str) -> Vec<u8> {
        items.bytes().flat_map(|item| [item; MARK]).collect()
    }

    #[test]
    fn marks_tell_what_became_of_a_list() {
        for (found, difference) in [
            ("abcde", Difference::Unknown),
            ("abXde", Difference::Changed { first: vec![2], in_all: 1 }),
            ("XbcdX", Difference::Changed { first: vec![0, 4], in_all: 2 }),
            ("abde", Difference::Missing { at: 2, count: 1 }),
            ("abc", Difference::Missing { at: 3, count: 2 }),
            ("cde", Difference::Missing { at: 0, count: 2 }),
            ("abXXcde", Difference::Inserted { at: 2, count: 2 }),
            ("abcdeX", Difference::Inserted { at: 5, count: 1 }),
            ("aXXe", Difference::From(1)),
        ] {
            assert_eq!(of_marks(&marks(found), &marks("abcde")), difference, "{found}");
        }
    }
}
