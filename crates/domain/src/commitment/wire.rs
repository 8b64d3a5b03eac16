//! Reads a `CommitmentPayload`'s bytes, field by field.
//!
//! **Invariant:** nothing is skipped. A decoder that drops what it does not know would give two
//! different payloads the same hash. Repeated fields count as protobuf says: the last text wins,
//! nested messages merge.

use super::{Commitment, NotHashable, Supersedes};

/// A field's value.
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field of ours has.
    Fixed,
}

/// The rest of a message.
struct Message<'a>(&'a [u8]);

pub(super) fn commitment(payload: &[u8]) -> Result<Commitment, NotHashable> {
    let mut message = Message(payload);
    let mut read = Commitment::default();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => read.commitment_id = text(&field)?,
            2 => read.action = text(&field)?,
            3 => read.authority_scope = text(&field)?,
            4 => read.reason = text(&field)?,
            5 => read.mode_version = text(&field)?,
            6 => read.policy_version = text(&field)?,
            7 => read.configuration_version = text(&field)?,
            8 => read.outcome_positive = boolean(&field)?,
            9 => {
                let reference = read.supersedes.get_or_insert_default();
                supersedes(bytes(&field)?, reference)?;
            }
            other => return Err(NotHashable::UnknownField(other)),
        }
    }
    Ok(read)
}

fn supersedes(payload: &[u8], read: &mut Supersedes) -> Result<(), NotHashable> {
    let mut message = Message(payload);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => read.session_id = text(&field)?,
            2 => read.commitment_hash = text(&field)?,
            other => return Err(NotHashable::UnknownInSupersedes(other)),
        }
    }
    Ok(())
}

impl<'a> Message<'a> {
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, NotHashable> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 {
            return Err(NotHashable::Malformed("a field has the number 0"));
        }
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_fixed| Field::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_fixed| Field::Fixed)?,
            _ => return Err(NotHashable::Malformed("a field has a type that is not in use")),
        };
        Ok(Some((number, field)))
    }

    fn varint(&mut self) -> Result<u64, NotHashable> {
        let mut value = 0_u64;
        for place in 0..10 {
            let Some((byte, rest)) = self.0.split_first() else {
                return Err(NotHashable::Malformed("a number is cut"));
            };
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(NotHashable::Malformed("a number is too large"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NotHashable> {
        match self.0.split_at_checked(length) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => Err(NotHashable::Malformed("a field is cut")),
        }
    }
}

fn bytes<'a>(field: &Field<'a>) -> Result<&'a [u8], NotHashable> {
    match field {
        Field::Bytes(bytes) => Ok(bytes),
        Field::Varint(_) | Field::Fixed => Err(NotHashable::Malformed("a text is of another type")),
    }
}

fn text(field: &Field<'_>) -> Result<String, NotHashable> {
    let text = std::str::from_utf8(bytes(field)?);
    text.map(str::to_owned).map_err(|_not| NotHashable::Malformed("a text is not UTF-8"))
}

fn boolean(field: &Field<'_>) -> Result<bool, NotHashable> {
    match field {
        Field::Varint(value) => Ok(*value != 0),
        Field::Bytes(_) | Field::Fixed => {
            Err(NotHashable::Malformed("the outcome is of another type"))
        }
    }
}
