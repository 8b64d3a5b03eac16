//! The bytes of a bundle, compressed or not.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// What gzip begins with; JSON does not.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How much is read at once.
const BUFFER: usize = 128 * 1024;

/// Undoes gzip, which is recognized by its first bytes. More than `at_most` bytes of a bundle are
/// an error of the kind [`io::ErrorKind::FileTooLarge`]: what is small may unpack to anything.
///
/// # Errors
/// Those of the input.
pub fn unpacked<'a>(
    input: impl Read + 'a,
    at_most: Option<u64>,
) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let is_packed = input.fill_buf()?.starts_with(&GZIP);
    let left = at_most.unwrap_or(u64::MAX);
    Ok(if is_packed {
        let bounded = Bounded { input: MultiGzDecoder::new(input), left };
        Box::new(BufReader::with_capacity(BUFFER, bounded))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, Bounded { input, left }))
    })
}

/// An input that may not be longer than it is said to be.
struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        match self.left.checked_sub(u64::try_from(count).unwrap_or(u64::MAX)) {
            Some(left) => self.left = left,
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn read(input: &[u8], at_most: Option<u64>) -> io::Result<String> {
        let mut text = String::new();
        unpacked(input, at_most)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn gzip_is_recognized_and_bounded_by_what_it_unpacks_to() {
        let text = "[]".repeat(10_000);
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();

        assert_eq!(read(&packed, None).unwrap(), text);
        assert_eq!(read(text.as_bytes(), Some(20_000)).unwrap(), text);
        for input in [&packed[..], text.as_bytes()] {
            let refused = read(input, Some(19_999)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        }
        assert_eq!(read(b"", None).unwrap(), "");
    }
}
