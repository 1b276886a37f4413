//! Calls into JavaScript, queued on its event loop from any thread.
//!
//! None of them keeps the event loop alive but `ended`, and that only until the connection has ended or `close` was called: a session
//! is a reason for a process to live, as a listening socket is.
#![forbid(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use napi::Status;
use napi::bindgen_prelude::{BigInt, FnArgs, Function, JsObjectValue, JsValuesTupleIntoVec, Object, Uint32Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode::NonBlocking, UnknownReturnValue};
use napi::{Env, Result};

use crate::wire::Negotiated;

type Call<Data, Args, const WEAK: bool = true> = ThreadsafeFunction<Data, UnknownReturnValue, Args, Status, false, WEAK>;

type MissArgs = FnArgs<(u32, Uint32Array)>;
type LookupArgs = FnArgs<(u32, BigInt, String, u32)>;
type HintArgs = FnArgs<(&'static str, BigInt, String)>;
type LateArgs = FnArgs<(BigInt,)>;
type EndedArgs = FnArgs<(String,)>;
type InitializedArgs = FnArgs<(u32, BigInt, bool)>;

pub struct Upcalls {
    miss: Call<(u32, Vec<u32>), MissArgs>,
    lookup: Call<(u32, u64, String, u32), LookupArgs>,
    late: Call<u64, LateArgs>,
    hint: Call<(&'static str, u64, String), HintArgs>,
    initialized: Call<Negotiated, InitializedArgs>,
    ended: Mutex<Option<Call<String, EndedArgs, false>>>,
}

/// A method of the caller's object, which stays its `this`.
fn method<'env, Args: JsValuesTupleIntoVec>(of: &Object<'env>, name: &str) -> Result<Function<'env, Args, UnknownReturnValue>> {
    of.get_named_property(name)
}

impl Upcalls {
    pub fn new(of: &Object) -> Result<Self> {
        Ok(Self {
            miss: method::<MissArgs>(of, "miss")?.bind(of)?.build_threadsafe_function().weak::<true>().build_callback(
                |call| {
                    let (device, chunks): (u32, Vec<u32>) = call.value;
                    Ok((device, Uint32Array::new(chunks)).into())
                },
            )?,
            lookup: method::<LookupArgs>(of, "lookup")?.bind(of)?.build_threadsafe_function().weak::<true>().build_callback(
                |call| {
                    let (ticket, parent, name, user): (u32, u64, String, u32) = call.value;
                    Ok((ticket, BigInt::from(parent), name, user).into())
                },
            )?,
            late: method::<LateArgs>(of, "late")?.bind(of)?.build_threadsafe_function().weak::<true>().build_callback(
                |call| {
                    let node: u64 = call.value;
                    Ok((BigInt::from(node),).into())
                },
            )?,
            hint: method::<HintArgs>(of, "hint")?.bind(of)?.build_threadsafe_function().weak::<true>().build_callback(
                |call| {
                    let (what, parent, name): (&'static str, u64, String) = call.value;
                    Ok((what, BigInt::from(parent), name).into())
                },
            )?,
            initialized: method::<InitializedArgs>(of, "initialized")?
                .bind(of)?
                .build_threadsafe_function()
                .weak::<true>()
                .build_callback(|call| {
                    let negotiated: Negotiated = call.value;
                    Ok((negotiated.minor, BigInt::from(negotiated.flags), negotiated.resends()).into())
                })?,
            ended: Mutex::new(Some(method::<EndedArgs>(of, "ended")?.bind(of)?.build_threadsafe_function().build_callback(
                |call| {
                    let reason: String = call.value;
                    Ok((reason,).into())
                },
            )?)),
        })
    }

    /// False when JavaScript cannot be reached any more.
    pub fn miss(&self, device: u32, chunks: Vec<u32>) -> bool {
        self.miss.call((device, chunks), NonBlocking) == Status::Ok
    }

    /// False when JavaScript cannot be reached any more.
    pub fn lookup(&self, ticket: u32, parent: u64, name: &str, user: u32) -> bool {
        self.lookup.call((ticket, parent, name.to_owned(), user), NonBlocking) == Status::Ok
    }

    /// False when JavaScript cannot be reached any more.
    pub fn late(&self, node: u64) -> bool {
        self.late.call(node, NonBlocking) == Status::Ok
    }

    /// A hint that cannot be given is none that matters.
    pub fn hint(&self, what: &'static str, parent: u64, name: &str) {
        self.hint.call((what, parent, name.to_owned()), NonBlocking);
    }

    /// Told once of each connection, to whoever was there when it began.
    pub fn initialized(&self, negotiated: Negotiated) {
        self.initialized.call(negotiated, NonBlocking);
    }

    /// Calls `ended`, once, and lets the event loop go.
    pub fn ended(&self, reason: String) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            ended.call(reason, NonBlocking);
        }
    }

    /// Lets the event loop go without forgetting to call `ended`.
    pub fn release(&self, env: &Env) -> Result<()> {
        match self.ended.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            #[allow(deprecated)] // there is no other way to change it after the start
            Some(ended) => ended.unref(env),
            None => Ok(()),
        }
    }
}
