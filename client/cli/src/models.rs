//! `GET /v1/models`: what verified key statements offer now, nothing that a gateway says.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use fanlight_client::Snapshot;
use fanlight_protocol::{Digest, UnixTime};
use fanlight_verifier::Grade;
use serde::{Serialize, Serializer};

use crate::problems::{Failure, model_not_found};
use crate::server::Shared;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// OpenAI's model object, with what we know besides.
#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    /// Start of the oldest key statement that offers it; Unix seconds.
    created: u64,
    owned_by: &'static str,
    x_fanlight: Offer,
}

#[derive(Serialize)]
struct Offer {
    /// Verified providers of it.
    providers: usize,
    /// Weakest and strongest grade among them.
    #[serde(serialize_with = "names")]
    grades: [Grade; 2],
    /// Least and most context tokens among them.
    context_tokens: [u32; 2],
    /// Different weights under one name.
    weights_digests: Vec<Digest>,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Response {
    match shared.client.directory().await {
        Ok(snapshot) => {
            let data = models(&snapshot, shared.client.now()).into_values().collect();
            Json(List { object: "list", data }).into_response()
        }
        Err(error) => Failure::from(error).into(),
    }
}

pub(crate) async fn retrieve(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match shared.client.directory().await {
        Ok(snapshot) => match models(&snapshot, shared.client.now()).remove(&id) {
            Some(model) => Json(model).into_response(),
            None => model_not_found().into(),
        },
        Err(error) => Failure::from(error).into(),
    }
}

fn models(snapshot: &Snapshot, now: UnixTime) -> BTreeMap<String, Model> {
    let mut models = BTreeMap::new();
    for provider in &snapshot.providers {
        let (statement, grade) = (provider.verified().key_statement(), provider.verified().grade());
        for offer in statement.models.iter().filter(|_| statement.is_valid_at(now)) {
            let (created, context) = (statement.not_before.as_secs(), offer.context_tokens);
            let model = models.entry(offer.name.clone()).or_insert_with(|| Model {
                id: offer.name.clone(),
                object: "model",
                created,
                owned_by: "fanlight",
                x_fanlight: Offer { providers: 0, grades: [grade; 2], context_tokens: [context; 2], weights_digests: Vec::new() },
            });
            model.created = model.created.min(created);
            let known = &mut model.x_fanlight;
            known.providers += 1;
            known.context_tokens = [known.context_tokens[0].min(context), known.context_tokens[1].max(context)];
            known.grades = [known.grades[0].min(grade), known.grades[1].max(grade)];
            if !known.weights_digests.contains(&offer.weights_digest) {
                known.weights_digests.push(offer.weights_digest);
            }
        }
    }
    models
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn names<S: Serializer>(grades: &[Grade; 2], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(grades.map(Grade::as_str))
}
