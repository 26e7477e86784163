//! Models from a folder, good and bad.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fanlight_provider::engine::candle::{self, CandleBackend};
use fanlight_provider::engine::{
    BatchEngine, ConfigError, Engine, GenerationRequest, Limits, ModelError, ModelFiles, Role, StartError, TextModel, builtin,
};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::read;

fn model_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-llama"))
}

/// The built-in model with `config.json` edited.
fn with_config(edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> ModelFiles {
    let mut files = builtin::files();
    let mut config = serde_json::from_slice(&files.config).expect("config.json parses");
    edit(&mut config);
    files.config = Cow::Owned(serde_json::to_vec(&config).expect("JSON writes"));
    files
}

fn start_error(files: ModelFiles) -> ModelError {
    match candle::start(files, Limits::default()) {
        Err(StartError::Model(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// SPEC §7.2, written a second time.
fn weights_digest(files: &[(&str, &[u8])]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for (name, file) in files {
        bytes.extend(u32::try_from(name.len()).expect("a file name is short").to_be_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(Sha256::digest(file));
    }
    Sha256::digest(bytes).into()
}

#[tokio::test]
async fn a_folder_serves_as_the_built_in_model_does() {
    let files = ModelFiles::read_dir("folder", model_dir()).unwrap();
    let engine: Box<dyn Engine> = Box::new(candle::start(files, Limits::default()).unwrap());
    let infos = engine.models();
    let [info] = infos.as_slice() else {
        panic!("one model: {infos:?}");
    };
    let weights = fs::read(model_dir().join("model.safetensors")).unwrap();
    assert_eq!(info.weights_digest, weights_digest(&[("model.safetensors", &weights)]));
    assert_eq!((info.context_tokens, info.vocabulary), (1024, 1024));
    let names: Vec<_> = info.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]);
    assert!(engine.stats().weights_bytes > 3_600_000);
    let request = GenerationRequest::chat("folder", [(Role::User, "What is 12 + 7?")]);
    assert_eq!(read(engine.submit(request).unwrap()).await.text, "12 + 7 = 19.");
}

#[tokio::test]
async fn shards_and_a_template_in_the_tokenizer_config_serve_too() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(model_dir().join(file), dir.path().join(file)).unwrap();
    }
    let template = fs::read_to_string(model_dir().join("chat_template.jinja")).unwrap();
    let tokenizer_config = serde_json::json!({ "chat_template": template });
    fs::write(dir.path().join("tokenizer_config.json"), tokenizer_config.to_string()).unwrap();
    let weights = fs::read(model_dir().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&weights).unwrap();
    let mut weight_map = HashMap::new();
    let mut shards = Vec::new();
    for (shard, parity) in [("a.safetensors", 0), ("b.safetensors", 1)] {
        let part = tensors.iter().enumerate().filter(|(index, _)| index % 2 == parity).map(|(_, (name, tensor))| (name, tensor));
        let part: Vec<_> = part
            .inspect(|(name, _)| {
                weight_map.insert((*name).to_owned(), shard);
            })
            .collect();
        let bytes = safetensors::serialize(part, None).unwrap();
        fs::write(dir.path().join(shard), &bytes).unwrap();
        shards.push((shard, bytes));
    }
    let index = serde_json::json!({ "weight_map": weight_map });
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();

    let files = ModelFiles::read_dir("shards", dir.path()).unwrap();
    let engine = candle::start(files, Limits::default()).unwrap();
    let shards: Vec<_> = shards.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    assert_eq!(engine.model().info().weights_digest, weights_digest(&shards));
    let request = GenerationRequest::chat("shards", [(Role::User, "What is 12 + 7?")]);
    assert_eq!(read(engine.submit(request).unwrap()).await.text, "12 + 7 = 19.");
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelFiles::read_dir("m", dir.path()).unwrap_err();
    assert!(matches!(error, ModelError::Read { file, .. } if file == "model.safetensors"));
}

#[test]
fn an_index_cannot_reach_outside_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../model.safetensors", "/etc/passwd", "x/y.safetensors", "..", "a.bin"] {
        let index = serde_json::json!({ "weight_map": { "t": name } });
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let error = ModelFiles::read_dir("m", dir.path()).unwrap_err();
        assert!(matches!(error, ModelError::ShardNames), "{name}: {error:?}");
    }
}

