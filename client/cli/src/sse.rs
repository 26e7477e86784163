//! Server-sent events of a chat completion: cut apart, and the receipt's id put into the last chunk.

use fanlight_protocol::RequestId;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Longest event in bytes.
pub const MAX_EVENT_LEN: usize = 1 << 20;

/// Bytes that are not a stream of events, or one event above [`MAX_EVENT_LEN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answer is not a stream of server-sent events")]
pub struct NotEvents;

/// Cuts bytes into events, whatever the pieces they come in.
#[derive(Debug, Default)]
pub struct EventSplitter {
    held: Vec<u8>,
    // Up to here no event ends.
    searched: usize,
}

impl EventSplitter {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole event with its blank line, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`NotEvents`] above [`MAX_EVENT_LEN`].
    pub fn next_event(&mut self) -> Result<Option<Vec<u8>>, NotEvents> {
        let ends = |bytes: &[u8]| bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n");
        let end = (self.searched..self.held.len()).find(|at| self.held[*at] == b'\n' && ends(&self.held[..=*at]));
        let Some(end) = end else {
            self.searched = self.held.len();
            return if self.held.len() > MAX_EVENT_LEN { Err(NotEvents) } else { Ok(None) };
        };
        let rest = self.held.split_off(end + 1);
        self.searched = 0;
        Ok(Some(std::mem::replace(&mut self.held, rest)))
    }

    /// Whether the bytes so far end exactly between two events.
    pub fn is_between_events(&self) -> bool {
        self.held.is_empty()
    }
}

/// The text after `data:` of an event, where it has exactly one such line.
pub fn data(event: &[u8]) -> Option<&[u8]> {
    let mut lines = event.split(|b| *b == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    let only = lines.next()?;
    lines.next().is_none().then_some(only.trim_ascii())
}

/// Passes a stream of chunks through, and keeps back its end until the answer is verified.
#[derive(Debug)]
pub(crate) struct ReceiptInserter {
    receipt_id: RequestId,
    events: EventSplitter,
    // The last event, if it is one that `[DONE]` may follow.
    held: Option<Vec<u8>>,
    // `[DONE]`, once it has come; nothing may follow it.
    done: Option<Vec<u8>>,
}

impl ReceiptInserter {
    pub(crate) fn new(receipt_id: RequestId) -> Self {
        Self { receipt_id, events: EventSplitter::default(), held: None, done: None }
    }

    /// Takes bytes of the answer and returns those that may be shown now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, NotEvents> {
        self.events.push(bytes);
        let mut out = Vec::with_capacity(bytes.len());
        while let Some(event) = self.events.next_event()? {
            if self.done.is_some() {
                return Err(NotEvents);
            }
            if data(&event) == Some(b"[DONE]") {
                self.done = Some(event);
                continue;
            }
            if let Some(earlier) = self.held.take() {
                out.extend_from_slice(&earlier);
            }
            if data(&event).is_some_and(may_be_last) {
                self.held = Some(event);
            } else {
                out.extend_from_slice(&event);
            }
        }
        Ok(out)
    }

    /// The end of the stream. Call it only once the answer is verified.
    pub(crate) fn finish(self) -> Result<Vec<u8>, NotEvents> {
        if !self.events.is_between_events() {
            return Err(NotEvents);
        }
        let mut out = self.held.map_or_else(Vec::new, |event| insert_into_event(event, self.receipt_id));
        out.extend(self.done.unwrap_or_default());
        Ok(out)
    }
}

/// Adds `"x_fanlight_receipt"` to a JSON object, whose other bytes stay as they are; `None` when it is no object.
pub(crate) fn insert_receipt(json: &[u8], receipt_id: RequestId) -> Option<Vec<u8>> {
    serde_json::from_slice::<IgnoredAny>(json).ok()?;
    let json = json.trim_ascii();
    let fields = json.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let comma = if fields.trim_ascii().is_empty() { "" } else { "," };
    Some([b"{", fields, format!("{comma}\"x_fanlight_receipt\":\"{receipt_id}\"}}").as_bytes()].concat())
}

