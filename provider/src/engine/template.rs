//! The model's own chat template: from messages to the one text it was trained on.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::request::ChatMessage;

/// A compiled `chat_template`, rendered as the Hugging Face tokenisers do: `trim_blocks`,
/// `lstrip_blocks`, Python's string methods, `raise_exception`.
///
/// `strftime_now` is left undefined. Templates that use it test for it first, and without it a
/// prompt depends on nothing but its messages, so its tokens can be counted again later.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Compiles `source`; takes the special tokens' texts from `tokenizer_config`.
    pub(super) fn compile(source: String, tokenizer_config: &TokenizerConfig) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(TemplateError::compile)?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(TEMPLATE_NAME, source).map_err(TemplateError::compile)?;
        let text = |token: &Option<SpecialToken>| token.as_ref().map(|token| token.text().to_owned()).unwrap_or_default();
        Ok(Self { environment, bos_token: text(&tokenizer_config.bos_token), eos_token: text(&tokenizer_config.eos_token) })
    }

    /// The prompt that asks the model for the next assistant turn.
    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<Zeroizing<String>, TemplateError> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| {
                context! { role => message.role.as_str(), content => message.content.as_str() }
            })
            .collect();
        self.environment
            .get_template(TEMPLATE_NAME)
            .and_then(|template| {
                template.render(context! {
                    messages,
                    add_generation_prompt => true,
                    bos_token => self.bos_token.as_str(),
                    eos_token => self.eos_token.as_str(),
                })
            })
            .map(Zeroizing::new)
            .map_err(|error| TemplateError::render(&error))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").finish_non_exhaustive()
    }
}

/// Why a chat template could not be compiled or rendered.
///
/// Rendering errors name a kind and a line only: the engine's own message may quote the dialogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is not valid Jinja.
    #[error("compile the chat template")]
    Compile(#[source] Box<minijinja::Error>),
    /// The template called `raise_exception`: it does not take this sequence of messages.
    #[error("render the chat template: it refuses these messages")]
    Refused,
    /// The template failed at `line`.
    #[error("render the chat template: {kind} in line {line}")]
    Render {
        /// The engine's name for the failure.
        kind: String,
        /// Line of the template, 0 if unknown.
        line: usize,
    },
}

impl TemplateError {
    fn compile(error: minijinja::Error) -> Self {
        Self::Compile(Box::new(error))
    }

    fn render(error: &minijinja::Error) -> Self {
        if error.kind() == ErrorKind::InvalidOperation && error.detail() == Some(REFUSED) {
            return Self::Refused;
        }
        Self::Render { kind: error.kind().to_string(), line: error.line().unwrap_or(0) }
    }
}

/// What `tokenizer_config.json` says that the engine needs. Every field may be missing.
#[derive(Default, Deserialize)]
pub(super) struct TokenizerConfig {
    pub(super) chat_template: Option<TemplateField>,
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
}

/// One template, or several by name, of which the engine uses `default`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

impl TemplateField {
    /// The template for plain chat.
    pub(super) fn into_default(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(templates) => templates.into_iter().find(|named| named.name == "default").map(|named| named.template),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Added { content: String },
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

/// The template's word is dropped on purpose: it may quote a message.
fn raise_exception(_message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, REFUSED))
}

const TEMPLATE_NAME: &str = "chat_template";
const REFUSED: &str = "refused by the chat template";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::{GenerationRequest, Role};

    fn render(template: &str, messages: &[(Role, &str)]) -> Result<String, TemplateError> {
        let config = serde_json::from_str(r#"{"bos_token":{"content":"<s>"},"eos_token":"</s>"}"#).expect("valid JSON");
        let request = GenerationRequest::chat("", messages.iter().copied());
        ChatTemplate::compile(template.to_owned(), &config)?.render(&request.messages).map(|text| text.to_string())
    }

    #[test]
    fn blocks_and_python_methods_as_in_hugging_face() {
        let template = "{{ bos_token }}\n{% for m in messages %}\n  {% if m.role == 'user' %}\n[{{ m['content'].strip() | upper }}]{{ eos_token }}\n  {% endif %}\n{% endfor %}\n";
        let text = render(template, &[(Role::System, "x"), (Role::User, " hi ")]).unwrap();
        assert_eq!(text, "<s>\n[HI]</s>\n");
    }

    #[test]
    fn loops_can_break_and_values_become_json() {
        let template = "{% for m in messages %}{{ m.content | tojson }}{% break %}{% endfor %}";
        let text = render(template, &[(Role::User, "a\"b"), (Role::User, "c")]).unwrap();
        assert_eq!(text, r#""a\"b""#);
    }

    #[test]
    fn a_refusal_does_not_quote_the_dialogue() {
        let error = render("{{ raise_exception('bad: ' + messages[0].content) }}", &[(Role::User, "SECRET")]).unwrap_err();
        assert!(matches!(error, TemplateError::Refused));
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }

    #[test]
    fn a_failure_does_not_quote_the_dialogue() {
        let error = render("\n{{ messages[0].content | int }}", &[(Role::User, "SECRET")]).unwrap_err();
        assert!(matches!(error, TemplateError::Render { line: 2, .. }));
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }

    #[test]
    fn a_broken_template_is_refused_at_load() {
        assert!(matches!(render("{% for %}", &[(Role::User, "x")]), Err(TemplateError::Compile(_))));
    }
}
