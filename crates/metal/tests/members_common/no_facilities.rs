//! Facilities of machines that nobody boots or looks at.

use undercroft_metal::world::{Facilities, Pending};
use undercroft_model::{Failure, NodeName};
use undercroft_rack::ConsoleIdentity;

pub(crate) struct NoFacilities;

impl Facilities for NoFacilities {
    fn offer(&self, _: &NodeName, _: bool) -> Result<(), Failure> {
        Ok(())
    }
    fn boot_from_network<'a>(
        &'a self,
        _: &'a NodeName,
    ) -> Pending<'a, Result<Option<String>, Failure>> {
        Box::pin(async { Ok(None) })
    }
    fn console_identity<'a>(
        &'a self,
        _: &'a NodeName,
    ) -> Pending<'a, Result<Option<ConsoleIdentity>, Failure>> {
        Box::pin(async { Ok(None) })
    }
    fn console_name(&self, _: &NodeName) -> String {
        "none".to_owned()
    }
}
