//! Strict CBOR maps with unsigned keys, the shape of every payload (SPEC §7).

use ciborium::Value;

use super::EntryError;

/// Writes a map with keys in the order given, which callers keep ascending.
pub(super) fn write_map(fields: Vec<(u64, Value)>) -> Vec<u8> {
    debug_assert!(fields.is_sorted_by(|a, b| a.0 < b.0), "deterministic CBOR wants ascending keys");
    let mut out = Vec::new();
    ciborium::into_writer(&map(fields), &mut out).expect("writing CBOR to memory succeeds");
    out
}

pub(super) fn map(fields: Vec<(u64, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(key, value)| (Value::from(key), value)).collect())
}

pub(super) fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// Reads a map whose keys are exactly 1, 2, 3, … in order.
pub(super) struct MapReader {
    entries: std::vec::IntoIter<(Value, Value)>,
    next_key: u64,
}

impl MapReader {
    pub(super) fn from_slice(mut bytes: &[u8]) -> Result<Self, EntryError> {
        // Payloads nest three deep at most; the limit keeps hostile nesting off the stack.
        let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, 8);
        if !bytes.is_empty() {
            return Err(EntryError::Payload("bytes remain after the map"));
        }
        Self::from_value(value.map_err(|_| EntryError::Payload("is not CBOR"))?)
    }

    pub(super) fn from_value(value: Value) -> Result<Self, EntryError> {
        let entries = value.into_map().map_err(|_| EntryError::Payload("is not a map"))?;
        Ok(Self { entries: entries.into_iter(), next_key: 1 })
    }

    pub(super) fn value(&mut self) -> Result<Value, EntryError> {
        let (key, value) = self.entries.next().ok_or(EntryError::Payload("a key is missing"))?;
        if key != Value::from(self.next_key) {
            return Err(EntryError::Payload("a key is unknown, missing or out of order"));
        }
        self.next_key += 1;
        Ok(value)
    }

    pub(super) fn uint(&mut self) -> Result<u64, EntryError> {
        let integer = self.value()?.into_integer().ok();
        integer.and_then(|i| i.try_into().ok()).ok_or(EntryError::Payload("expected an unsigned integer"))
    }

    pub(super) fn text(&mut self) -> Result<String, EntryError> {
        self.value()?.into_text().map_err(|_| EntryError::Payload("expected a text"))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let bytes = self.value()?.into_bytes().ok();
        bytes.and_then(|b| b.try_into().ok()).ok_or(EntryError::Payload("expected a byte string of a fixed length"))
    }

    pub(super) fn finish(mut self) -> Result<(), EntryError> {
        match self.entries.next() {
            None => Ok(()),
            Some(_) => Err(EntryError::Payload("a key is unknown")),
        }
    }
}
