//! Nix' own builds, lent: what stands in `external-builders` of nix.conf.
//!
//! Nix starts it in place of a builder, as the build's user, with the path of a `build.json`
//! (`src/libstore/unix/build/external-derivation-builder.cc` of Nix). It can't decline: so what isn't built by a lent PC is
//! built here, in a sandbox of its own making. A PC that sleeps costs a few seconds, and never a build.

mod away;
mod bundles;
mod known;
mod local;
mod place;
mod request;
mod settings;
mod told;

pub use request::{BadRequest, NixRequest};
pub use settings::{NixSettings, NixSettingsError};
pub use told::{LentBuildError, NixBuilt, NixTold};

use crate::server::Scan;

/// Builds what Nix asks for: on a lent PC where that is allowed and one begins in time, and here otherwise.
///
/// # Errors
/// When it can't be built here either.
pub async fn build(
    settings: Result<NixSettings, NixSettingsError>,
    request: &NixRequest,
    scan: Scan,
    tell: &mut (dyn FnMut(NixTold<'_>) + Send),
) -> Result<NixBuilt, LentBuildError> {
    let bwrap = settings.as_ref().ok().and_then(|s| s.bwrap.clone());
    let shell = settings.as_ref().ok().and_then(|s| s.shell.clone());
    let why = match settings {
        Err(error) => Some(error.to_string()),
        Ok(settings) => match request.why_not_lent(&settings) {
            Some(why) => Some(why),
            None => match away::build(&settings, request, scan, tell).await {
                Ok(()) => return Ok(NixBuilt::Away),
                Err(why) => Some(why),
            },
        },
    };
    if let Some(why) = why {
        tell(NixTold::Line(format!("It is built here: {why}.")));
    }
    local::build(request, bwrap.as_deref(), shell.as_deref())
        .await
        .map(NixBuilt::Here)
}
