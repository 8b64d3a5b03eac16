//! Two runs, held against each other: what came out otherwise, and from where on (spec 7.4).
//!
//! **Invariant:** a comparison follows from what was said, by whom and about what. Ids and times play
//! no part in it, so a run that was renamed or shifted is the same run; and swapping the sides turns
//! the answer around and changes nothing else in it.
//!
//! A log becomes a [`Story`]: its steps, each about a proposal that is known by its content
//! (`story`). The proposals of both stories are paired (`pair`), then the steps of each participant
//! about each proposal are aligned (`align`), and what is left over is put into words (`words`).

mod align;
mod decision;
mod differences;
mod pair;
mod policy;
mod read;
mod report;
mod story;
mod value;
mod words;

pub use differences::Change;
pub use policy::Tally;
pub use read::{Side, read};
pub use report::{Comparison, runs};
pub use story::{Story, Teller};
