//! Empty: cargo asks every package for a target; this one only names sources (see Cargo.toml).
