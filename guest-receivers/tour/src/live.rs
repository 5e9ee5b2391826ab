//! Sends updates to the browsers that have the receiver's page open. Needs the grant `live = true`.

use crate::wharf::receiver::live::publish;

/// Shows what an agent said last. With a key, whoever opens the page later gets the last value too.
pub fn show(agent: &str, body: &str) {
    publish(Some(agent), body);
}