#[test]
fn broken_weights_are_refused() {
    let mut files = builtin::files();
    let whole = files.weights[0].bytes.to_vec();
    for bytes in [Vec::new(), whole[..7].to_vec(), whole[..whole.len() - 1].to_vec(), [&[0xff; 8], &whole[8..]].concat()] {
        files.weights[0].bytes = Cow::Owned(bytes);
        let error = start_error(files.clone());
        assert!(matches!(&error, ModelError::Safetensors { file, .. } if file == "model.safetensors"), "{error:?}");
    }
    files.weights.clear();
    let error = start_error(files);
    assert!(matches!(error, ModelError::MissingTensor { tensor } if tensor.contains("layernorm")));
}

#[test]
fn a_configuration_that_the_weights_do_not_fit_is_refused() {
    let error = start_error(with_config(|config| {
        config.insert("intermediate_size".into(), 385.into());
    }));
    let ModelError::Shape { tensor, expected, got } = error else {
        panic!("{error:?}");
    };
    assert_eq!(tensor, "model.layers.0.mlp.gate_proj.weight");
    assert_eq!((expected, got), (vec![385, 128], vec![384, 128]));

    let error = start_error(with_config(|config| {
        config.insert("num_hidden_layers".into(), 5.into());
    }));
    assert!(matches!(error, ModelError::MissingTensor { tensor } if tensor.contains("layers.4")));

    let error = start_error(with_config(|config| {
        config.insert("vocab_size".into(), 1023.into());
    }));
    assert!(matches!(error, ModelError::VocabularyMismatch { tokenizer: 1024, config: 1023 }));

    let error = start_error(with_config(|config| {
        config.insert("tie_word_embeddings".into(), false.into());
    }));
    assert!(matches!(error, ModelError::MissingTensor { tensor } if tensor == "lm_head.weight"));
}

#[test]
fn a_configuration_for_another_architecture_is_refused() {
    let refuse = |field: &str, value: serde_json::Value| {
        let files = with_config(|config| {
            config.insert(field.to_owned(), value);
        });
        match CandleBackend::load(&files) {
            Err(ModelError::Config(error)) => error,
            other => panic!("{field}: {other:?}"),
        }
    };
    assert!(matches!(
        refuse("model_type", "gemma".into()),
        ConfigError::ModelType { got } if got == "gemma"
    ));
    assert!(matches!(
        refuse("hidden_act", "gelu".into()),
        ConfigError::Activation { got } if got == "gelu"
    ));
    assert!(matches!(
        refuse("rope_scaling", serde_json::json!({"factor": 8.0})),
        ConfigError::Unsupported { field: "rope_scaling" }
    ));
    for (field, value) in [
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 0),
        ("num_attention_heads", 0),
        ("num_hidden_layers", 1_u64 << 40),
        ("head_dim", 33),
        ("max_position_embeddings", 0),
    ] {
        assert!(matches!(refuse(field, value.into()), ConfigError::OutOfRange { field: got, .. } if got == field), "{field}");
    }
    assert!(matches!(refuse("hidden_size", "wide".into()), ConfigError::Json(_)));
}

#[test]
fn a_model_without_a_chat_template_is_refused() {
    let mut files = builtin::files();
    files.chat_template = None;
    assert!(matches!(TextModel::parse(&files), Err(ModelError::NoChatTemplate)));
    files.tokenizer = Cow::Borrowed(b"{}");
    assert!(matches!(TextModel::parse(&files), Err(ModelError::Tokenizer(_))));
}

#[test]
fn limits_without_room_are_refused() {
    for limits in [Limits { max_running: 0, ..Limits::default() }, Limits { cache_tokens: 0, ..Limits::default() }] {
        let started: Result<BatchEngine, _> = builtin::start(limits);
        assert!(matches!(started, Err(StartError::Limits)));
    }
}
