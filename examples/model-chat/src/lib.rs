//! An agent that holds a conversation with a model behind an HTTP API of the chat-completions
//! format, which most services and local servers speak.
//!
//! The argument is a message, and the answer is the model's. Without an argument, a message that
//! was interrupted is answered. Its environment says where the model is:
//!
//! - `MODEL_URL`, such as `https://api.example.com/v1/chat/completions`
//! - `MODEL`, the name of the model
//!
//! The operator allows the host and adds the key, which the agent never sees:
//!
//! ```text
//! persist chat --env MODEL_URL=https://api.example.com/v1/chat/completions --env MODEL=small \
//!   --allow-http api.example.com --http-headers api.example.com=headers.txt model_chat.wasm
//! ```

#[cfg(any(target_arch = "wasm32", test))]
mod conversation;
#[cfg(target_arch = "wasm32")]
mod model;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "wasm32")]
persist_guest::agent!(run);

#[cfg(target_arch = "wasm32")]
fn run(args: Vec<String>) -> Result<String, Box<dyn std::error::Error>> {
    match args.as_slice() {
        [] => conversation::turn(None, &mut model::ask),
        [message] => conversation::turn(Some(message), &mut model::ask),
        _ => Err("usage: one message, or none to answer the last".into()),
    }
}