fn insert_into_event(event: Vec<u8>, receipt_id: RequestId) -> Vec<u8> {
    let Some((json, with_receipt)) = data(&event).and_then(|json| Some((json, insert_receipt(json, receipt_id)?))) else {
        return event;
    };
    let at = event.windows(json.len()).position(|window| window == json).unwrap_or_default();
    [&event[..at], &with_receipt, &event[at + json.len()..]].concat()
}

/// Whether a chunk can be the last: every choice has finished, or there is none, as in the chunk of usage.
fn may_be_last(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Chunk {
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        finish_reason: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Chunk>(json).is_ok_and(|chunk| chunk.choices.iter().all(|choice| choice.finish_reason.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId([0xab; 16]);

    fn content(text: &str) -> String {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n")
    }

    fn run(stream: &str, piece_len: usize) -> Result<(String, String), NotEvents> {
        let mut inserter = ReceiptInserter::new(ID);
        let mut shown = Vec::new();
        for piece in stream.as_bytes().chunks(piece_len) {
            shown.extend(inserter.push(piece)?);
        }
        Ok((String::from_utf8(shown).unwrap(), String::from_utf8(inserter.finish()?).unwrap()))
    }

    #[test]
    fn content_passes_at_once_and_the_end_is_kept_back() {
        let last = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n";
        let done = "data: [DONE]\n\n";
        let marked = |event: &str| event.replace("}\n\n", &format!(",\"x_fanlight_receipt\":\"{ID}\"}}\n\n"));
        let (a, b) = (content("a"), content("b"));
        for (stream, shown, end) in [
            (format!("{a}{b}{last}{done}"), format!("{a}{b}"), format!("{}{done}", marked(last))),
            (format!("{a}{last}{usage}{done}"), format!("{a}{last}"), format!("{}{done}", marked(usage))),
            (format!(": hello\n\n{a}{done}"), format!(": hello\n\n{a}"), done.to_owned()),
            (format!("{a}{last}"), a, marked(last)),
        ] {
            for piece_len in [1, 7, stream.len()] {
                assert_eq!(run(&stream, piece_len), Ok((shown.clone(), end.clone())), "{stream} in pieces of {piece_len}");
            }
        }
    }

    #[test]
    fn lines_may_end_in_carriage_returns() {
        let stream = "data: {\"choices\":[]}\r\n\r\ndata: [DONE]\r\n\r\n";
        let (shown, end) = run(stream, 3).unwrap();
        assert_eq!(shown, "");
        assert_eq!(end, format!("data: {{\"choices\":[],\"x_fanlight_receipt\":\"{ID}\"}}\r\n\r\ndata: [DONE]\r\n\r\n"));
    }

    #[test]
    fn what_is_no_stream_of_events_is_refused() {
        assert_eq!(run("data: [DONE]\n\ndata: {}\n\n", 5), Err(NotEvents), "an event after the end");
        assert_eq!(run("data: {}\n\ndata: {", 5), Err(NotEvents), "half an event");
        assert_eq!(run(&"a".repeat(MAX_EVENT_LEN + 2), 100_000), Err(NotEvents), "an endless event");
    }

    #[test]
    fn a_receipt_goes_into_objects_only() {
        let inserted = |json: &str| insert_receipt(json.as_bytes(), ID).map(|json| String::from_utf8(json).unwrap());
        assert_eq!(inserted("{ }"), Some(format!("{{ \"x_fanlight_receipt\":\"{ID}\"}}")));
        assert_eq!(inserted(" {\"a\":\"}\"}\n"), Some(format!("{{\"a\":\"}}\",\"x_fanlight_receipt\":\"{ID}\"}}")));
        for other in ["[]", "1", "{", "{\"a\":1}{}", ""] {
            assert_eq!(inserted(other), None, "{other}");
        }
    }
}
