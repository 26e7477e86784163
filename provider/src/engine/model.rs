//! A model's files in Hugging Face layout: read, digested, and parsed as far as text goes.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;
use zeroize::Zeroizing;

use super::backend::BackendError;
use super::config::{ConfigError, LlamaConfig, OneOrMany};
use super::request::ChatMessage;
use super::template::{ChatTemplate, TemplateError, TemplateField, TokenizerConfig};

/// Bounds on each file, before it is read.
const MAX_JSON_BYTES: u64 = 1 << 20;
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
const MAX_WEIGHTS_BYTES: u64 = 64 << 30;
const MAX_WEIGHTS_FILES: usize = 256;

/// The bytes of a model, named as in its folder.
#[derive(Clone)]
pub struct ModelFiles {
    /// The name that requests use.
    pub name: String,
    /// `config.json`.
    pub config: Cow<'static, [u8]>,
    /// `tokenizer.json`.
    pub tokenizer: Cow<'static, [u8]>,
    /// `tokenizer_config.json`, if there is one.
    pub tokenizer_config: Option<Cow<'static, [u8]>>,
    /// `generation_config.json`, if there is one.
    pub generation_config: Option<Cow<'static, [u8]>>,
    /// `chat_template.jinja`, if there is one; else the template is in `tokenizer_config`.
    pub chat_template: Option<Cow<'static, [u8]>>,
    /// The `safetensors` files, sorted by name.
    pub weights: Vec<WeightsFile>,
}

/// One `safetensors` file.
#[derive(Clone)]
pub struct WeightsFile {
    /// Its name in the folder.
    pub name: String,
    /// Its bytes.
    pub bytes: Cow<'static, [u8]>,
}

impl ModelFiles {
    /// Reads the folder `dir`: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` lists. Every digest is over the bytes read here.
    pub fn read_dir(name: impl Into<String>, dir: &Path) -> Result<Self, ModelError> {
        let required = |file: &str, limit| {
            read_file(dir, file, limit)?
                .ok_or_else(|| ModelError::Read { file: file.to_owned(), source: io::ErrorKind::NotFound.into() })
        };
        let optional = |file: &str| read_file(dir, file, MAX_JSON_BYTES);
        let shards = match read_file(dir, "model.safetensors.index.json", MAX_TOKENIZER_BYTES)? {
            Some(index) => shard_names(&index)?,
            None => BTreeSet::from(["model.safetensors".to_owned()]),
        };
        let weights = shards
            .into_iter()
            .map(|name| {
                let bytes = required(&name, MAX_WEIGHTS_BYTES)?;
                Ok(WeightsFile { name, bytes })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            name: name.into(),
            config: required("config.json", MAX_JSON_BYTES)?,
            tokenizer: required("tokenizer.json", MAX_TOKENIZER_BYTES)?,
            tokenizer_config: optional("tokenizer_config.json")?,
            generation_config: optional("generation_config.json")?,
            chat_template: optional("chat_template.jinja")?,
            weights,
        })
    }

    /// Every file that is there, with its digest, sorted by name.
    fn digests(&self) -> Vec<FileDigest> {
        let mut files = vec![("config.json", &self.config), ("tokenizer.json", &self.tokenizer)];
        for (name, file) in [
            ("chat_template.jinja", &self.chat_template),
            ("generation_config.json", &self.generation_config),
            ("tokenizer_config.json", &self.tokenizer_config),
        ] {
            files.extend(file.as_ref().map(|bytes| (name, bytes)));
        }
        files.extend(self.weights.iter().map(|file| (file.name.as_str(), &file.bytes)));
        files.sort_unstable_by_key(|&(name, _)| name);
        files
            .into_iter()
            .map(|(name, bytes)| FileDigest {
                name: name.to_owned(),
                n_bytes: bytes.len() as u64,
                sha256: Sha256::digest(bytes).into(),
            })
            .collect()
    }
}

