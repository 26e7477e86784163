//! `fanlight providers`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context as _;
use fanlight_client::{ListedProvider, RefusedListing};
use fanlight_protocol::{Digest, KeyId, ProviderId, UnixTime};
use serde::Serialize;

use super::{chain, printable, span, write_json};
use crate::{Network, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON, with everything that was verified
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    providers: Vec<Provider<'a>>,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Provider<'a> {
    #[serde(rename = "provider_id")]
    id: ProviderId,
    grade: &'static str,
    proves: &'static [&'static str],
    does_not_prove: &'static [&'static str],
    unverified_claims: &'a BTreeMap<String, String>,
    models: Vec<Model<'a>>,
    key_id: KeyId,
    not_before: u64,
    not_after: u64,
    build_measurement: Digest,
    log_origin: &'a str,
    statement_leaf_index: u64,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    weights_digest: Digest,
    context_tokens: u32,
}

#[derive(Serialize)]
struct Refused {
    claimed_provider_id: Option<ProviderId>,
    reason: String,
}

pub(crate) async fn run(network: &Network, args: &Args) -> anyhow::Result<Outcome> {
    let client = network.client()?;
    let snapshot = client.directory().await.context("failed to get the directory; is the gateway up?")?;
    let report = Report {
        providers: snapshot.providers.iter().map(|listed| provider(listed)).collect(),
        refused: snapshot.refused.iter().map(refused).collect(),
    };
    if args.json {
        write_json(&report)?;
    } else {
        write_table(&mut io::stdout().lock(), &report, client.now())?;
    }
    Ok(if report.providers.is_empty() { Outcome::Bad } else { Outcome::Good })
}

fn provider(listed: &ListedProvider) -> Provider<'_> {
    let verified = listed.verified();
    let statement = verified.key_statement();
    let models = statement.models.iter();
    Provider {
        id: verified.provider_id(),
        grade: verified.grade().as_str(),
        proves: verified.grade().proves(),
        does_not_prove: verified.grade().does_not_prove(),
        unverified_claims: verified.result().unverified_claims(),
        models: models
            .map(|offer| Model { name: &offer.name, weights_digest: offer.weights_digest, context_tokens: offer.context_tokens })
            .collect(),
        key_id: statement.key_id(),
        not_before: statement.not_before.as_secs(),
        not_after: statement.not_after.as_secs(),
        build_measurement: statement.build_measurement,
        log_origin: verified.log_origin(),
        statement_leaf_index: verified.statement_leaf_index(),
    }
}

fn refused(listing: &RefusedListing) -> Refused {
    Refused { claimed_provider_id: listing.claimed, reason: chain(&listing.reason) }
}

fn write_table(out: &mut impl Write, report: &Report<'_>, now: UnixTime) -> io::Result<()> {
    if !report.providers.is_empty() {
        writeln!(out, "{:<14}{:<14}{:<10}MODELS", "PROVIDER", "GRADE", "KEY ENDS")?;
    }
    for provider in &report.providers {
        let models: Vec<_> = provider.models.iter().map(|model| model.name).collect();
        let ends = span(now, UnixTime::from_secs(provider.not_after));
        writeln!(out, "{:<14}{:<14}{ends:<10}{}", provider.id.short(), provider.grade, models.join(", "))?;
        for (name, value) in provider.unverified_claims {
            writeln!(out, "  says of itself, unverified: {} = {}", one_line(name), one_line(value))?;
        }
    }
    let grades: BTreeMap<_, _> = report.providers.iter().map(|provider| (provider.grade, provider.does_not_prove)).collect();
    for (grade, does_not_prove) in grades {
        writeln!(out, "\nThe grade {grade} does not prove:")?;
        does_not_prove.iter().try_for_each(|text| writeln!(out, "  - {text}"))?;
    }
    if !report.refused.is_empty() {
        writeln!(out, "\nRefused under your policy:")?;
    }
    for refused in &report.refused {
        let claimed = refused.claimed_provider_id.map_or_else(|| "(no entry)".to_owned(), |id| id.short());
        writeln!(out, "  {claimed:<14}{}", refused.reason)?;
    }
    if report.providers.is_empty() {
        writeln!(out, "No provider is listed whose keys verify under your policy.")?;
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}
