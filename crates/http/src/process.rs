//! The process's own figures, read when somebody scrapes.

use std::fs;

/// The kernel's clock ticks per second, as `/proc` counts them: 100 on every Linux that runs Rust.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// Records memory and processor time where the system tells them (Linux).
pub(crate) fn record() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&stat) {
        metrics::gauge!("process_cpu_seconds_total").set(seconds);
    }
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    if let Some(bytes) = resident_bytes(&statm) {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
}

/// User and system time: fields 14 and 15, counted after the command's closing parenthesis.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The second field, in pages.
fn resident_bytes(statm: &str) -> Option<f64> {
    let pages: f64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_a_command_with_blanks() {
        let stat = "1 (a b) c) S 1 1 1 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn resident_memory_is_the_second_field() {
        assert_eq!(resident_bytes("100 2 3 4"), Some(8192.0));
        assert_eq!(resident_bytes(""), None);
    }
}
