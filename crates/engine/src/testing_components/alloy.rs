//! `testcomponents.*`: the components that Alloy's own tests of modules use, so that configurations written for those run here.
//! Values flow between them as exports, and as numbers and texts given to receivers.

mod count;
mod gates;
mod numbers;
mod passthrough;
mod receiver;
mod strings;
mod summation;

use crate::registry::Registry;

pub use count::{TestCount, TestTick};
pub use gates::{TestCommunity, TestExperimental};
pub use numbers::{TestPulse, TestSummationReceiver};
pub use passthrough::TestPassthrough;
pub use receiver::{Collected, TestReceiver};
pub use strings::{TestStringReceiver, TestStringer};
pub use summation::TestSummation;

/// Adds the components.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .with::<TestCommunity>()
        .with::<TestCount>()
        .with::<TestExperimental>()
        .with::<TestPassthrough>()
        .with::<TestPulse>()
        .with::<TestStringReceiver>()
        .with::<TestStringer>()
        .with::<TestSummation>()
        .with::<TestSummationReceiver>()
        .with::<TestTick>()
}
