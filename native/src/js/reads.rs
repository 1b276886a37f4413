//! What programs read: for profiles of starts (`src/layer/recorder.ts`).

use napi::bindgen_prelude::{Buffer, Float64Array, Object};
use napi::{Env, Result};
use napi_derive::napi;

use super::mounts::promise;
use super::session::Session;
use super::whole;
use crate::cached::{self, Part};

#[napi(object, object_to_js = false)]
pub struct FilePart {
    pub path: String,
    pub start: f64,
    pub end: f64,
}

#[napi]
pub fn cached_parts(env: &Env, dir: String, parts: Vec<FilePart>) -> Result<Object<'_>> {
    let mut asked = Vec::with_capacity(parts.len());
    for FilePart { path, start, end } in parts {
        asked.push(Part { path, start: whole("start", start)?, end: whole("end", end)? });
    }
    promise(env, dir.clone(), move || cached::parts(&dir, &asked).map(Buffer::from))
}

#[napi]
impl Session {
    /// Start, end and milliseconds since 1970, of each.
    #[napi]
    pub fn take_reads(&self, device: u32) -> Float64Array {
        let Some(device) = self.core.device(device) else { return Float64Array::new(Vec::new()) };
        let mut flat = Vec::new();
        for read in device.first_reads().take() {
            if let Some((at, end)) = device.place(read.place) {
                flat.extend([at as f64, end as f64, read.at_ms as f64]);
            }
        }
        Float64Array::new(flat)
    }

    #[napi]
    pub fn note_reads(&self, device: u32) {
        if let Some(device) = self.core.device(device) {
            device.first_reads().begin();
        }
    }

    #[napi]
    pub fn ignore_reads(&self, device: u32) {
        if let Some(device) = self.core.device(device) {
            device.first_reads().end();
        }
    }
}
