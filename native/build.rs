//! Tells the linker that Node's symbols come at load time.
fn main() {
    napi_build::setup();
}
