//! A loose look at the shape of a W3C `traceparent`. What it says is for whoever traces; here it only must not be
//! something else altogether, because it is passed on to receivers and into headers.

/// Whether a text has the shape `version-trace-parent-flags`, in hexadecimal digits of 2, 32, 16 and 2. A version
/// after 00 may add more behind another dash.
pub(crate) fn has_shape(text: &str) -> bool {
    let mut parts = text.split('-');
    let known = [2, 32, 16, 2].into_iter().all(|length| {
        parts
            .next()
            .is_some_and(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    known && parts.all(|part| part.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_shape_and_nothing_else() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(has_shape(good));
        assert!(has_shape(&format!("{good}-later")));
        assert!(!has_shape(&format!("{good}-la ter")));
        assert!(!has_shape(&format!("{good}\r\n")));
        assert!(!has_shape(""));
        assert!(!has_shape("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"));
        assert!(!has_shape("00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01"));
        assert!(!has_shape("00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01"));
    }
}
