//! Bounds what an answer may bring into memory.

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use http_body_util::Limited;

use crate::storage::bucket::MAX_ANSWER;

/// Cuts every answer that the SDK reads as a whole: all but the bytes of an object, which are taken
/// piece by piece.
#[derive(Debug)]
pub(super) struct LimitAnswers;

/// Marks a request that asks for an object.
#[derive(Debug)]
struct AsksForObject(bool);

impl Storable for AsksForObject {
    type Storer = StoreReplace<Self>;
}

impl Intercept for LimitAnswers {
    fn name(&self) -> &'static str {
        "LimitAnswers"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let asks = AsksForObject(is_object(request.method(), request.uri()));
        state.interceptor_state().store_put(asks);
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_object = state.load::<AsksForObject>().is_some_and(|asks| asks.0);
        let response = context.response_mut();
        if is_object && response.status().is_success() {
            return Ok(());
        }
        let body = std::mem::replace(response.body_mut(), SdkBody::taken());
        *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER));
        Ok(())
    }
}

/// Returns whether a request asks for an object rather than a list.
fn is_object(method: &str, uri: &str) -> bool {
    let query = uri.split_once('?').map_or("", |parts| parts.1);
    let is_list = query
        .split('&')
        .any(|pair| ["list-type", "uploads"].contains(&pair.split('=').next().unwrap_or_default()));
    method == "GET" && !is_list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_of_an_object_have_no_bound_here() {
        assert!(is_object("GET", "https://host/bucket/key?x-id=GetObject"));
        assert!(is_object("GET", "https://host/bucket/uploads"));
        assert!(!is_object(
            "GET",
            "https://host/bucket?list-type=2&prefix=a"
        ));
        assert!(!is_object("GET", "https://host/bucket?uploads"));
        assert!(!is_object("PUT", "https://host/bucket/key"));
    }
}
