//! Signing in order: one thread owns the journal, signs what waits, syncs once, and hands the receipts out.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;

use fanlight_protocol::entry::{Receipt, ReceiptDetails, Signed};
use fanlight_protocol::{Digest, UnixTime};
use tokio::sync::oneshot;

use super::{Journal, JournalError};
use crate::enclave::{Enclave, SignError};

/// Most receipts that share one sync. A signature takes well below a millisecond, so nobody waits long for the others.
const MAX_BATCH: usize = 64;

/// What a receipt is made of, before its place in the chain is known.
#[derive(Clone, Debug)]
pub struct ReceiptDraft {
    /// Of the key statement whose KEM key opened the request.
    pub statement_digest: Digest,
    /// Published to the minute only.
    pub time: UnixTime,
    /// Committed to, not published.
    pub details: ReceiptDetails,
}

/// A receipt that is durable in the journal, with what opens its commitment.
#[derive(Clone, Debug)]
pub struct SignedReceipt {
    /// The entry.
    pub receipt: Signed<Receipt>,
    /// Details, deterministic CBOR.
    pub details: Vec<u8>,
    /// Blinds the commitment.
    pub blind: [u8; 32],
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The journal could not be written; nothing was handed out and no counter was used up.
    #[error("store the receipt")]
    Journal(#[source] Arc<JournalError>),
    /// The system gave no randomness for the blind.
    #[error("get randomness for the receipt")]
    Randomness,
    /// The enclave did not sign.
    #[error("sign the receipt")]
    Sign(#[from] SignError),
    /// The chain was closed.
    #[error("sign a receipt: the provider is stopping")]
    Stopped,
}

enum Command {
    Recent(oneshot::Sender<Vec<Vec<u8>>>),
    Sign { draft: Box<ReceiptDraft>, reply: oneshot::Sender<Result<SignedReceipt, ChainError>> },
}

type SignReply = oneshot::Sender<Result<SignedReceipt, ChainError>>;

/// Handle to the chain's thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub struct ReceiptChain {
    commands: mpsc::Sender<Command>,
}

impl ReceiptChain {
    /// Starts the thread that owns `journal`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(journal: Journal, enclave: Arc<dyn Enclave>) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        thread::Builder::new().name("receipts".to_owned()).spawn(move || run(journal, &*enclave, &receiver))?;
        Ok(Self { commands })
    }

    /// Signs the next receipt. Returns once it is durable.
    ///
    /// # Errors
    /// [`ChainError`] by variant.
    pub async fn sign(&self, draft: ReceiptDraft) -> Result<SignedReceipt, ChainError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Sign { draft: Box::new(draft), reply }).map_err(|_| ChainError::Stopped)?;
        answer.await.map_err(|_| ChainError::Stopped)?
    }

    /// The last receipts, oldest first, at most [`RECENT`](super::RECENT).
    ///
    /// # Errors
    /// [`ChainError::Stopped`].
    pub async fn recent(&self) -> Result<Vec<Vec<u8>>, ChainError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Recent(reply)).map_err(|_| ChainError::Stopped)?;
        answer.await.map_err(|_| ChainError::Stopped)
    }
}

impl fmt::Debug for ReceiptChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptChain").finish_non_exhaustive()
    }
}

fn run(mut journal: Journal, enclave: &dyn Enclave, commands: &mpsc::Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        let mut batch = Vec::new();
        for command in std::iter::once(first).chain(commands.try_iter().take(MAX_BATCH - 1)) {
            match command {
                // A receiver that went away does not need its answer; its receipt still stands in the journal.
                Command::Recent(reply) => drop(reply.send(journal.recent().map(<[u8]>::to_vec).collect())),
                Command::Sign { draft, reply } => batch.push((*draft, reply)),
            }
        }
        sign_batch(&mut journal, enclave, batch);
    }
}

fn sign_batch(journal: &mut Journal, enclave: &dyn Enclave, batch: Vec<(ReceiptDraft, SignReply)>) {
    let (mut counter, mut previous) = (journal.next_counter(), journal.head());
    let mut signed = Vec::with_capacity(batch.len());
    for (draft, reply) in batch {
        match sign(enclave, &draft, counter, previous) {
            Ok(receipt) => {
                counter += 1;
                previous = receipt.receipt.digest();
                signed.push((receipt, reply));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    let receipts: Vec<_> = signed.iter().map(|(receipt, _)| &receipt.receipt).collect();
    let stored = journal.append(&receipts).map_err(Arc::new);
    for (receipt, reply) in signed {
        let answer = stored.clone().map(|()| receipt).map_err(ChainError::Journal);
        drop(reply.send(answer));
    }
}

fn sign(enclave: &dyn Enclave, draft: &ReceiptDraft, counter: u64, previous: Digest) -> Result<SignedReceipt, ChainError> {
    let mut blind = [0; 32];
    getrandom::fill(&mut blind).map_err(|_| ChainError::Randomness)?;
    let details = draft.details.to_bytes();
    let receipt = Receipt {
        statement_digest: draft.statement_digest,
        counter,
        previous,
        time: UnixTime::from_secs(draft.time.minute_secs()),
        commitment: Receipt::commitment(&blind, &details),
    };
    let receipt = Signed::sign(&receipt, enclave.identity(), |message| enclave.sign(message))?;
    Ok(SignedReceipt { receipt, details, blind })
}
