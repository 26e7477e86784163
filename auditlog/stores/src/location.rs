//! The names of stores.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of the longest prefix: with the longest key of a log it is the name of an object, which may have 1024.
const MAX_PREFIX_LEN: usize = 800;

/// The name of a store, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A local directory.
    Dir(PathBuf),
    /// A bucket, or the part of one under a prefix.
    S3(S3Location),
}

/// `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    bucket: String,
    // Empty, or ends in a slash.
    prefix: String,
}

impl S3Location {
    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What stands before every key: nothing, or a path that ends in a slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Dir(text.into())) };
        if scheme != "s3" {
            return Err(LocationError::UnknownScheme { scheme: scheme.to_owned() });
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(letter) {
            return Err(LocationError::Bucket);
        }
        let prefix = prefix.trim_end_matches('/');
        // What needs no escaping in a URL, so that the bucket's own address serves every key as it stands.
        let plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let prefix = match prefix {
            "" => String::new(),
            prefix if prefix.len() <= MAX_PREFIX_LEN && prefix.split('/').all(plain) => format!("{prefix}/"),
            _ => return Err(LocationError::Prefix),
        };
        Ok(Self::S3(S3Location { bucket: bucket.to_owned(), prefix }))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => path.display().fmt(f),
            Self::S3(location) => location.fmt(f),
        }
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))
    }
}

/// Why a text names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// No bucket can be called that.
    #[error("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, as in s3://bucket/prefix")]
    Bucket,
    /// The prefix has an empty segment, a letter that URLs escape, or more than 800 bytes.
    #[error("a prefix is made of segments of letters, digits, '.', '-' and '_', as in s3://bucket/my/log")]
    Prefix,
    /// The part before `://` is none that a store has.
    #[error("no store is named {scheme}://; give a directory or s3://bucket/prefix")]
    UnknownScheme {
        /// That part.
        scheme: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stores() {
        let parse = |text: &str| text.parse::<Location>().map(|location| location.to_string());
        for same in ["logs/first", "./x", "s3://bucket/a/b", "s3://my.bucket-1/log_2"] {
            assert_eq!(parse(same).as_deref(), Ok(same));
        }
        assert_eq!(parse("s3://bucket/a//").as_deref(), Ok("s3://bucket/a"));
        assert_eq!(parse("s3://bucket").as_deref(), Ok("s3://bucket/"));
        let Ok(Location::S3(location)) = "s3://bucket/a/b/".parse() else { panic!("it names a bucket") };
        assert_eq!((location.bucket(), location.prefix()), ("bucket", "a/b/"));

        assert_eq!(parse("gs://bucket/x"), Err(LocationError::UnknownScheme { scheme: "gs".to_owned() }));
        for bucket in ["s3://", "s3:///x", "s3://Bucket/x", "s3://ab/x", "s3://a b c/x"] {
            assert_eq!(parse(bucket), Err(LocationError::Bucket), "{bucket}");
        }
        for prefix in ["s3://bucket//x", "s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/a b", "s3://bucket/a%2f"] {
            assert_eq!(parse(prefix), Err(LocationError::Prefix), "{prefix}");
        }
    }
}
