//! The crate `qmp`.

use std::path::Path;

use qmp::Client;
use qmp::ConnectOptions;
use qmp::Endpoint;

use crate::scenario::Failure;

/// Begins a session at `path`: it takes no socket that is connected already.
pub(crate) async fn begin(path: &Path, options: ConnectOptions) -> Result<Client, Failure> {
    Ok(Client::connect_with_options(Endpoint::unix(path), options).await?)
}
