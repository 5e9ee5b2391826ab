//! A component that is not a receiver: it exports `lifecycle`, but no `handler`.

use exports::wharf::receiver::lifecycle::Guest;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:no-handler;
        world no-handler {
            export wharf:receiver/lifecycle@0.1.0;
        }
    ",
    world: "fixture:no-handler/no-handler",
});

struct NoHandler;

impl Guest for NoHandler {
    fn init() -> Result<(), String> {
        Ok(())
    }

    fn terminate() {}
}

export!(NoHandler);