impl fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFiles").field("name", &self.name).field("weights", &self.weights).finish_non_exhaustive()
    }
}

impl fmt::Debug for WeightsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightsFile").field("name", &self.name).field("n_bytes", &self.bytes.len()).finish()
    }
}

/// What the network may know of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The name that requests use.
    pub name: String,
    /// Identifies the weights.
    ///
    /// SHA-256 over `length(name) as u32 ‖ name ‖ SHA-256(file)` of each weights file, in the byte
    /// order of their names (SPEC §7.2).
    pub weights_digest: [u8; 32],
    /// Every file the model was loaded from, sorted by name.
    pub files: Vec<FileDigest>,
    /// The longest sequence, prompt and output together, in tokens.
    pub context_tokens: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Its name in the folder.
    pub name: String,
    /// Its length.
    pub n_bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// The text side of a model: chat template, tokeniser, and the tokens that end a turn.
pub struct TextModel {
    info: ModelInfo,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    eos_token_ids: Vec<u32>,
}

impl TextModel {
    /// Parses everything but the weights, which are only digested.
    pub fn parse(files: &ModelFiles) -> Result<Self, ModelError> {
        let config = LlamaConfig::parse(&files.config).map_err(ModelError::Config)?;
        let tokenizer = Tokenizer::from_bytes(&files.tokenizer).map_err(ModelError::Tokenizer)?;
        let n_tokens = tokenizer.get_vocab_size(true);
        if n_tokens > config.vocabulary {
            return Err(ModelError::VocabularyMismatch { tokenizer: n_tokens, config: config.vocabulary });
        }
        let mut tokenizer_config: TokenizerConfig = parse_optional("tokenizer_config.json", files.tokenizer_config.as_deref())?;
        let generation_config: GenerationConfig = parse_optional("generation_config.json", files.generation_config.as_deref())?;
        let in_config = tokenizer_config.chat_template.take();
        let template = match &files.chat_template {
            Some(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            None => in_config.and_then(TemplateField::into_default),
        }
        .ok_or(ModelError::NoChatTemplate)?;
        let mut eos_token_ids = config.eos_token_ids;
        if let Some(ids) = generation_config.eos_token_id {
            eos_token_ids.extend(ids.into_vec());
        }
        Ok(Self {
            info: ModelInfo {
                name: files.name.clone(),
                weights_digest: weights_digest(&files.weights),
                files: files.digests(),
                context_tokens: config.context_tokens,
                vocabulary: config.vocabulary,
            },
            tokenizer,
            template: ChatTemplate::compile(template, &tokenizer_config).map_err(ModelError::Template)?,
            eos_token_ids,
        })
    }

    /// What the network may know of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The text that the model continues with its answer to `messages`.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<Zeroizing<String>, TemplateError> {
        self.template.render(messages)
    }

    /// The tokens of `text`, special tokens in it included, none added. `None` where the
    /// vocabulary cannot spell it.
    pub fn tokenise(&self, text: &str) -> Option<Zeroizing<Vec<u32>>> {
        let encoding = self.tokenizer.encode_fast(text, false).ok()?;
        Some(Zeroizing::new(encoding.get_ids().to_vec()))
    }

    /// The text of `tokens`, special tokens spelled out if `with_special`.
    pub fn detokenise(&self, tokens: &[u32], with_special: bool) -> Zeroizing<String> {
        Zeroizing::new(self.tokenizer.decode(tokens, !with_special).unwrap_or_default())
    }

    /// Whether `token` ends a turn.
    pub fn ends_turn(&self, token: u32) -> bool {
        self.eos_token_ids.contains(&token)
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(super) fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }
}

