//! Messages, clients and servers of the gRPC services, generated from `proto/`.
//!
//! Identities, keys, hashes and signatures are raw bytes here; [`crate::fields`] turns them into the types of
//! `node-core`.

#![expect(missing_docs, reason = "generated: the documentation of messages and fields is in the proto files")]

tonic::include_proto!("althing.v1");

/// The compiled descriptors of all services, for `tonic-reflection`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/althing.v1.descriptors.bin"));

/// Largest message that a client or server of these services must accept, in bytes: a block with its certificate.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
