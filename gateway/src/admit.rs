//! Admission: what the clear header decides before a body is read (SPEC §4.1, §6).

use std::cmp::Ordering;
use std::sync::Arc;

use fanlight_protocol::UnixTime;
use fanlight_protocol::request::{CHAT_COMPLETIONS, HeaderFields};

use crate::error::RequestError;
use crate::registry::{Connection, LoggedStatement, Registry};
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;

/// A recipient that may be asked.
#[derive(Debug)]
pub struct Candidate<L> {
    /// Its connection.
    pub connection: Arc<Connection<L>>,
    /// Those of its key statements that are recipients; at least one.
    pub statements: Vec<Arc<LoggedStatement>>,
}

/// Which recipients may be asked, best first: the least loaded, of equals one that has the model warm, then the client's order.
///
/// # Errors
/// [`RequestError::WrongOperation`], [`RequestError::Expired`], [`RequestError::NoProvider`],
/// [`RequestError::ModelNotFound`], [`RequestError::LimitExceeded`], in this order.
pub fn admit<L>(registry: &Registry<L>, fields: &HeaderFields, now: UnixTime) -> Result<Vec<Candidate<L>>, RequestError> {
    if fields.operation != CHAT_COMPLETIONS {
        return Err(RequestError::WrongOperation);
    }
    let too_early = now.as_secs().saturating_add(CLOCK_TOLERANCE_SECS) < fields.created.as_secs();
    if too_early || now.as_secs() > fields.expires.as_secs() {
        return Err(RequestError::Expired);
    }
    let mut candidates = connected(registry, fields, now);
    if candidates.is_empty() {
        return Err(RequestError::NoProvider);
    }
    keep(&mut candidates, |s| s.statement.offer(&fields.model).is_some(), RequestError::ModelNotFound)?;
    keep(&mut candidates, |s| is_within_limits(s, fields), RequestError::LimitExceeded)?;
    candidates.sort_by(|a, b| by_load(&a.connection, &b.connection).then_with(|| by_warmth(a, b, &fields.model)));
    Ok(candidates)
}

fn connected<L>(registry: &Registry<L>, fields: &HeaderFields, now: UnixTime) -> Vec<Candidate<L>> {
    let mut candidates: Vec<Candidate<L>> = Vec::new();
    for recipient in &fields.recipients {
        let Some((connection, statement)) = registry.find(&recipient.statement_digest) else { continue };
        let sealed_in_time = fields.created.as_secs() <= statement.statement.not_after.as_secs();
        if statement.statement.key_id() != recipient.key_id || !sealed_in_time || !statement.is_routable_at(now) {
            continue;
        }
        match candidates.iter_mut().find(|c| Arc::ptr_eq(&c.connection, &connection)) {
            Some(candidate) => candidate.statements.push(statement),
            None => candidates.push(Candidate { connection, statements: vec![statement] }),
        }
    }
    candidates
}

fn keep<L>(
    candidates: &mut Vec<Candidate<L>>,
    good: impl Fn(&LoggedStatement) -> bool,
    otherwise: RequestError,
) -> Result<(), RequestError> {
    for candidate in &mut *candidates {
        candidate.statements.retain(|s| good(s));
    }
    candidates.retain(|c| !c.statements.is_empty());
    if candidates.is_empty() { Err(otherwise) } else { Ok(()) }
}

fn is_within_limits(statement: &LoggedStatement, fields: &HeaderFields) -> bool {
    let Some(offer) = statement.statement.offer(&fields.model) else { return false };
    fields.max_output_tokens <= offer.context_tokens && fields.input_tokens_min < offer.context_tokens
}

/// Compares `in_flight / capacity` without dividing; a drained connection comes last.
fn by_load<L>(a: &Connection<L>, b: &Connection<L>) -> Ordering {
    let weigh = |x: &Connection<L>, y: &Connection<L>| u64::from(x.in_flight()) * u64::from(y.capacity());
    (a.capacity() == 0).cmp(&(b.capacity() == 0)).then_with(|| weigh(a, b).cmp(&weigh(b, a)))
}

fn by_warmth<L>(a: &Candidate<L>, b: &Candidate<L>, model: &str) -> Ordering {
    b.connection.is_warm(model).cmp(&a.connection.is_warm(model))
}
