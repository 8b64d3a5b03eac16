//! News as the texts of notifications.
//!
//! A text is words: `@` and the sender, `p` and a position, `e` and a run with the last seq of its
//! log, `i` and a run with something in its inbox, `d` and a run that was deleted, `f` for free runs,
//! `a` for all. A word that is not known is passed over: a newer version may have written it.
//!
//! **Invariant:** a text is shorter than what PostgreSQL takes, however much there is to tell.

use std::fmt::Write;

use control_plane_domain::RunId;
use uuid::Uuid;

use super::News;

/// PostgreSQL takes fewer than 8,000 bytes.
const MAX_BYTES: usize = 7_900;

/// The texts that tell this.
pub(super) fn encode(news: &News, from: i64) -> Vec<String> {
    let News { position, logs, asked, gone, free, all } = news;
    let mut texts = Texts { head: format!("@{from:x}"), done: Vec::new(), open: String::new() };
    if *position > 0 {
        texts.push(format_args!("p{position}"));
    }
    for (word, said) in [("f", *free), ("a", *all)] {
        if said {
            texts.push(format_args!("{word}"));
        }
    }
    for (id, seq) in logs {
        texts.push(format_args!("e{}:{seq}", id.0.simple()));
    }
    for (word, runs) in [("i", asked), ("d", gone)] {
        for id in runs {
            texts.push(format_args!("{word}{}", id.0.simple()));
        }
    }
    texts.finish()
}

/// Who tells what; `None` for a text that is not of this kind.
pub(super) fn decode(text: &str) -> Option<(i64, News)> {
    let mut words = text.split(' ');
    let from = i64::from_str_radix(words.next()?.strip_prefix('@')?, 16).ok()?;
    let mut news = News::default();
    for word in words {
        take(&mut news, word);
    }
    Some((from, news))
}

/// Takes in one word, if it is one of ours.
fn take(news: &mut News, word: &str) -> Option<()> {
    let (kind, rest) = word.split_at_checked(1)?;
    match kind {
        "p" => news.position = rest.parse().ok()?,
        "f" => news.free = true,
        "a" => news.all = true,
        "e" => {
            let (id, seq) = rest.split_once(':')?;
            news.wrote(run(id)?, seq.parse().ok()?, 0);
        }
        "i" => news.asked.extend([run(rest)?]),
        "d" => news.gone.extend([run(rest)?]),
        _ => {}
    }
    Some(())
}

fn run(text: &str) -> Option<RunId> {
    Uuid::parse_str(text).ok().map(RunId)
}

struct Texts {
    head: String,
    done: Vec<String>,
    open: String,
}

impl Texts {
    fn push(&mut self, word: std::fmt::Arguments<'_>) {
        if self.open.is_empty() {
            self.open.clone_from(&self.head);
        }
        // Writing to a string does not fail.
        let _ = write!(self.open, " {word}");
        if self.open.len() > MAX_BYTES - 64 {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(texts: &[String], from: i64) -> News {
        let mut all = News::default();
        for text in texts {
            let (sender, news) = decode(text).unwrap();
            assert_eq!(sender, from);
            all.position = all.position.max(news.position);
            all.logs.extend(news.logs);
            all.asked.extend(news.asked);
            all.gone.extend(news.gone);
            all.free |= news.free;
            all.all |= news.all;
        }
        all
    }

    fn run_id() -> impl Strategy<Value = RunId> {
        any::<u128>().prop_map(|bits| RunId(Uuid::from_u128(bits)))
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard_however_much_it_is(
            position in 0..i64::MAX,
            logs in proptest::collection::btree_map(run_id(), 0..i64::MAX, 0..600),
            asked in proptest::collection::btree_set(run_id(), 0..300),
            gone in proptest::collection::btree_set(run_id(), 0..300),
            free: bool,
            all: bool,
            from in 0..i64::MAX,
        ) {
            let news = News { position, logs, asked, gone, free, all };

            let texts = encode(&news, from);

            prop_assert!(texts.iter().all(|text| text.len() < 8_000));
            prop_assert_eq!(merged(&texts, from), news);
        }

        #[test]
        fn no_text_is_too_odd_to_be_heard(text in "\\PC{0,80}") {
            drop(decode(&text));
            drop(decode(&format!("@1 {text}")));
        }
    }

    #[test]
    fn words_of_a_newer_version_are_passed_over() {
        let news = News { position: 7, free: true, ..News::default() };

        assert_eq!(decode("@a p7 z12 é e1 i: f"), Some((10, news)));
        assert_eq!(decode("something else"), None);
    }
}
