//! The settings: typed and validated at start, before anything is connected to.
//!
//! Every setting is an environment variable; [`variables`] holds the name, default and meaning of
//! each. [`load()`] reads the environment and a `.env` file, collects every problem it finds, and
//! returns [`Settings`] only when there is none. Nothing here writes to the process environment:
//! what a `.env` file says stays inside the program and does not leak into child processes.

mod dotenv;
mod effective;
mod env;
mod fastly;
mod filter_source;
mod lambda;
mod load;
mod load_servers;
mod misspelt;
mod place;
mod problem;
mod settings;
mod template;
mod values;
pub mod variables;

pub use env::{Env, ProcessEnv};
pub use fastly::Fastly;
pub use filter_source::FilterSource;
pub use load::{Loaded, filter_files, load};
pub use place::Place;
pub(crate) use place::is_own_checkout;
pub use settings::{
    DatabaseSettings, Filters, GeoServerSettings, HookOnFailure, Limits, Settings, Skip, SslMode, StatusPageSettings,
    SyncServer,
};
pub use template::Template;
