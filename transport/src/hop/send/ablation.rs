//! Repair with parts of it left out, so that benchmarks can tell what each is worth.

/// What is left out. Only benchmarks choose it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ablation {
    /// Nothing.
    #[default]
    None,
    /// Everything coded: each packet that a report misses is sent again as it was, and that is all.
    PlainNack,
    /// Reports repair nothing: there is only parity, as much as for [`Delivery::LowLatency`].
    ///
    /// [`Delivery::LowLatency`]: crate::wire::control::Delivery::LowLatency
    ParityOnly,
}
