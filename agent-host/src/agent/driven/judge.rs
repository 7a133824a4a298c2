//! What every wire's failures have in common: the status of the request that failed.

use protocol::class::Class;

/// The class of a request that failed with this HTTP status. A 400 that no word explains is the
/// request's own fault: to send it again would not help.
pub(in crate::agent) fn by_status(status: u64) -> Option<Class> {
    Some(match status {
        401 | 403 => Class::Auth,
        402 => Class::Billing,
        404 => Class::ModelMissing,
        408 => Class::Network,
        413 => Class::Overflow,
        429 => Class::UsageLimit,
        500..=599 => Class::Overload,
        400..=499 => Class::Refused,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_has_a_class() {
        let classes = [
            (401, Class::Auth),
            (402, Class::Billing),
            (404, Class::ModelMissing),
            (408, Class::Network),
            (413, Class::Overflow),
            (429, Class::UsageLimit),
            (400, Class::Refused),
            (422, Class::Refused),
            (500, Class::Overload),
            (529, Class::Overload),
        ];
        for (status, class) in classes {
            assert_eq!(by_status(status), Some(class), "{status}");
        }
        for status in [0, 200, 302, 600] {
            assert_eq!(by_status(status), None, "{status}");
        }
    }
}
