//! A client over the bare interfaces of `wasi:http`.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Sends a request and reads the whole response. An error is the code of `wasi:http`.
pub(crate) fn send(request: &Request<'_>) -> Result<Response, String> {
    let code = |error: wasip2::http::types::ErrorCode| format!("{error:?}");
    let (scheme, rest) = request.url.split_once("://").ok_or("no scheme")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);

    let headers = Fields::new();
    for (name, value) in request.headers {
        headers
            .append(name, value.as_bytes())
            .map_err(|error| format!("{error:?}"))?;
    }
    let outgoing = OutgoingRequest::new(headers);
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.into()),
    };
    let refused = |()| "refused by the types".to_owned();
    outgoing.set_scheme(Some(&scheme)).map_err(refused)?;
    outgoing.set_authority(Some(authority)).map_err(refused)?;
    outgoing.set_path_with_query(Some(path)).map_err(refused)?;
    let method = match request.method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        other => Method::Other(other.into()),
    };
    outgoing.set_method(&method).map_err(refused)?;

    let body = outgoing.body().map_err(refused)?;
    let response = handle(outgoing, None).map_err(code)?;
    let stream = body.write().map_err(refused)?;
    // A server may answer, or a limit may end the request, before the body was read.
    let _ = request
        .body
        .chunks(4096)
        .try_for_each(|piece| stream.blocking_write_and_flush(piece));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);

    response.subscribe().block();
    let response = response
        .get()
        .ok_or("no response")?
        .map_err(|()| "taken twice")?
        .map_err(code)?;
    let location = response.headers().get("location");
    let location = location.into_iter().next();
    let location = location.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let status = response.status();
    let incoming = response.consume().map_err(refused)?;
    Ok(Response {
        status,
        location,
        body: read(&incoming)?,
    })
}

fn read(body: &IncomingBody) -> Result<Vec<u8>, String> {
    let stream = body.stream().map_err(|()| "read twice")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(wasip2::http::types::http_error_code(&error)
                    .map_or_else(|| error.to_debug_string(), |code| format!("{code:?}")));
            }
        }
    }
}
