//! A lent job confined on its owner's machine, and seen gone.
//!
//! What runs knows nothing of leases and nobody's network. It is told by its caller what it may have, and gets
//! nothing that could not be confined: a limit that can't be read back is a refusal, never a weaker sandbox.
