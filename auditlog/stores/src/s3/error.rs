//! What an S3 server answers when it does not do what it was asked, in words that say what to do.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::S3Location;

/// Bytes of a server's own words that are passed on.
const MAX_MESSAGE_LEN: usize = 200;

/// A request that failed.
#[derive(Debug)]
pub struct S3Error {
    bucket: String,
    key: String,
    problem: S3Problem,
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, key, problem } = self;
        write!(f, "s3://{bucket}/{key}: {problem}")
    }
}

impl Error for S3Error {
    /// What the problem comes from: the problem itself is in the words above.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

impl S3Error {
    pub(crate) fn new(location: &S3Location, key: &str, problem: S3Problem) -> Self {
        let (bucket, prefix) = (location.bucket(), location.prefix());
        Self { bucket: bucket.to_owned(), key: format!("{prefix}{key}"), problem }
    }

    /// The error of a request that was not signed: what it lacks is a name, before any rights.
    pub(super) fn unsigned(mut self) -> Self {
        if let S3Problem::AccessDenied(answer) = self.problem {
            self.problem = S3Problem::NotPublic(answer);
        }
        self
    }

    /// What is wrong.
    pub fn problem(&self) -> &S3Problem {
        &self.problem
    }
}

/// What is wrong with a request, or its answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum S3Problem {
    /// The credentials do not suffice.
    AccessDenied(Answer),
    /// The answer broke off.
    Broken,
    /// No connection, or one that broke.
    Connection,
    /// The server refuses the `ETag` that it names itself.
    EtagRefused,
    /// None of the places where credentials are looked for has any.
    NoCredentials(Box<dyn Error + Send + Sync>),
    /// No such bucket.
    NoSuchBucket,
    /// The object or the bucket is not for everyone, and there are no credentials.
    NotPublic(Answer),
    /// An answer that means none of the other problems.
    Refused(Answer),
    /// The request was not even sent.
    Request(Box<dyn Error + Send + Sync>),
    /// No answer in time.
    TimedOut,
    /// More bytes than such an object can have.
    TooLong {
        /// How many it can have.
        max: usize,
    },
    /// The bucket is in another region.
    WrongRegion {
        /// Which, if the server says so.
        region: Option<String>,
    },
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    code: String,
    message: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, message } = self;
        let code = if code.is_empty() { "no code" } else { code };
        write!(f, "{status} {code}")?;
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

impl fmt::Display for S3Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessDenied(answer) => write!(
                f,
                "access denied ({answer}); a reader needs s3:GetObject and s3:ListBucket, a writer s3:PutObject and \
                 s3:DeleteObject as well"
            ),
            Self::Broken => f.write_str("the answer broke off"),
            Self::Connection => {
                f.write_str("cannot reach the server; is --endpoint-url or AWS_ENDPOINT_URL right, and the server up?")
            }
            Self::EtagRefused => f.write_str(
                "the server refuses the ETag that it names itself; reach it without a proxy or cache in between, or keep the log \
                 elsewhere",
            ),
            Self::NoCredentials(_) => f.write_str(
                "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where the machine has a role",
            ),
            Self::NoSuchBucket => f.write_str("there is no such bucket; create it, or correct its name or --endpoint-url"),
            Self::NotPublic(answer) => write!(
                f,
                "access denied ({answer}): requests were not signed, for no credentials were found; set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or where the machine has a role AWS_EC2_METADATA_DISABLED=false"
            ),
            Self::Refused(answer) => write!(f, "the server answered {answer}"),
            Self::Request(_) => f.write_str("the request could not be made"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::TooLong { max } => write!(f, "the object is longer than {max} bytes, so it is none of a log's"),
            Self::WrongRegion { region: Some(region) } => write!(f, "the bucket is in region {region}; set AWS_REGION={region}"),
            Self::WrongRegion { region: None } => f.write_str("the bucket is in another region; set AWS_REGION to it"),
        }
    }
}

impl Error for S3Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoCredentials(source) | Self::Request(source) => Some(&**source),
            _ => None,
        }
    }
}

/// What an attempt came to that has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// No such object.
    Absent,
    /// The precondition does not hold; nothing was done.
    Precondition,
    /// The server is busy with another conditional write of the object; nothing was done.
    Conflict(S3Error),
    /// It may work the next time, and this time it may have worked without our hearing of it.
    Transient(S3Error),
    /// It would fail again.
    Final(S3Error),
}

impl Failure {
    /// Reads an answer to a request for `key`.
    pub(super) fn of<E>(location: &S3Location, key: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let new = |problem| S3Error::new(location, key, problem);
        let (status, code, message, region) = match &error {
            SdkError::ServiceError(service) => {
                let (raw, meta) = (service.raw(), service.err().meta());
                let region = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
                (raw.status().as_u16(), meta.code().unwrap_or_default(), meta.message().unwrap_or_default(), region)
            }
            SdkError::ResponseError(response) => (response.raw().status().as_u16(), "", "", None),
            SdkError::TimeoutError(_) => return Self::Transient(new(S3Problem::TimedOut)),
            SdkError::DispatchFailure(_) => return Self::Transient(new(S3Problem::Connection)),
            _ => return Self::Final(new(S3Problem::Request(error.into()))),
        };
        let message = message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_LEN).collect();
        let answer = Answer { status, code: code.to_owned(), message };
        match (status, code) {
            (_, "NoSuchBucket") => Self::Final(new(S3Problem::NoSuchBucket)),
            (404, _) => Self::Absent,
            (412, _) => Self::Precondition,
            (409, "ConditionalRequestConflict" | "OperationAborted") => Self::Conflict(new(S3Problem::Refused(answer))),
            (301 | 307 | 308, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                Self::Final(new(S3Problem::WrongRegion { region }))
            }
            (401 | 403, _) if code != "RequestTimeTooSkewed" => Self::Final(new(S3Problem::AccessDenied(answer))),
            // The last is a body that did not arrive in time.
            (408 | 409 | 425 | 429 | 500.., _) | (400, "RequestTimeout" | "IncompleteBody" | "BadDigest") => {
                Self::Transient(new(S3Problem::Refused(answer)))
            }
            _ => Self::Final(new(S3Problem::Refused(answer))),
        }
    }
}
