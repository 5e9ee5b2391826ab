//! Who gives an order, as far as this machine knows. Nobody vouches for it.

use rustix::process::getuid;
use wharf_state::MAX_WHO;

/// The user and the machine.
pub fn who() -> String {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|key| std::env::var(key).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", getuid().as_raw()));
    let host = sysinfo::System::host_name().unwrap_or_else(|_| "unknown".to_owned());
    bounded(format!("{user}@{host}"), MAX_WHO)
}

/// As much of a text as is kept.
pub fn bounded(mut text: String, max_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(max_bytes));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_cut_between_characters() {
        assert_eq!(bounded("aé".to_owned(), 2), "a");
        assert_eq!(bounded("aé".to_owned(), 3), "aé");
    }
}
