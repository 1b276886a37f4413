//! Trees of usual layers.

use napi::bindgen_prelude::{Object, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use super::mounts::promise;
use super::{whole, wrong};
use crate::usual::{self, Layer};

#[napi(object, object_from_js = false)]
pub struct UsualTree {
    pub image: Uint8Array,
    pub digest: String,
    pub chunks: Uint8Array,
    pub content: String,
}

#[napi]
pub fn usual_tree<'env>(
    env: &'env Env,
    format: String,
    index: &[u8],
    digest: String,
    size: f64,
    toc: &[u8],
) -> Result<Object<'env>> {
    let toc = toc.try_into().map_err(|_| wrong("toc: not 32 bytes"))?;
    let layer = Layer { digest, size: whole("size", size)?, toc };
    let build = match format.as_str() {
        "estargz" => usual::estargz,
        "zstd:chunked" => usual::zstd_chunked,
        _ => return Err(wrong(format!("format: {format}"))),
    };
    let index = index.to_vec(); // JavaScript may do with its own what it likes
    promise(env, "a tree".into(), move || {
        let tree = build(&index, &layer);
        Ok(tree.map(|usual::Tree { image, digest, chunks, content }| UsualTree {
            image: image.into(),
            digest,
            chunks: chunks.into(),
            content,
        }))
    })
}
