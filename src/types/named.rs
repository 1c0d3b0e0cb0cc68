//! What a peer says beforehand of its limits (RFC 9422).

/// None: it says nothing, or nothing that makes sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamedLimits {
    /// MAILMAX: transactions on one connection, at least 1.
    pub messages: Option<u32>,
    /// RCPTMAX: recipients of one transaction, at least 1.
    pub recipients: Option<u32>,
}
