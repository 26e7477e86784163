//! What a caller asks of an [`Engine`](super::Engine), and why it may be refused.

use std::fmt;

use zeroize::Zeroizing;

use super::template::TemplateError;

/// The most stop strings that one request may bring, as in the OpenAI API.
pub const MAX_STOP_STRINGS: usize = 4;

/// The longest stop string, in bytes. Bounds how much text is held back.
pub const MAX_STOP_BYTES: usize = 256;

/// The largest rendered prompt that is tokenised at all, in bytes.
///
/// 8 MiB is about 16 bytes for each token of a 512 Ki context, so no fitting prompt is refused.
pub const MAX_PROMPT_BYTES: usize = 8 << 20;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that stand above the dialogue.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The word that chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a dialogue. Its text is wiped when dropped and never printed.
#[derive(Clone)]
pub struct ChatMessage {
    /// Who wrote it.
    pub role: Role,
    /// What it says.
    pub content: Zeroizing<String>,
}

impl fmt::Debug for ChatMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatMessage").field("role", &self.role).finish_non_exhaustive()
    }
}

/// How tokens are drawn from the model's logits.
///
/// The draws of a request are a function of its seed and its own tokens. Neither batch mates nor
/// the order of arrival change them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token each time; otherwise the logits' divisor, up to 2.
    pub temperature: f32,
    /// Draw from the smallest set of likeliest tokens whose probabilities reach this, in (0, 1].
    pub top_p: f32,
    /// Seeds this request's draws. Take it from the system's randomness if the client gave none.
    pub seed: u64,
    /// Subtracted from a token's logit once for each time it was generated, in [-2, 2].
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token that was generated at all, in [-2, 2].
    pub presence_penalty: f32,
}

impl Sampling {
    /// The likeliest token each time, no penalties.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0, frequency_penalty: 0.0, presence_penalty: 0.0 };

    /// Names the first field outside its range. Not-a-number is outside every range.
    fn out_of_range(&self) -> Option<&'static str> {
        if !(0.0..=2.0).contains(&self.temperature) {
            Some("temperature")
        } else if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            Some("top_p")
        } else if !(-2.0..=2.0).contains(&self.frequency_penalty) {
            Some("frequency_penalty")
        } else if !(-2.0..=2.0).contains(&self.presence_penalty) {
            Some("presence_penalty")
        } else {
            None
        }
    }
}

/// One generation: a dialogue to continue.
#[derive(Clone)]
pub struct GenerationRequest {
    /// The model's name, as in [`ModelInfo::name`](super::ModelInfo::name).
    pub model: String,
    /// The dialogue so far, oldest first.
    pub messages: Vec<ChatMessage>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens to generate; `None` means as many as the context has left.
    pub max_output_tokens: Option<u32>,
    /// Where `max_output_tokens` is `None`: no more than this, whatever room there is. It need not fit.
    pub output_cap: Option<u32>,
    /// Generation ends before the first of these to appear in the text.
    pub stop: Vec<String>,
}

impl GenerationRequest {
    /// A greedy request for `messages`, without stop strings or a limit of its own.
    pub fn chat<'a>(model: impl Into<String>, messages: impl IntoIterator<Item = (Role, &'a str)>) -> Self {
        Self {
            model: model.into(),
            messages: messages
                .into_iter()
                .map(|(role, content)| ChatMessage { role, content: Zeroizing::new(content.to_owned()) })
                .collect(),
            sampling: Sampling::GREEDY,
            max_output_tokens: None,
            output_cap: None,
            stop: Vec::new(),
        }
    }

    /// Refuses what no model could serve.
    pub(super) fn check(&self) -> Result<(), SubmitError> {
        if self.messages.is_empty() {
            return Err(SubmitError::NoMessages);
        }
        if let Some(field) = self.sampling.out_of_range() {
            return Err(SubmitError::OutOfRange { field });
        }
        if self.max_output_tokens == Some(0) || self.output_cap == Some(0) {
            return Err(SubmitError::OutOfRange { field: "max_output_tokens" });
        }
        if self.stop.len() > MAX_STOP_STRINGS {
            return Err(SubmitError::TooManyStops { got: self.stop.len() });
        }
        if let Some(stop) = self.stop.iter().find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            return Err(SubmitError::StopLength { got: stop.len() });
        }
        Ok(())
    }
}

impl fmt::Debug for GenerationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationRequest")
            .field("model", &self.model)
            .field("n_messages", &self.messages.len())
            .field("sampling", &self.sampling)
            .field("max_output_tokens", &self.max_output_tokens)
            .finish_non_exhaustive()
    }
}

/// Why a request was not admitted. Nothing was generated for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Every slot is taken and the queue is full. Another machine, or a later try, may do.
    #[error("find a free slot")]
    Busy,
    /// Prompt and output together need more tokens than the model or its cache can hold.
    #[error("fit the request into {limit_tokens} tokens: it needs {requested_tokens}")]
    ContextExceeded {
        /// The most tokens that a request may need.
        limit_tokens: usize,
        /// Tokens of the rendered prompt alone.
        prompt_tokens: usize,
        /// Prompt plus `max_output_tokens`, or plus one where that was left out.
        requested_tokens: usize,
    },
    /// The model's chat template refuses this sequence of messages.
    #[error("render the messages with the model's chat template")]
    InvalidMessages(#[source] TemplateError),
    /// There are no messages.
    #[error("find a message")]
    NoMessages,
    /// A sampling field is outside its documented range, or not a number.
    #[error("use {field}: out of range")]
    OutOfRange {
        /// The field's name in [`Sampling`] or [`GenerationRequest`].
        field: &'static str,
    },
    /// The rendered prompt is longer than [`MAX_PROMPT_BYTES`].
    #[error("tokenise a prompt of {got_bytes} bytes: more than {MAX_PROMPT_BYTES}")]
    PromptTooLarge {
        /// Its length.
        got_bytes: usize,
    },
    /// A stop string is empty or longer than [`MAX_STOP_BYTES`].
    #[error("use a stop string of {got} bytes: not within 1..={MAX_STOP_BYTES}")]
    StopLength {
        /// Its length in bytes.
        got: usize,
    },
    /// The engine has shut down.
    #[error("reach the engine: it has stopped")]
    Stopped,
    /// The tokeniser cannot encode the rendered prompt.
    #[error("tokenise the prompt")]
    Tokenise,
    /// More than [`MAX_STOP_STRINGS`] stop strings.
    #[error("use {got} stop strings: more than {MAX_STOP_STRINGS}")]
    TooManyStops {
        /// How many.
        got: usize,
    },
    /// This engine does not serve a model of that name.
    #[error("find the model")]
    UnknownModel,
}
