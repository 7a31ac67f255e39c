//! A plugin that keeps quotes: `!quote TEXT` adds one, `!quote` gives the newest.

#[cfg(target_arch = "wasm32")]
mod plugin {
    wit_bindgen::generate!({
        path: ["../../../../wit", "../../wit"],
        world: "chatbot:plugins/plugin",
        generate_all,
    });

    struct Quotes;

    impl Guest for Quotes {
        fn reply(sender: String, message: String) -> Result<Option<String>, String> {
            super::reply(&sender, &message).map_err(|error| error.to_string())
        }
    }

    export!(Quotes);
}

use persist_guest::{Error, json};

/// Answers a message that is for this plugin.
///
/// # Errors
/// An error of the store.
pub fn reply(sender: &str, message: &str) -> Result<Option<String>, Error> {
    if let Some(text) = message.strip_prefix("!quote ") {
        let count = json::update("quotes", |quotes: &mut Vec<String>| {
            quotes.push(format!("{text} ({sender})"));
            Ok::<_, Error>(quotes.len())
        })?;
        return Ok(Some(format!("kept as quote {count}")));
    }
    if message != "!quote" {
        return Ok(None);
    }
    let quotes: Vec<String> = json::load("quotes")?.unwrap_or_default();
    let newest = quotes.last().cloned();
    Ok(Some(newest.unwrap_or("there is no quote yet".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_kept() {
        assert_eq!(reply("ann", "hello"), Ok(None));
        let kept = reply("ann", "!quote less is more");
        assert_eq!(kept, Ok(Some("kept as quote 1".into())));
        let newest = reply("bob", "!quote");
        assert_eq!(newest, Ok(Some("less is more (ann)".into())));
    }
}
