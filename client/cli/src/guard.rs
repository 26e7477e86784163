//! Keeps web pages out. Loopback is reachable from every page that the user's browser shows; a page must neither send
//! prompts nor read answers.
//!
//! Two ways lead from a page to here. A name of the attacker's that resolves to loopback (DNS rebinding) makes the request
//! look like the page's own; its `Host` gives it away. A plain cross-origin request carries `Origin` or `Sec-Fetch-Site`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::problems::Failure;
use crate::server::Shared;

/// Runs before every handler.
pub(crate) async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    // HTTP/2 has the authority in the URI.
    let from_uri = request.uri().authority().map(Authority::as_str);
    match judge(request.headers(), from_uri, &shared.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(Refusal::Host) => Failure::new(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "The Host header names neither loopback nor a host given with --allowed-host.",
        )
        .into(),
        Err(Refusal::Origin) => {
            Failure::new(StatusCode::FORBIDDEN, "cross_origin_refused", "This proxy does not serve web pages of other origins.")
                .into()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    Origin,
}

fn judge(headers: &HeaderMap, from_uri: Option<&str>, allowed_hosts: &[String]) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter().map(|value| value.to_str().ok()).chain(from_uri.map(Some)).peekable();
    if hosts.peek().is_none() {
        return Err(Refusal::Host);
    }
    let mut authority = None;
    for host in hosts {
        let parsed: Authority = host.and_then(|host| host.parse().ok()).ok_or(Refusal::Host)?;
        if !is_allowed(parsed.host(), allowed_hosts) {
            return Err(Refusal::Host);
        }
        authority = Some(parsed);
    }
    let same_origin = |origin: &str| {
        let origin = origin.split_once("://").map(|(_, authority)| authority);
        origin.is_some_and(|origin| authority.as_ref().is_some_and(|own| own.as_str().eq_ignore_ascii_case(origin)))
    };
    if headers.get_all(ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(same_origin)) {
        return Err(Refusal::Origin);
    }
    // `same-site` is another port or scheme of the same host: somebody else's page all the same.
    let from_page = |value: &axum::http::HeaderValue| value != "same-origin" && value != "none";
    if headers.get_all("sec-fetch-site").iter().any(from_page) {
        return Err(Refusal::Origin);
    }
    Ok(())
}

fn is_allowed(host: &str, allowed_hosts: &[String]) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(headers: &[(&str, &str)], allowed: &[&str]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(axum::http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        judge(&map, None, &allowed)
    }

    #[test]
    fn programs_on_this_machine_pass() {
        for host in ["127.0.0.1:8787", "127.0.0.1", "localhost:8787", "LOCALHOST", "[::1]:8787", "127.8.9.1:1"] {
            assert_eq!(judged(&[("host", host)], &[]), Ok(()), "{host}");
        }
        assert_eq!(judged(&[("host", "mac.lan:8787")], &["mac.lan"]), Ok(()));
        let own_page = [("host", "127.0.0.1:8787"), ("origin", "http://127.0.0.1:8787"), ("sec-fetch-site", "same-origin")];
        assert_eq!(judged(&own_page, &[]), Ok(()));
    }

    #[test]
    fn a_rebound_name_is_refused() {
        for host in ["evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.7:8787", "0.0.0.0:8787", ""]
        {
            assert_eq!(judged(&[("host", host)], &[]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(judged(&[], &[]), Err(Refusal::Host));
        assert_eq!(judged(&[("host", "localhost"), ("host", "evil.example")], &[]), Err(Refusal::Host));
        assert_eq!(judged(&[("host", "user@evil.example")], &["mac.lan"]), Err(Refusal::Host));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:3000"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(judged(&[("host", "127.0.0.1:8787"), (name, value)], &[]), Err(Refusal::Origin), "{value}");
        }
    }
}
