//! The connection to an S3 server: where it is, who asks, and how often.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, ProvideCredentials as _, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::S3Location;
use crate::s3::error::{Failure, S3Error, S3Problem};

/// Where no region is set. AWS says where the bucket is if it is elsewhere, and other servers do not care.
const DEFAULT_REGION: &str = "us-east-1";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a request is sent that may be sent again.
const MAX_ATTEMPTS: u32 = 5;

/// The time before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// One bucket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: aws_sdk_s3::Client,
    is_anonymous: bool,
}

impl Client {
    /// For requests that are signed where there is something to sign them with.
    pub(crate) async fn for_reading(location: &S3Location, endpoint_url: Option<&str>) -> Result<Self, S3Error> {
        Self::new(location, endpoint_url, !has_credentials(|name| env::var_os(name), env::home_dir().as_deref())).await
    }

    /// For requests that are always signed.
    pub(crate) async fn for_writing(location: &S3Location, endpoint_url: Option<&str>) -> Result<Self, S3Error> {
        Self::new(location, endpoint_url, false).await
    }

    async fn new(location: &S3Location, endpoint_url: Option<&str>, anonymous: bool) -> Result<Self, S3Error> {
        let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        // Not the default chain, which would ask the network of a cloud machine for what has a good default.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(DEFAULT_REGION);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(region)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build());
        if anonymous {
            loader = loader.no_credentials();
        }
        let endpoint_url = endpoint_url.map(str::to_owned).or_else(endpoint_from_env);
        if let Some(url) = &endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let config = loader.load().await;
        if !anonymous && let Some(credentials) = config.credentials_provider() {
            let found = credentials.provide_credentials().await;
            found.map_err(|error| S3Error::new(location, "", S3Problem::NoCredentials(error.into())))?;
        }
        let config = aws_sdk_s3::config::Builder::from(&config)
            // Servers that are not AWS are rarely reached by a host name for each bucket.
            .force_path_style(endpoint_url.is_some())
            // Newer ones than some servers understand; a signed request carries the digest of its body anyway.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok(Self { inner: aws_sdk_s3::Client::from_conf(config), is_anonymous: anonymous })
    }

    /// Whether requests are not signed.
    pub(super) fn is_anonymous(&self) -> bool {
        self.is_anonymous
    }

    pub(super) fn s3(&self) -> &aws_sdk_s3::Client {
        &self.inner
    }
}

/// Counts the attempts at what does no harm when it happens twice.
#[derive(Debug)]
pub(super) struct Attempts {
    left: u32,
    pause: Duration,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { left: MAX_ATTEMPTS - 1, pause: FIRST_PAUSE }
    }

    /// Returns once it is time for the next attempt; with the failure if it would repeat, or was the last.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Conflict(error) | Failure::Transient(error) if self.left > 0 => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(self.pause).await;
                self.left -= 1;
                self.pause *= 2;
                Ok(())
            }
            failure => Err(failure),
        }
    }
}

/// The server that the environment names.
pub(crate) fn endpoint_from_env() -> Option<String> {
    let named = |name: &str| env::var(name).ok().filter(|url| !url.is_empty());
    named("AWS_ENDPOINT_URL_S3").or_else(|| named("AWS_ENDPOINT_URL"))
}

/// Whether the environment or AWS's files have credentials, or say how to get them. Whether the machine has a role is not
/// asked, which takes seconds where it has none: `AWS_EC2_METADATA_DISABLED=false` says so.
fn has_credentials(variable: impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> bool {
    const VARIABLES: [&str; 5] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    // A file of settings may as well have nothing but a region.
    const SETTINGS: [&str; 4] = ["aws_access_key_id", "credential_process", "role_arn", "sso_"];
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let file = |name: &str, default: &str| set(name).map(PathBuf::from).or_else(|| Some(home?.join(default)));
    let says_how = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        SETTINGS.iter().any(|setting| text.contains(setting))
    };
    VARIABLES.iter().any(|name| set(name).is_some())
        || set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("false"))
        || file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials").is_some_and(|path| path.exists())
        || file("AWS_CONFIG_FILE", ".aws/config").is_some_and(says_how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_where_others_find_them() {
        let home = tempfile::tempdir().unwrap();
        let found = |set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value));
            has_credentials(variable, Some(home.path()))
        };
        assert!(!found(&[]) && !found(&[("AWS_PROFILE", "")]) && !found(&[("AWS_EC2_METADATA_DISABLED", "true")]));
        assert!(found(&[("AWS_PROFILE", "log")]) && found(&[("AWS_EC2_METADATA_DISABLED", "false")]));

        let elsewhere = home.path().join("elsewhere");
        let elsewhere = elsewhere.to_str().unwrap();
        fs::write(elsewhere, "[default]\nregion = eu-1\n").unwrap();
        assert!(found(&[("AWS_SHARED_CREDENTIALS_FILE", elsewhere)]));
        assert!(!found(&[("AWS_CONFIG_FILE", elsewhere)]), "a region is no credential");
        fs::write(elsewhere, "[default]\nsso_session = me\n").unwrap();
        assert!(found(&[("AWS_CONFIG_FILE", elsewhere)]));

        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(home.path().join(".aws/config"), "[default]\nrole_arn = arn\n").unwrap();
        assert!(found(&[]));
    }
}
