//! The threads that commands wait on.

use crate::{error::CliError, interrupt};

/// Runs what waits for several things at once.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("can't start the threads that do the work").because(&e))?;
    let result = runtime.block_on(work);
    if interrupt::is_insisted() {
        // What is called off ends the programs that it has started.
        runtime.shutdown_timeout(interrupt::INSISTED_MAX);
    } else {
        // A read of the terminal can't be called off; nothing waits for it.
        runtime.shutdown_background();
    }
    undercroft_process::end_programs();
    result
}
