//! What calls of models cost, from a file.

use control_plane_recovery::PriceTable;

use super::env::Env;

const FILE: &str = "MODEL_PRICES_FILE";

/// The built-in prices, with those of the file that is named.
pub(super) fn read(env: &mut Env) -> PriceTable {
    let Some(path) = env.text(FILE) else { return PriceTable::default() };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(fault) => {
            env.fault(FILE, &path, &format!("cannot be read: {fault}"));
            return PriceTable::default();
        }
    };
    PriceTable::parse(&text).unwrap_or_else(|faults| {
        for fault in faults {
            env.fault(FILE, &path, &fault);
        }
        PriceTable::default()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// What is wrong with a file that holds this, and the price of a million tokens of `gpt-4o`.
    fn read_file(text: &str) -> (Vec<String>, f64) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let mut env = Env::new(|name| (name == FILE).then(|| path.clone()));
        let price = read(&mut env).cost(Some("gpt-4o"), 1_000_000, 0);
        let (faults, _warnings) = env.finish();
        (faults.into_iter().map(|fault| fault.replace(&path, "FILE")).collect(), price)
    }

    #[test]
    fn a_file_of_prices_is_used() {
        let text = r#"{"models":{"gpt-4o":{"promptPerMillion":9,"completionPerMillion":1}}}"#;

        assert_eq!(read_file(text), (vec![], 9.0));
    }

    #[test]
    fn every_fault_of_the_file_is_named_with_the_variable() {
        let (faults, price) = read_file(r#"{"models":{"a":{}},"more":1}"#);

        assert_eq!(price, 2.5);
        assert_eq!(
            faults,
            [
                "MODEL_PRICES_FILE=\"FILE\": models.a.promptPerMillion must be a number of dollars, not below 0",
                "MODEL_PRICES_FILE=\"FILE\": models.a.completionPerMillion must be a number of dollars, not below 0",
                "MODEL_PRICES_FILE=\"FILE\": more is not known",
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_a_fault() {
        let mut env = Env::new(|name| (name == FILE).then(|| "/nowhere/prices.json".to_owned()));

        let prices = read(&mut env);

        assert_eq!(prices, PriceTable::default());
        assert_eq!(env.finish().0.len(), 1);
    }
}
