//! Protobuf to JSON and back, by the compiled descriptors: the proto3 JSON mapping, so that every client library of
//! protobuf reads it.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use node_api::proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use thiserror::Error;

/// Why a message was not translated.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The descriptors are broken.
    #[error("the descriptors cannot be read: {0}")]
    Descriptors(String),
    /// There is no such message.
    #[error("there is no message {0}")]
    NoMessage(String),
    /// The JSON has a mistake.
    #[error("{0}")]
    Json(String),
    /// A node sent something else.
    #[error("an answer has another form: {0}")]
    Protobuf(String),
}

/// Translates by the descriptors of the API.
#[derive(Clone, Debug)]
pub struct Translator {
    pool: DescriptorPool,
}

impl Translator {
    /// Reads the descriptors.
    pub fn new() -> Result<Self, JsonError> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET);
        Ok(Self { pool: pool.map_err(|error| JsonError::Descriptors(error.to_string()))? })
    }

    /// The descriptor of `althing.v1.<name>`.
    pub fn message(&self, name: &str) -> Result<MessageDescriptor, JsonError> {
        let name = format!("althing.v1.{name}");
        self.pool.get_message_by_name(&name).ok_or(JsonError::NoMessage(name))
    }

    /// The descriptors.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// An encoded message as JSON. Every field is written, also those that are 0 or empty.
    pub fn to_json(&self, name: &str, message: Bytes) -> Result<Value, JsonError> {
        let message = DynamicMessage::decode(self.message(name)?, message)
            .map_err(|error| JsonError::Protobuf(error.to_string()))?;
        let options = SerializeOptions::new().skip_default_fields(false);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| JsonError::Protobuf(error.to_string()))
    }

    /// JSON as an encoded message. Unknown keys are refused.
    pub fn from_json(&self, name: &str, json: &[u8]) -> Result<Bytes, JsonError> {
        let failed = |error: serde_json::Error| JsonError::Json(error.to_string());
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize_with_options(self.message(name)?, &mut deserializer, &options);
        let message = message.map_err(failed)?;
        deserializer.end().map_err(failed)?;
        Ok(message.encode_to_vec().into())
    }
}

/// The 32 bytes of a hash, key or account in a path: 64 hex digits, or base64 as in answers.
pub fn key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() == 64 {
        return hex::decode_to_slice(text, &mut key).ok().map(|()| key);
    }
    let bytes = match text.len() {
        43 => URL_SAFE_NO_PAD.decode(text.replace('+', "-").replace('/', "_")).ok()?,
        44 => URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).ok()?,
        _ => return None,
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use node_api::proto;
    use prost::Message;
    use serde_json::json;

    use super::{Translator, key};

    #[test]
    fn messages_go_to_json_and_back() {
        let translator = Translator::new().expect("the descriptors are read");
        let request = proto::SubmitRequest { transaction: vec![1, 2, 255].into(), wait: 2 };
        let json = translator.to_json("SubmitRequest", request.encode_to_vec().into()).expect("JSON");
        assert_eq!(json, json!({"transaction": "AQL/", "wait": "WAIT_FINAL"}));
        let back = translator.from_json("SubmitRequest", json.to_string().as_bytes()).expect("protobuf");
        assert_eq!(proto::SubmitRequest::decode(back).expect("decodes"), request);
        let account = proto::GetAccountResponse { balance: u64::MAX, ..Default::default() };
        let json = translator.to_json("GetAccountResponse", account.encode_to_vec().into()).expect("JSON");
        assert_eq!((json["balance"].as_str(), json["exists"].as_bool()), (Some("18446744073709551615"), Some(false)));
    }

    #[test]
    fn rubbish_is_refused_and_never_breaks_anything() {
        let translator = Translator::new().expect("the descriptors are read");
        let mut state = 7_u64;
        let valid = br#"{"transaction":"AQL/","wait":"WAIT_FINAL"}"#;
        for _ in 0..20_000 {
            let mut bytes = valid.to_vec();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = (state >> 33) as usize % bytes.len();
                bytes[place] = (state >> 20) as u8;
            }
            if let Ok(message) = translator.from_json("SubmitRequest", &bytes) {
                proto::SubmitRequest::decode(message).expect("what is accepted is a message");
            }
            let _ = translator.to_json("GetTransactionResponse", bytes.into());
        }
        let deep = "[".repeat(100_000);
        assert!(translator.from_json("SubmitRequest", deep.as_bytes()).is_err());
        assert!(translator.from_json("SubmitRequest", b"{\"surprise\": 1}").is_err());
        assert!(translator.from_json("SubmitRequest", b"{} {}").is_err());
    }

    #[test]
    fn keys_are_read_in_hex_and_in_base64() {
        let expected = Some([0xfb; 32]);
        let hex = "fb".repeat(32);
        let base64 = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=";
        for text in [hex.as_str(), base64, base64.trim_end_matches('='), &base64.replace('+', "-").replace('/', "_")] {
            assert_eq!(key(text), expected, "{text}");
        }
        for text in ["", "fb", &"zz".repeat(32), &"é".repeat(32), &"=".repeat(44), &"=".repeat(43)] {
            assert_eq!(key(text), None, "{text}");
        }
    }
}
