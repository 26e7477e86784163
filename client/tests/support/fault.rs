//! What a gateway, or a provider, might do to an answer.

use fanlight_protocol::problem::ProblemCode;
use fanlight_protocol::response::{Frame, FrameType};

#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// The INCLUSION frame proves another entry.
    BadInclusion,
    /// Only so many pieces are sent: the prefix is one, every frame is one.
    CutAfter(usize),
    /// Ends inside the last piece of that many.
    CutInside(usize),
    /// A bit of a sealed frame is flipped.
    FlippedBit,
    /// A 200 of the right media type with other bytes.
    Garbage,
    /// The provider's receipt says that it gave up.
    GivenUp,
    /// The prefix names a key that the request was not sealed to.
    OtherKeyId,
    /// The receipt is of another provider, honestly signed.
    OtherReceipt,
    /// No INCLUSION frame.
    NoInclusion,
    /// A frame that announces more than its type may have.
    Oversized,
    /// An outer error.
    Problem(ProblemCode),
    /// A 200 of `application/json`.
    PlainJson,
    /// A 302 to this URL.
    Redirect(String),
    /// The answer to the request before.
    Spliced,
    /// Sends so many pieces, then nothing, and keeps the connection.
    StallAfter(usize),
    /// Two sealed frames swap places.
    Swapped,
    /// FINAL first.
    FinalMovedForward,
    /// A DATA frame after FINAL.
    DataAfterFinal,
    /// A frame of a type that does not exist.
    UnknownType,
}

impl Fault {
    /// Does it to the pieces of an answer; `before` are those of the answer before.
    pub fn apply(&self, mut pieces: Vec<Vec<u8>>, before: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let receipt = pieces.iter().position(|piece| piece[0] == FrameType::Receipt.code()).unwrap_or(pieces.len());
        match self {
            Self::CutAfter(n) => pieces.truncate(*n),
            Self::CutInside(n) => {
                pieces.truncate(*n);
                if let Some(last) = pieces.last_mut() {
                    last.truncate(last.len() / 2);
                }
            }
            Self::FlippedBit => pieces[2][20] ^= 1,
            Self::Garbage => pieces = vec![b"HTTP is not a response of version 1, whatever its media type says.".to_vec()],
            Self::OtherKeyId => pieces[0][1] ^= 1,
            Self::NoInclusion => pieces.truncate(receipt + 1),
            Self::BadInclusion => {
                pieces.truncate(receipt + 1);
                let payload = b"c2sp.org/tlog-proof@v1\nindex 0\n\nnot a checkpoint\n";
                pieces.push(Frame { frame_type: FrameType::Inclusion, payload }.to_bytes());
            }
            Self::Oversized => {
                pieces.truncate(2);
                pieces.push(vec![FrameType::Data.code(), 0, 1, 0, 0]);
            }
            Self::Spliced => {
                pieces.truncate(1);
                pieces.extend(before.iter().skip(1).cloned());
            }
            Self::Swapped => pieces.swap(1, 2),
            Self::FinalMovedForward => {
                let last = pieces.remove(receipt - 1);
                pieces.insert(2, last);
            }
            Self::DataAfterFinal => pieces.swap(receipt - 2, receipt - 1),
            Self::UnknownType => pieces.insert(2, vec![0x7f, 0, 0, 0, 0]),
            Self::None
            | Self::GivenUp
            | Self::OtherReceipt
            | Self::Problem(_)
            | Self::PlainJson
            | Self::Redirect(_)
            | Self::StallAfter(_) => {}
        }
        pieces
    }
}
