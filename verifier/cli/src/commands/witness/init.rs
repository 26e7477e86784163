//! `witness init`: the keys of a new witness.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use fanlight_auditlog::note::KeyType;
use fanlight_auditlog::{CosignerKey, DirStore};
use serde_json::json;
use zeroize::Zeroizing;

use crate::commands::witness::keys;
use crate::outcome::{Outcome, Verdict};
use crate::text::push_line;

#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Directory for the keys and for what the witness remembers; made if it is missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Name of the witness in its cosignatures, usually a URL of yours without the scheme
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where logs will reach the witness; only for the policy lines
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) fn run(InitArgs { data, name, url }: &InitArgs) -> anyhow::Result<Outcome> {
    let _store = DirStore::open_writer(data).with_context(|| format!("cannot use {}", data.display()))?;
    if keys::exist(data) {
        bail!("{} holds the keys of a witness already; start it with `fanlight-verify witness`", data.display());
    }
    // Both: ML-DSA-44 is what the specification wants of new witnesses, and many verifiers know only Ed25519 yet.
    let (ml_dsa_44, ed25519) = (seed()?, seed()?);
    let bad_name = || format!("{name:?} cannot name a witness: no spaces, no +, at most 255 bytes");
    let cosigners = [
        CosignerKey::ml_dsa_44(name, &ml_dsa_44).with_context(bad_name)?,
        CosignerKey::ed25519(name, &ed25519).with_context(bad_name)?,
    ];
    keys::write(data, &cosigners)?;

    let mut text = format!(
        "{name} is ready in {}; its keys are in {}\n\n\
         # For a policy, one of these lines: the first where all who verify know ML-DSA-44, else the second. With both,\n\
         # put them into a group of their own (`group NAME any …`), or one witness counts as two.\n",
        data.display(),
        keys::path(data).display(),
    );
    let mut vkeys = Vec::new();
    for cosigner in &cosigners {
        let vkey = cosigner.verifier_key();
        let suffix = if vkey.key_type() == KeyType::MlDsa44 { "/ml-dsa-44" } else { "/ed25519" };
        let url = url.as_deref().map(|url| format!(" {url}")).unwrap_or_default();
        push_line(&mut text, format_args!("witness {name}{suffix} {vkey}{url}"));
        vkeys.push(vkey.to_string());
    }
    Ok(Outcome::new(Verdict::Good, text, json!({ "name": name, "vkeys": vkeys })))
}

fn seed() -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).context("cannot get random bytes")?;
    Ok(seed)
}
