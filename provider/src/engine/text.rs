//! From tokens to text that may be shown: whole characters only, and nothing that may still turn
//! out to be part of a stop string.

use tokenizers::Tokenizer;
use zeroize::Zeroizing;

/// Tokens held for an unfinished character before they are shown as they are. A character is at
/// most four bytes, and each of its tokens brings one or more, so more are not a character.
const MAX_HELD_TOKENS: usize = 6;

/// Turns one request's tokens into pieces of text.
#[derive(Debug)]
pub(super) struct TextAssembler {
    decoder: Decoder,
    stops: StopMatcher,
}

/// What one token made certain.
pub(super) struct Piece {
    /// Text to show, often empty.
    pub(super) text: Zeroizing<String>,
    /// Whether a stop string follows it; then no more text comes.
    pub(super) stopped: bool,
}

impl TextAssembler {
    pub(super) fn new(stop: Zeroizing<Vec<String>>) -> Self {
        Self { decoder: Decoder::default(), stops: StopMatcher { stop, held: Zeroizing::default() } }
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Piece {
        self.stops.push(&self.decoder.push(tokenizer, token))
    }

    /// No more tokens come: what was held back.
    pub(super) fn finish(&mut self, tokenizer: &Tokenizer) -> Piece {
        let mut piece = self.stops.push(&self.decoder.finish(tokenizer));
        if !piece.stopped {
            piece.text.push_str(&std::mem::take(&mut *self.stops.held));
        }
        piece
    }
}

/// Detokenises incrementally, through a window of two runs of tokens.
///
/// Some vocabularies spell a token differently at the start of a text, so new tokens are decoded
/// together with the run before them, and that run's own text is cut off.
#[derive(Debug, Default)]
struct Decoder {
    window: Zeroizing<Vec<u32>>,
    /// Length of the run whose text was shown already.
    shown: usize,
}

impl Decoder {
    fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Zeroizing<String> {
        self.window.push(token);
        let text = self.unshown(tokenizer);
        let held = self.window.len() - self.shown;
        let whole = !text.is_empty() && !text.ends_with(char::REPLACEMENT_CHARACTER);
        if !whole && held < MAX_HELD_TOKENS {
            return Zeroizing::default();
        }
        self.window.drain(..self.shown);
        self.shown = self.window.len();
        text
    }

    fn finish(&mut self, tokenizer: &Tokenizer) -> Zeroizing<String> {
        let text = self.unshown(tokenizer);
        self.window.clear();
        self.shown = 0;
        text
    }

    /// The window's text less that of its shown run.
    fn unshown(&self, tokenizer: &Tokenizer) -> Zeroizing<String> {
        let decode = |tokens: &[u32]| {
            // Fails only for a decoder that its tokenizer.json misconfigures: then no text at all.
            Zeroizing::new(tokenizer.decode(tokens, true).unwrap_or_default())
        };
        let shown = decode(&self.window[..self.shown]);
        let all = decode(&self.window);
        Zeroizing::new(all.get(shown.len()..).unwrap_or_default().to_owned())
    }
}

/// Holds text back while it could begin a stop string.
#[derive(Debug)]
struct StopMatcher {
    stop: Zeroizing<Vec<String>>,
    /// Text not shown yet; a proper prefix of some stop string.
    held: Zeroizing<String>,
}

impl StopMatcher {
    fn push(&mut self, text: &str) -> Piece {
        self.held.push_str(text);
        if let Some(at) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let shown = self.held[..at].to_owned();
            self.held = Zeroizing::default();
            return Piece { text: Zeroizing::new(shown), stopped: true };
        }
        let keep = self.stop.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        // A stop string starts with a whole character, so what matches one starts there too.
        let certain = self.held.len() - keep;
        let shown = self.held.drain(..certain).collect();
        Piece { text: Zeroizing::new(shown), stopped: false }
    }
}

/// Length of the longest end of `text` that `stop` begins with, in bytes.
fn overlap(text: &str, stop: &str) -> usize {
    (1..=stop.len().min(text.len())).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::builtin;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_bytes(&builtin::files().tokenizer).unwrap()
    }

    /// The pieces that `text` arrives in, and whether it stopped.
    fn pieces(text: &str, stop: &[&str]) -> (Vec<String>, bool) {
        let tokenizer = tokenizer();
        let stop = stop.iter().map(|&stop| stop.to_owned()).collect();
        let mut assembler = TextAssembler::new(Zeroizing::new(stop));
        let mut pieces = Vec::new();
        for &token in tokenizer.encode(text, false).unwrap().get_ids() {
            let piece = assembler.push(&tokenizer, token);
            pieces.push(piece.text.to_string());
            if piece.stopped {
                return (pieces, true);
            }
        }
        let piece = assembler.finish(&tokenizer);
        pieces.push(piece.text.to_string());
        (pieces, piece.stopped)
    }

    #[test]
    fn pieces_join_to_the_text() {
        for text in ["Hello there.", " leading", "naïve 🦀 日本語 \u{1F469}\u{200D}\u{1F680}", "a\n\n b"] {
            assert_eq!(pieces(text, &[]).0.concat(), text);
        }
    }

    #[test]
    fn no_half_characters() {
        let (pieces, _) = pieces("🦀🦀", &[]);
        // The tiny vocabulary spells a crab in four tokens.
        assert!(pieces.len() >= 8, "{pieces:?}");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    }

    #[test]
    fn bytes_that_never_become_a_character_are_shown_in_the_end() {
        let tokenizer = tokenizer();
        let first_byte = tokenizer.encode("🦀", false).unwrap().get_ids()[0];
        let mut assembler = TextAssembler::new(Zeroizing::default());
        let mut text = String::new();
        for _ in 0..MAX_HELD_TOKENS {
            text.push_str(&assembler.push(&tokenizer, first_byte).text);
        }
        assert_eq!(text, "\u{fffd}".repeat(MAX_HELD_TOKENS));
    }

    #[test]
    fn a_stop_string_over_several_tokens_never_shows() {
        let text = "Count: 1, 2, 3, 4";
        for stop in [", 3", "3", "nt: 1, 2, 3", " 2"] {
            let (pieces, stopped) = pieces(text, &["absent", stop]);
            assert!(stopped);
            assert_eq!(pieces.concat(), text[..text.find(stop).unwrap()]);
        }
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        let (pieces, stopped) = pieces("1, 2, 3, 4", &[", 2, 4", "4!"]);
        assert!(!stopped);
        assert_eq!(pieces.concat(), "1, 2, 3, 4");
    }

    #[test]
    fn the_earliest_of_two_stop_strings_wins() {
        let mut stops = StopMatcher { stop: Zeroizing::new(vec!["cd".to_owned(), "b".to_owned()]), held: Zeroizing::default() };
        let piece = stops.push("abcd");
        assert!(piece.stopped);
        assert_eq!(*piece.text, "a");
    }
}
