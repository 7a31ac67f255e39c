//! The model: one HTTP request a question.

use std::env;
use std::error::Error;

use serde::{Deserialize, Serialize};
use wstd::http::{Body, Client, Request};
use wstd::runtime::block_on;

use crate::conversation::{Message, Question};

#[derive(Serialize)]
struct Completion<'a> {
    model: &'a str,
    messages: &'a [Message],
}

#[derive(Deserialize)]
struct Completed {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Reply,
}

#[derive(Deserialize)]
struct Reply {
    content: String,
}

pub(crate) fn ask(question: &Question<'_>) -> Result<String, Box<dyn Error>> {
    let url = env::var("MODEL_URL").map_err(|_| "set MODEL_URL: --env MODEL_URL=…")?;
    let model = env::var("MODEL").unwrap_or_else(|_| "default".into());
    let completion = Completion {
        model: &model,
        messages: question.messages,
    };
    let request = Request::post(&url)
        .header("content-type", "application/json")
        .header("idempotency-key", &question.idempotency_key)
        .body(Body::from_json(&completion)?)?;
    block_on(async {
        let response = Client::new().send(request).await;
        let response = response.map_err(|error| format!("cannot ask the model: {error:#}"))?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let why = body.str_contents().await.unwrap_or_default();
            let why: String = why.chars().take(500).collect();
            return Err(format!("the model's server answered {status}: {why}").into());
        }
        let completed: Completed = body.json().await.map_err(|error| error.to_string())?;
        let choice = completed.choices.into_iter().next();
        let choice = choice.ok_or("the model's server answered without a choice")?;
        Ok(choice.message.content)
    })
}
