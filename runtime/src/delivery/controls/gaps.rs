//! The gap records of receivers, for operators.

use wharf_state::KnownGaps;

use super::{ControlError, Controls};

impl Controls {
    /// What a receiver did not get, and why. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unknown`], [`ControlError::State`].
    pub fn gaps(&self, receiver: &str) -> Result<KnownGaps, ControlError> {
        self.find(receiver)?;
        Ok(self.state.gaps(receiver)?)
    }
}
