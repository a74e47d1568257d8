//! The rules of the layout: bounds, canonical form, no panic on any bytes.

use super::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{ChainId, Height, Nonce};

#[test]
fn integers_are_big_endian_and_lists_carry_a_count() {
    let mut writer = Writer::new();
    writer.u16(0x0102);
    writer.list(&[Height::new(3), Height::new(4)]);
    writer.option::<Height>(None);
    writer.option(Some(&Nonce::new(5)));
    writer.bytes(b"ab");
    let expected = [
        &[1, 2][..],
        &[0, 0, 0, 2],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 0, 0, 0, 4],
        &[0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 5],
        &[0, 0, 0, 2, b'a', b'b'],
    ];
    assert_eq!(writer.into_bytes(), expected.concat());
}

#[test]
fn a_length_above_its_maximum_is_refused_before_anything_is_read() {
    let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff]);
    let error = reader.list::<Height>("heights", 3).unwrap_err();
    assert_eq!(error, DecodeError::TooLong { field: "heights", found: 0xffff_ffff, max: 3 });
}

#[test]
fn a_list_that_ends_early_is_refused() {
    let mut reader = Reader::new(&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(reader.list::<Height>("heights", 3), Err(DecodeError::UnexpectedEnd { field: "Height" }));
}

#[test]
fn an_option_is_zero_or_one() {
    let error = Reader::new(&[2]).option::<Height>("height").unwrap_err();
    assert_eq!(error, DecodeError::UnknownTag { field: "height", found: 2 });
}

#[test]
fn bytes_left_over_are_refused() {
    assert_eq!(Height::decode(&[0; 9]), Err(DecodeError::TrailingBytes { count: 1 }));
}

#[test]
fn another_version_is_refused_by_name() {
    let error = Reader::new(&[2]).version("Header", 1).unwrap_err();
    assert_eq!(error.to_string(), "Header has unsupported version 2");
}

#[test]
fn a_chain_id_is_a_dns_label() {
    for text in ["a", "demo-main", "0", &"x".repeat(63)] {
        assert_eq!(ChainId::decode(&ChainId::new(text).unwrap().encode()).unwrap().as_str(), text);
    }
    for text in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
        assert!(ChainId::new(text).is_err(), "{text}");
    }
}
