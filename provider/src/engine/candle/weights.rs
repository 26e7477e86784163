//! `safetensors` to `f32` tensors, each checked against the configuration.

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};

use crate::engine::model::{ModelError, WeightsFile};

/// The tensors of a model's files, by name.
pub(super) struct Weights<'a> {
    files: Vec<SafeTensors<'a>>,
}

impl<'a> Weights<'a> {
    /// Parses the headers.
    pub(super) fn parse(files: &'a [WeightsFile]) -> Result<Self, ModelError> {
        let files = files
            .iter()
            .map(|file| {
                SafeTensors::deserialize(&file.bytes)
                    .map_err(|source| ModelError::Safetensors { file: file.name.clone(), source })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { files })
    }

    /// A vector of length `n`.
    pub(super) fn vector(&self, name: &str, n: usize) -> Result<Tensor, ModelError> {
        self.tensor(name, &[n])
    }

    /// A matrix as stored: `[n_out, n_in]`.
    pub(super) fn matrix(&self, name: &str, n_out: usize, n_in: usize) -> Result<Tensor, ModelError> {
        self.tensor(name, &[n_out, n_in])
    }

    /// Linear layers that share an input, side by side and transposed: `[n_in, sum of n_out]`.
    pub(super) fn linear(&self, layers: &[(String, usize)], n_in: usize) -> Result<Tensor, ModelError> {
        let stored = layers.iter().map(|(name, n_out)| self.matrix(name, *n_out, n_in)).collect::<Result<Vec<_>, _>>()?;
        transpose(&stored).map_err(load_error)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let view = self
            .files
            .iter()
            .find_map(|file| file.tensor(name).ok())
            .ok_or_else(|| ModelError::MissingTensor { tensor: name.to_owned() })?;
        if view.shape() != shape {
            return Err(ModelError::Shape { tensor: name.to_owned(), expected: shape.to_vec(), got: view.shape().to_vec() });
        }
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(ModelError::Dtype { tensor: name.to_owned(), got: format!("{other:?}") });
            }
        };
        Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32))
            .map_err(load_error)
    }
}

/// What went wrong while making tensors.
pub(super) fn load_error(error: candle_core::Error) -> ModelError {
    ModelError::Backend(error.into())
}

fn transpose(stored: &[Tensor]) -> candle_core::Result<Tensor> {
    Tensor::cat(stored, 0)?.t()?.contiguous()
}
