//! Trees of usual layers.

use std::panic;

use napi::bindgen_prelude::{Object, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use super::mounts::promise;
use super::{whole, wrong};
use crate::usual::{self, Blob, Layer};

#[napi(object, object_from_js = false)]
pub struct UsualTree {
    pub image: Uint8Array,
    pub digest: String,
    pub chunks: Uint8Array,
    pub content: String,
    pub parts: Option<Vec<UnitPart>>,
}

#[napi(object, object_from_js = false)]
pub struct UnitPart {
    pub digest: String,
    pub ends: Option<String>,
}

#[napi(object, object_to_js = false)]
pub struct UnitBlob {
    pub digest: String,
    pub size: Option<f64>,
}

#[napi]
pub fn usual_tree<'env>(
    env: &'env Env,
    format: String,
    index: &[u8],
    vouched: &[u8],
    blobs: Vec<UnitBlob>,
) -> Result<Object<'env>> {
    let sized = |UnitBlob { digest, size }| -> Result<Blob> {
        Ok(Blob { digest, size: size.map(|size| whole("size", size)).transpose()? })
    };
    let blobs = blobs.into_iter().map(sized).collect::<Result<_>>()?;
    let layer = Layer { index: vouched.try_into().map_err(|_| wrong("vouched: not 32 bytes"))?, blobs };
    let index = index.to_vec(); // JavaScript may do with its own what it likes
    promise(env, "a tree".into(), move || {
        // whoever asks has a parser that knows better, and must not wait for ever
        let built = panic::catch_unwind(|| usual::build(&format, &index, &layer));
        Ok(built.unwrap_or_default().map(UsualTree::from))
    })
}

impl From<usual::Tree> for UsualTree {
    fn from(usual::Tree { image, digest, chunks, content, parts }: usual::Tree) -> Self {
        let part = |usual::Part { digest, ends }| UnitPart { digest, ends: ends.map(str::to_owned) };
        let parts = parts.map(|parts| parts.into_iter().map(part).collect());
        Self { image: image.into(), digest, chunks: chunks.into(), content, parts }
    }
}
