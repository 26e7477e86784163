//! Just enough CBOR (RFC 8949) to write entries by hand, well or badly.

/// Major type and argument, shortest form.
fn head(major: u8, n: u64) -> Vec<u8> {
    let first = major << 5;
    let bytes = n.to_be_bytes();
    match n {
        0..24 => vec![first | bytes[7]],
        24..0x100 => vec![first + 24, bytes[7]],
        0x100..0x1_0000 => [&[first + 25], &bytes[6..]].concat(),
        0x1_0000..0x1_0000_0000 => [&[first + 26], &bytes[4..]].concat(),
        _ => [&[first + 27], &bytes[..]].concat(),
    }
}

pub(crate) fn uint(n: u64) -> Vec<u8> {
    head(0, n)
}

/// `-1 - n`.
pub(crate) fn negative(n: u64) -> Vec<u8> {
    head(1, n)
}

pub(crate) fn bstr(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len() as u64), bytes.to_vec()].concat()
}

pub(crate) fn tstr(text: &str) -> Vec<u8> {
    [head(3, text.len() as u64), text.into()].concat()
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

/// Pairs as they come.
pub(crate) fn map(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let pairs_joined: Vec<_> = pairs.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
    [head(5, pairs.len() as u64), pairs_joined].concat()
}

/// A map with keys 1, 2, 3, …
pub(crate) fn numbered(values: &[Vec<u8>]) -> Vec<u8> {
    map(&(1..).map(uint).zip(values.iter().cloned()).collect::<Vec<_>>())
}

pub(crate) fn tag(n: u64, item: &[u8]) -> Vec<u8> {
    [head(6, n), item.to_vec()].concat()
}