impl fmt::Debug for TextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextModel").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Why a model's files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The device refused the weights.
    #[error("load the weights")]
    Backend(#[source] BackendError),
    /// `config.json` describes nothing that can run here.
    #[error("use config.json")]
    Config(#[source] ConfigError),
    /// A tensor has a number format that this engine does not read.
    #[error("read the tensor {tensor}: {got} is none of F32, F16, BF16")]
    Dtype {
        /// The tensor's name.
        tensor: String,
        /// Its format.
        got: String,
    },
    /// A JSON file beside the model is malformed.
    #[error("parse {file}")]
    Json {
        /// The file's name.
        file: &'static str,
        /// Where and how.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration needs a tensor that no weights file has.
    #[error("find the tensor {tensor}")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// Neither `chat_template.jinja` nor a template in `tokenizer_config.json`.
    #[error("find a chat template")]
    NoChatTemplate,
    /// A file could not be read.
    #[error("read {file}")]
    Read {
        /// The file's name.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A weights file is not well-formed `safetensors`.
    #[error("parse {file}")]
    Safetensors {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor's shape is not what the configuration says.
    #[error("use the tensor {tensor}: shape {got:?}, configured {expected:?}")]
    Shape {
        /// The tensor's name.
        tensor: String,
        /// As `config.json` has it.
        expected: Vec<usize>,
        /// As the weights have it.
        got: Vec<usize>,
    },
    /// The index lists too many shards, or one that is not a plain file name.
    #[error("use the shard list of model.safetensors.index.json")]
    ShardNames,
    /// The chat template does not compile.
    #[error("use the chat template")]
    Template(#[source] TemplateError),
    /// `tokenizer.json` is malformed.
    #[error("parse tokenizer.json")]
    Tokenizer(#[source] tokenizers::Error),
    /// A file is larger than this engine reads.
    #[error("read {file}: more than {limit} bytes")]
    TooLarge {
        /// The file's name.
        file: String,
        /// The most it may have, in bytes.
        limit: u64,
    },
    /// The tokeniser can yield tokens that the model does not have.
    #[error("use a tokeniser of {tokenizer} tokens with a model of {config}")]
    VocabularyMismatch {
        /// Tokens in `tokenizer.json`.
        tokenizer: usize,
        /// `vocab_size` in `config.json`.
        config: usize,
    },
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<OneOrMany>,
}

fn weights_digest(weights: &[WeightsFile]) -> [u8; 32] {
    let mut shards: Vec<_> = weights.iter().collect();
    shards.sort_unstable_by_key(|file| &file.name);
    let mut digest = Sha256::new();
    for file in shards {
        let name_len = u32::try_from(file.name.len()).expect("a file name is short");
        digest.update(name_len.to_be_bytes());
        digest.update(&file.name);
        digest.update(Sha256::digest(&file.bytes));
    }
    digest.finalize().into()
}

/// The file's bytes, or `None` if it is not there.
fn read_file(dir: &Path, file: &str, limit: u64) -> Result<Option<Cow<'static, [u8]>>, ModelError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(dir.join(file))?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > limit => Err(ModelError::TooLarge { file: file.to_owned(), limit }),
        Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Read { file: file.to_owned(), source }),
    }
}

/// The distinct files of an index, each a plain name in the model's own folder.
fn shard_names(index: &[u8]) -> Result<BTreeSet<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index =
        serde_json::from_slice(index).map_err(|source| ModelError::Json { file: "model.safetensors.index.json", source })?;
    let names: BTreeSet<_> = index.weight_map.into_values().collect();
    let plain = |name: &String| Path::new(name).file_name() == Some(name.as_ref()) && name.ends_with(".safetensors");
    if names.is_empty() || names.len() > MAX_WEIGHTS_FILES || !names.iter().all(plain) {
        return Err(ModelError::ShardNames);
    }
    Ok(names)
}

fn parse_optional<T: Default + for<'a> Deserialize<'a>>(file: &'static str, bytes: Option<&[u8]>) -> Result<T, ModelError> {
    match bytes {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|source| ModelError::Json { file, source }),
        None => Ok(T::default()),
    }
}
