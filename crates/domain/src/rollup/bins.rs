//! Durations in bins, for percentiles.
//!
//! **Invariant:** the middle of a bin is at most 1.6 % away from every duration in it, and which bin
//! a duration is in is decided in whole numbers, so it is the same on every machine.

/// Bins in each doubling, as a power of two.
const FINE: u32 = 5;
/// The first duration that shares its bin.
const LINEAR: u64 = 1 << FINE;

/// The number of the bin that `ms` is in. A duration below zero is none.
pub fn bin_of(ms: i64) -> u64 {
    let ms = u64::try_from(ms).unwrap_or(0);
    if ms < LINEAR {
        return ms;
    }
    let doublings = u64::from(ms.ilog2() - FINE);
    // The leading bits of `ms`, from 2^FINE to 2^(FINE + 1) - 1.
    let leading = ms >> doublings;
    doublings * LINEAR + leading
}

/// The middle of a bin, in milliseconds.
pub fn middle_of(bin: u64) -> i64 {
    if bin < LINEAR {
        return i64::try_from(bin).unwrap_or(i64::MAX);
    }
    let doublings = u32::try_from((bin - LINEAR) / LINEAR).unwrap_or(u32::MAX);
    let leading = LINEAR + (bin - LINEAR) % LINEAR;
    let width = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let first = leading.saturating_mul(width);
    i64::try_from(first.saturating_add(width / 2)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_durations_have_a_bin_of_their_own() {
        for ms in 0..64 {
            assert_eq!(middle_of(bin_of(ms)), ms, "{ms}");
        }
        assert_eq!(bin_of(-5), 0);
    }

    proptest! {
        #[test]
        fn the_middle_of_a_bin_is_close_to_what_is_in_it(ms in 0..10_i64.pow(12)) {
            let middle = middle_of(bin_of(ms));
            prop_assert!((middle - ms).abs() * 1000 <= ms * 16, "{ms} became {middle}");
        }

        #[test]
        fn a_longer_duration_is_in_no_earlier_bin(one in 0..10_i64.pow(12), more in 0..10_i64.pow(9)) {
            prop_assert!(bin_of(one) <= bin_of(one + more));
        }
    }
}
